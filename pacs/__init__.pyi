from .archive.archive import Archive, Stored
from .archive.listing import Damaged, Listing, SeriesRow, StudyRow
from .archive.maintenance_rows import SetAside
from .forward.queue_rows import Duties, Standing
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
    "Duties",
    "Extent",
    "Frame",
    "Listing",
    "Part10",
    "Picture",
    "RetentionOutcome",
    "RetentionPolicy",
    "SeriesRow",
    "SetAside",
    "Standing",
    "Stored",
    "StudyRow",
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
