"""The archive: images in, kept as received, and found again.

It owns pacs.db and the instance files. Its process takes C-STORE; the relay opens the same `Archive` to answer QIDO-RS
and WADO-RS and to tell the cloud what came. `preview`, `rendered` and `frames` make pictures of a stored file, `recode`
and its kin give it another form, `read_part10` says what a file from outside is, `delete` lets go what may go.
"""

from pacs.archive import Archive, Stored
from pacs.grayscale import Window
from pacs.part10 import Part10, read_part10
from pacs.pixels import Frame, Picture, Viewport, frames, preview, rendered, start_worker
from pacs.recoding import RECODED_AS, check_recoding, recode, recoded_frame
from pacs.retention import Policy, delete
from pacs.stored_frames import Extent

__all__ = [
    "RECODED_AS",
    "Archive",
    "Extent",
    "Frame",
    "Part10",
    "Picture",
    "Policy",
    "Stored",
    "Viewport",
    "Window",
    "check_recoding",
    "delete",
    "frames",
    "preview",
    "read_part10",
    "recode",
    "recoded_frame",
    "rendered",
    "start_worker",
]
