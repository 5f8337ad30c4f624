from .archive.archive import Archive, Stored
from .archive.listing import Damaged, Listing, SeriesRow, StudyRow
from .archive.quality_rows import QualityRows
from .archive.quarantine_rows import Quarantine, SetAside
from .forward.queue_rows import ForwardQueue, TargetQueue
from .images.compare import Comparison, compare
from .images.compress import COMPRESSIONS, compress
from .images.grayscale import Window
from .images.part10 import Part10, read_part10
from .images.pictures import Frame, Picture, Viewport, frames, preview, rendered, start_worker
from .images.stored_frames import Extent
from .images.transcode import RECODED_AS, check_recoding, recode, recoded_frame
from .maintenance.discard import discard
from .maintenance.retention import RetentionOutcome, RetentionPolicy, candidates, delete

__all__ = [
    "COMPRESSIONS",
    "RECODED_AS",
    "Archive",
    "Comparison",
    "Damaged",
    "Extent",
    "ForwardQueue",
    "Frame",
    "Listing",
    "Part10",
    "Picture",
    "QualityRows",
    "Quarantine",
    "RetentionOutcome",
    "RetentionPolicy",
    "SeriesRow",
    "SetAside",
    "Stored",
    "StudyRow",
    "TargetQueue",
    "Viewport",
    "Window",
    "candidates",
    "check_recoding",
    "compare",
    "compress",
    "delete",
    "discard",
    "frames",
    "preview",
    "read_part10",
    "recode",
    "recoded_frame",
    "rendered",
    "start_worker",
]
