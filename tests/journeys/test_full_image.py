"""A full image on demand, through the real processes: the relay is killed on the way and nothing is sent twice."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset

from relay.cloud.blob_upload import BLOCK_BYTES
from simulator.azure.blob_storage import Blobs
from simulator.modality.modality import standard_views
from simulator.site import Site, wait_until
from tests.journeys.steps import now
from tests.tools.waiting import PATIENCE_SECONDS

SETTINGS = {"RELAY_UPLOAD_HOSTS": "127.0.0.1", "RELAY_UPLOAD_BYTES_PER_SECOND": "8000000"}


@contextmanager
def storage(folder: Path) -> Iterator[Blobs]:
    """The stand-in of blob storage, in a thread of its own."""
    folder.mkdir()
    blobs, loop, ready, stop = Blobs(folder), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with blobs.serving():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE_SECONDS)
    try:
        yield blobs
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_a_relay_that_is_killed_goes_on_with_the_block_it_had_reached(tmp_path: Path) -> None:
    with storage(tmp_path / "blobs") as blobs, Site(tmp_path, settings=SETTINGS) as site:
        site.start_cloud()
        site.start("worklist", "pacs")
        site.start("relay")
        step = site.modality().begin(exam_item(site), now=now())
        [image] = site.modality().store(list(standard_views(step))[:1])
        total = -(-image.size_bytes // BLOCK_BYTES)
        wanted = {"sop_instance_uid": image.sop_instance_uid, "target_url": blobs.signed("a.dcm")}
        request = {"action_type": "image.request", "action_id": "R-1", "parameters": wanted}
        assert site.control.send(request) == {"status": "processed", "action_id": "R-1"}
        wait_until(lambda: blobs.put_blocks >= 2, what="The first blocks")
        site.kill("relay")
        site.start("relay")
        wait_until(lambda: site.control.events("image.upload_completed") != [], what="image.upload_completed")
        [told] = site.control.events("image.upload_completed")
        assert (blobs.put_blocks <= total + 1, blobs.blobs["a.dcm"].sha256) == (True, told["parameters"]["sha256"])
        assert told["told"] == 1
        assert "sig=" not in site.log("relay")


def exam_item(site: Site) -> Dataset:
    """An appointment made by the cloud, as the machine finds it."""
    from simulator.journey import accession_of, create_item

    action = create_item(now=now())
    wait_until(lambda: site.control.listeners() > 0, what="The relay")
    site.control.send(action)
    [item] = site.modality().find(accession_number=accession_of(action))
    return item
