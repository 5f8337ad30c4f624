from .items import Item, Origin
from .mpps import Step
from .step_rows import Performed
from .store import Worklist

__all__ = ["Item", "Origin", "Performed", "Step", "Worklist"]
