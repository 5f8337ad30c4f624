"""The archive: images in, kept as received, and found again.

It owns pacs.db and the instance files. Its process takes C-STORE; the relay opens the same `Archive` to answer QIDO-RS
and WADO-RS and to tell the cloud what came. `Listing` has plain lists for scripts, `Duties` what is owed to site
archives. `preview`, `rendered` and `frames` make pictures of a stored file, `recode` and its kin give it another form,
`compress` makes a smaller one, `read_part10` says what a file from outside is, `delete` lets go what may go.
"""

from pacs.archive import Archive, Stored
from pacs.compression import COMPRESSIONS, compress
from pacs.duties import Duties
from pacs.grayscale import Window
from pacs.listing import Listing
from pacs.part10 import Part10, read_part10
from pacs.pixels import Frame, Picture, Viewport, frames, preview, rendered, start_worker
from pacs.recoding import RECODED_AS, check_recoding, recode, recoded_frame
from pacs.retention import Policy, delete
from pacs.stored_frames import Extent

__all__ = [
    "COMPRESSIONS",
    "RECODED_AS",
    "Archive",
    "Duties",
    "Extent",
    "Frame",
    "Listing",
    "Part10",
    "Picture",
    "Policy",
    "Stored",
    "Viewport",
    "Window",
    "check_recoding",
    "compress",
    "delete",
    "frames",
    "preview",
    "read_part10",
    "recode",
    "recoded_frame",
    "rendered",
    "start_worker",
]
