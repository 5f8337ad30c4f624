"""The archive: images in, kept as received, and found again.

It owns pacs.db and the instance files. Its process takes C-STORE; the relay opens the same `Archive` to answer QIDO-RS
and WADO-RS and to tell the cloud what came. `Listing` has plain lists for scripts, `Duties` what is owed to site
archives. `preview`, `rendered` and `frames` make pictures of a stored file, and `compress` makes a smaller one.
"""

from pacs.archive import Archive, Stored
from pacs.compression import COMPRESSIONS, compress
from pacs.duties import Duties
from pacs.grayscale import Window
from pacs.listing import Listing
from pacs.pixels import Frame, Picture, Viewport, frames, preview, rendered, start_worker

__all__ = [
    "COMPRESSIONS",
    "Archive",
    "Duties",
    "Frame",
    "Listing",
    "Picture",
    "Stored",
    "Viewport",
    "Window",
    "compress",
    "frames",
    "preview",
    "rendered",
    "start_worker",
]
