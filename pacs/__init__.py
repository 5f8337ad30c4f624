"""The archive: images in, kept as received, and found again.

It owns pacs.db and the instance files. Its process takes C-STORE; the relay opens the same `Archive` to answer QIDO-RS
and WADO-RS and to tell the cloud what came. Parts of it are `Listing`, `Quarantine` and `QualityRows`; `ForwardQueue`
has what is owed to site archives. `preview`, `rendered` and `frames` make pictures of a stored file, `recode` and its
kin give it another form, `compress` makes a smaller one, `read_part10` says what a file from outside is, `compare` what
differs between two, `delete` lets go what may go and `candidates` says what that is, `discard` decides that an image
never leaves.
"""

import lazy_loader

# On demand, because reading the settings of a package or taking one name of it shall not load all the rest: DICOM,
# pixels, sockets. What is exported stands in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
