"""The worklist: who is screened when, and what modalities report about it.

It owns worklist.db. Its process answers Modality Worklist queries (C-FIND) and keeps performed procedure steps (MPPS);
the relay opens the same `Worklist` to schedule what the cloud sends and to tell the cloud what was performed. `Item` is
one scheduled procedure step, `Step` a performed one, `Origin` says who wants an item changed,
`Performed` what the steps of an item say was made.
"""

from worklist.items import Item, Origin
from worklist.mpps import Step
from worklist.step_rows import Performed
from worklist.store import Worklist

__all__ = ["Item", "Origin", "Performed", "Step", "Worklist"]
