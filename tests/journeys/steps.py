"""What the journeys do again and again, in words of the journey."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import cast

from pydicom import Dataset

from gateway.hops import Hops
from simulator.cloud.remote_control import Json
from simulator.journey import IMAGE, QUALITY, Journey, create_item
from simulator.modality.modality import Sent, Step, standard_views
from simulator.site import Site, wait_until

ROWS, COLUMNS = 416, 320
"""Small images where the size is not the subject."""


def now() -> datetime:
    return datetime.now().astimezone()


def journey(site: Site) -> Journey:
    return Journey(site.modality(), site.control, site.url, Hops(), site.ports["modality"])


def begun(site: Site) -> tuple[Journey, Step]:
    """An exam whose appointment came from the cloud and whose step has begun."""
    steps = journey(site)
    action = create_item(now=now())
    steps.appoint(action)
    return steps, steps.modality.begin(steps.ask(action), now=now())


def views(step: Step) -> list[Dataset]:
    """The four standard views, small."""
    return list(standard_views(step, rows=ROWS, columns=COLUMNS))


def stored(site: Site, images: list[Dataset]) -> list[Sent]:
    return list(site.modality().store(images))


def qido(site: Site, path: str) -> list[Json]:
    """Search with QIDO-RS; the answers as DICOM JSON."""
    request = urllib.request.Request(f"{site.url}/dicom-web{path}", headers={"Accept": "application/dicom+json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
    return cast(list[Json], json.loads(body)) if body else []


def status_of(site: Site, path: str) -> int:
    try:
        with urllib.request.urlopen(f"{site.url}{path}", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_for_events(site: Site, expected: dict[str, int]) -> list[Json]:
    """Wait until the cloud heard of so many facts of each type, then make sure that it heard of no others.

    Heartbeats are no facts, and what an exam looks like is told when it has settled, once or twice.
    """

    def facts() -> list[Json]:
        return [event for event in site.control.events() if event["message_type"] not in ("gateway.heartbeat", QUALITY)]

    def heard() -> dict[str, int]:
        return dict(Counter(str(event["message_type"]) for event in facts()))

    def enough() -> bool:
        return all(heard().get(name, 0) >= count for name, count in expected.items())

    wait_until(enough, what=f"{expected} at the stand-in cloud, which heard {heard()}")
    assert heard() == expected
    return facts()


def told_of(site: Site) -> set[str]:
    return {str(event["message_id"]) for event in site.control.events(IMAGE)}


def dcmtk(site: Site, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's tools; the journeys' foreign client."""
    return subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=site.folder,
        env={**os.environ, "LC_ALL": "C"},
    )


def personal(site: Site) -> Iterator[str]:
    """Lines of any log that hold what the synthetic participant is called, identified by or born on."""
    for name in ("worklist", "pacs", "relay"):
        for line in site.log(name).splitlines():
            if any(secret in line for secret in ("PHANTOM", "9990000018", "19700101")):
                yield f"{name}: {line}"
