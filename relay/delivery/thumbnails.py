"""The thumbnail of an image that an event tells of, made in a worker process.

Not for: pixels (`pacs.preview`), which size fits a message (`relay.delivery.composer`).
"""

import asyncio
import base64

from gateway.messages import Image, Thumbnail
from pacs import Archive, preview
from relay.render_pool import Renderer


async def thumbnail(archive: Archive, renderer: Renderer, image: Image, size: int) -> Thumbnail:
    """Picture an image, no larger than `size` pixels on its longer side.

    Raises Conflict when another image took the place of the one that the event tells of, and other Refusals.
    """
    stored = await asyncio.to_thread(archive.unchanged, image.sop_instance_uid, image.sha256)
    picture = await renderer.run(preview, stored.path, size=size)
    # Asked again: the file may have been replaced while it was read, and the picture would be of the other one.
    await asyncio.to_thread(archive.unchanged, image.sop_instance_uid, image.sha256)
    data = base64.b64encode(picture.data).decode()
    return Thumbnail(data=data, width=picture.width, height=picture.height, note=picture.note)
