"""The archive: images in, kept as received, and found again.

It owns pacs.db and the instance files. Its process takes C-STORE; the relay opens the same `Archive` to answer QIDO-RS
and WADO-RS and to tell the cloud what came. `Listing` has plain lists for scripts, `Duties` what is owed to site
archives. `preview`, `rendered` and `frames` make pictures of a stored file, `recode` and its kin give it another form,
`compress` makes a smaller one, `read_part10` says what a file from outside is, `compare` what differs between two,
`delete` lets go what may go and `candidates` says what that is, `discard` decides that an image never leaves.
"""

from pacs.archive.archive import Archive, Stored
from pacs.archive.listing import Damaged, Listing, SeriesRow, StudyRow
from pacs.archive.maintenance_rows import SetAside
from pacs.forward.queue_rows import Duties, Standing
from pacs.images.compare import Comparison, compare
from pacs.images.compress import COMPRESSIONS, compress
from pacs.images.grayscale import Window
from pacs.images.part10 import Part10, read_part10
from pacs.images.pictures import Frame, Picture, Viewport, frames, preview, rendered, start_worker
from pacs.images.stored_frames import Extent
from pacs.images.transcode import RECODED_AS, check_recoding, recode, recoded_frame
from pacs.maintenance.discard import discard
from pacs.maintenance.retention import Outcome, Policy, candidates, delete

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
    "Outcome",
    "Part10",
    "Picture",
    "Policy",
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
