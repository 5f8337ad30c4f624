from .items import ActionOrigin, Item
from .mpps import Step
from .step_rows import Performed
from .store import Worklist

__all__ = ["ActionOrigin", "Item", "Performed", "Step", "Worklist"]
