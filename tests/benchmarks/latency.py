"""How long after Success the cloud has the event, on an idle line: `tests/benchmarks/latency [--images 50]`.

Real processes (worklist, pacs, relay) and the stand-ins of the cloud, all on this machine. Mammograms are stored one at
a time with a pause between them; the clock runs from the moment the machine has its Success (C-STORE, or N-CREATE and
N-SET of a step) to the moment the cloud has the event. The thumbnail is in the event of its image, so that both arrive
together; events without one are counted. Ends with 1 if p95 is a second or more, or a thumbnail is missing.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydicom.uid import generate_uid

from simulator.azure.servicebus_service import Bus
from simulator.journey import accession_of, create_item
from simulator.modality.modality import standard_views
from simulator.site import Site, wait_until

PAUSE_SECONDS = 0.3

Arrivals = Callable[[], Mapping[str, tuple[float, bool]]]
"""By message id: when the cloud had it (as time.time), and whether a thumbnail was in it."""


def main() -> int:
    """Measure each destination that was asked for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--to", nargs="+", default=["hybrid", "https", "servicebus"])
    arguments = parser.parse_args()
    print(f"{'':<34}{'p50 s':>8}{'p95 s':>8}{'max s':>8}{'events':>8}{'without thumbnail':>20}")
    return max([_measured(name, arguments.images) for name in arguments.to])


def _measured(name: str, images: int) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="latency-") as folder,
        _bus(name) as (settings, at_bus),
        Site(Path(folder), settings={"RELAY_DESTINATION": name, **settings}) as site,
    ):
        site.start_cloud()
        site.start("worklist", "pacs", "relay")
        arrivals = at_bus or (lambda: _at_door(site))
        steps, stored = _exam(site, images)
        wait_until(lambda: {*steps, *stored} <= arrivals().keys(), what="The last event", seconds=60)
        seen = arrivals()
    without = sum(not seen[uid][1] for uid in stored)
    told = _report(f"step to {name}", [seen[uid][0] - at for uid, at in steps.items()], without=0)
    return max(told, _report(f"image to {name}", [seen[uid][0] - at for uid, at in stored.items()], without=without))


def _exam(site: Site, images: int) -> tuple[dict[str, float], dict[str, float]]:
    """One long exam: the message ids of its steps and images, and when the machine had Success for each."""
    wait_until(lambda: site.control.listeners() > 0, what="The relay at the stand-in cloud")
    time.sleep(3)  # the relay's workers have read their code, as they have on a site
    now, modality = datetime.now().astimezone(), site.modality()
    action = create_item(now=now)
    site.control.send(action)
    [item] = modality.find(accession_number=accession_of(action))
    step = modality.begin(item, now=now)
    steps, stored = {f"{step.mpps_instance_uid}/in_progress": time.time()}, {}
    views, sent = list(standard_views(step)), []
    for number in range(images):
        image = views[number % len(views)]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        sent += modality.store([image])
        stored[str(image.SOPInstanceUID)] = time.time()
        time.sleep(PAUSE_SECONDS)
    modality.complete(step, sent, now=now)
    steps[f"{step.mpps_instance_uid}/completed"] = time.time()
    return steps, stored


def _at_door(site: Site) -> dict[str, tuple[float, bool]]:
    return {
        str(event["message_id"]): (datetime.fromisoformat(str(event["received_at"])).timestamp(), _has_picture(event))
        for event in site.control.events()
    }


def _has_picture(event: Mapping[str, object]) -> bool:
    parameters = event["parameters"]
    image = parameters.get("image") if isinstance(parameters, dict) else None
    return isinstance(image, dict) and image.get("thumbnail") is not None


@contextmanager
def _bus(name: str) -> Iterator[tuple[dict[str, str], Arrivals | None]]:
    """The stand-in of Service Bus in a thread of its own, and the settings for it; nothing for other destinations."""
    if name != "servicebus":
        yield {}, None
        return
    loop, bus = asyncio.new_event_loop(), Bus()
    queue = bus.add_queue("events", duplicate_window=600)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(bus.start(), loop).result()

    def arrivals() -> dict[str, tuple[float, bool]]:
        return {
            str(message.message_id): (message.enqueued_at, _has_picture(json.loads(message.body)))
            for message in list(queue.ready)
        }

    try:
        yield (
            {
                "AZURE_SERVICEBUS_CONNECTION_STRING": bus.connection_string(),
                "AZURE_SERVICEBUS_QUEUE": "events",
                "AZURE_SERVICEBUS_TRANSPORT": "amqp",
            },
            arrivals,
        )
    finally:
        asyncio.run_coroutine_threadsafe(bus.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _report(what: str, delays: Sequence[float], *, without: int) -> int:
    seconds = sorted(delays)
    p95 = seconds[min(len(seconds) - 1, round(0.95 * len(seconds)))]
    figures = f"{statistics.median(seconds):>8.3f}{p95:>8.3f}{seconds[-1]:>8.3f}{len(seconds):>8}{without:>20}"
    print(f"{what:<34}{figures}", flush=True)
    return 1 if p95 >= 1 or without else 0


if __name__ == "__main__":
    sys.exit(main())
