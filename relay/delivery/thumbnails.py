"""The thumbnail of an event's image, made in a worker process.

Not for: pixels (`pacs.preview`), which size fits a message (`relay.delivery.composer`).
"""

import asyncio
import base64

from gateway.messages import Image, Thumbnail
from pacs import Archive, preview
from relay.render_pool import Renderer


async def thumbnail(archive: Archive, renderer: Renderer, image: Image, size: int) -> Thumbnail:
    """Make the thumbnail of an image, at most `size` pixels on its longer side, as base64.

    Raises Conflict when other content has taken the image's place, and other Refusals.
    """
    stored = await asyncio.to_thread(archive.unchanged, image.sop_instance_uid, image.sha256)
    picture = await renderer.run(preview, stored.path, size=size)
    # Checked again: the file may have been replaced while it was read, and the picture be of the other content.
    await asyncio.to_thread(archive.unchanged, image.sop_instance_uid, image.sha256)
    data = base64.b64encode(picture.data).decode()
    return Thumbnail(data=data, width=picture.width, height=picture.height, note=picture.note)
