"""The archive: images in, kept as received, and found again.

It owns pacs.db and the instance files. Its process is the SCP of C-STORE; the relay opens the same `Archive` to answer
QIDO-RS and WADO-RS and to send events. Parts of it are `Listing`, `Quarantine` and `QualityRows`; `ForwardQueue` has
the entries for site archives. `preview`, `rendered` and `frames` make pictures of a stored file, `recode` and its kin
another transfer syntax, `compress` a smaller file. `read_part10` identifies a file from outside, `compare` compares
two. `candidates` and `delete` apply retention, `discard` closes the event of a held image for good.
"""

import lazy_loader

# On demand, because reading the settings of a package or taking one name of it shall not load all the rest: DICOM,
# pixels, sockets. What is exported stands in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
