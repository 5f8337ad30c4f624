"""The worklist: who is screened when, and what modalities report about it.

It owns worklist.db. Its process answers Modality Worklist queries (C-FIND) and keeps performed procedure steps (MPPS);
the relay opens the same `Worklist` to schedule the cloud's items and to send events of the performed steps. `Item` is
one scheduled procedure step, `Step` a performed one, `ActionOrigin` the action that changes an item, `Performed` the
instances that the steps of an item report.
"""

import lazy_loader

# On demand, because reading the settings of a package or taking one name of it shall not load all the rest: DICOM,
# pixels, sockets. What is exported stands in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
