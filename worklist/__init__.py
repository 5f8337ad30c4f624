"""The worklist: who is screened when, and what modalities report about it.

It owns worklist.db. Its process answers Modality Worklist queries (C-FIND) and keeps performed procedure steps (MPPS);
the relay opens the same `Worklist` to schedule what the cloud sends and to tell the cloud what was performed. `Item` is
one scheduled procedure step, `Step` a performed one, `Origin` says who wants an item changed,
`Performed` what the steps of an item say was made.
"""

import lazy_loader

# On demand, because reading the settings of a package or taking one name of it shall not load all the rest: DICOM,
# pixels, sockets. What is exported stands in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
