"""One table of faults, and every destination driven through it: tried again in bounded time, then delivered, seen once.

What the faults do to a whole relay over many events is in `tests/relay/delivery/test_campaign.py`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from azure.servicebus import TransportType

from relay.delivery.delivery import Destination
from relay.delivery.https_api import HttpsDestination, ManageDestination, fixed_token
from relay.delivery.hybrid import HybridDestination
from relay.delivery.servicebus import ServiceBusDestination, by_connection_string
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender
from simulator.azure.servicebus_entities import Queue
from simulator.azure.servicebus_service import Bus
from simulator.cloud.programme import API_TOKEN, EVENTS, Cloud
from tests.relay.delivery.bad_line import BadLine, Fault
from tests.relay.delivery.deliverer import TokensFor
from tests.relay.delivery.test_https_api import part_10_file
from tests.relay.delivery.told import outcome
from tests.tools.waiting import PATIENCE_SECONDS

SECONDS = 3.0
"""How long a destination waits here for what does not come; on a site it is thirty."""

SLOWLY = 30.0
"""And for what does come, slowly: as on a site."""

IN_TIME = 20.0
"""Seconds; one try with everything that goes with it, on a machine that makes all rows at once."""


@dataclass
class Rig:
    """A destination whose line to its stand-in can go bad. `nowhere` is the same with a name that does not resolve."""

    line: BadLine
    destination: Destination
    nowhere: Destination
    seen: Callable[[], int]
    """How many events, or images, the cloud can see."""
    unwell: Callable[[], None]
    """Let the next exchange meet a service that is busy."""
    refuse: Callable[[], Destination]
    """The destination with credentials that are over."""
    well: Callable[[], None] = lambda: None
    """Let the service be busy no more, where that does not come by itself."""


@asynccontextmanager
async def hybrid(_image: Path, seconds: float) -> AsyncIterator[Rig]:
    def to(base: str, *, lifetime: float = 3600) -> HybridDestination:
        tokens = TokensFor(endpoint(cloud.addresses.namespace, EVENTS).audience, lifetime)
        return HybridDestination(HybridSender(endpoint(base, EVENTS), tokens, timeout=seconds))

    async with Cloud() as cloud, BadLine(int(cloud.addresses.namespace.rpartition(":")[2])) as line:
        yield Rig(
            line,
            to(f"ws://127.0.0.1:{line.port}"),
            to("nowhere.invalid"),
            seen=lambda: len(cloud.events.received),
            unwell=lambda: cloud.events.mishaps.append("busy"),
            refuse=lambda: to(f"ws://127.0.0.1:{line.port}", lifetime=-60),
        )


@asynccontextmanager
async def https(_image: Path, seconds: float) -> AsyncIterator[Rig]:
    def to(host: str, token: str = API_TOKEN) -> HttpsDestination:
        return HttpsDestination(f"http://{host}/api/v1", fixed_token(token), seconds=seconds)

    async with Cloud() as cloud, BadLine(int(cloud.addresses.control.rpartition(":")[2])) as line:
        yield Rig(
            line,
            to(f"127.0.0.1:{line.port}"),
            to("nowhere.invalid:1"),
            seen=lambda: len(cloud.events.received),
            unwell=lambda: cloud.events.mishaps.append("busy"),
            refuse=lambda: to(f"127.0.0.1:{line.port}", "over"),
        )


@asynccontextmanager
async def manage(image: Path, seconds: float) -> AsyncIterator[Rig]:
    def to(host: str, token: str = API_TOKEN) -> ManageDestination:
        return ManageDestination(
            f"http://{host}/api/v1", fixed_token(token), opened=lambda _uid, _sha256: image.open("rb"), seconds=seconds
        )

    async with Cloud() as cloud, BadLine(int(cloud.addresses.control.rpartition(":")[2])) as line:
        cloud.actions["action-1"] = {}

        yield Rig(
            line,
            to(f"127.0.0.1:{line.port}"),
            to("nowhere.invalid:1"),
            seen=lambda: len(cloud.images.received),
            unwell=cloud.actions.clear,  # the programme's API answers 500 for an action that it does not know
            well=lambda: cloud.actions.update({"action-1": {}}),
            refuse=lambda: to(f"127.0.0.1:{line.port}", "over"),
        )


@asynccontextmanager
async def servicebus(_image: Path, seconds: float) -> AsyncIterator[Rig]:
    def to(address: str) -> ServiceBusDestination:
        connect = by_connection_string(address, transport=TransportType.Amqp)
        return ServiceBusDestination(connect, entity="events", seconds=2 * seconds)

    async with Bus() as bus:
        queue: Queue = bus.add_queue("events", duplicate_window=600)
        async with BadLine(bus.port) as line:
            here, there = f"127.0.0.1:{bus.port}", f"127.0.0.1:{line.port}"
            yield Rig(
                line,
                to(bus.connection_string().replace(here, there)),
                to(bus.connection_string().replace(here, "nowhere.invalid:1")),
                seen=lambda: len(queue.ready),
                unwell=lambda: setattr(bus.faults, "busy", 2),  # the client tries twice
                refuse=lambda: to(bus.connection_string(key="b3Zlcg==").replace(here, there)),
            )


RIGS = (hybrid, https, manage, servicebus)
FAULTS: tuple[str, ...] = (*get_args(Fault), "no name", "busy", "credentials over")
ROWS = [(make.__name__, fault) for make in RIGS for fault in FAULTS]


async def drive(rig: Rig, fault: str) -> tuple[str, float]:
    """Send one event under a fault and say what became of it, and how long that took."""
    destination = rig.destination
    began = time.monotonic()
    match fault:
        case "no name":
            destination = rig.nowhere
        case "busy":
            rig.unwell()
        case "credentials over":
            destination = rig.refuse()
        case _:
            await rig.line.become(fault)  # type: ignore[arg-type]
    became = await outcome(destination)
    taken = time.monotonic() - began
    rig.well()
    await rig.line.become(None)
    if destination is not rig.destination:
        await destination.close()
    return became, taken


async def delivered(destination: Destination) -> None:
    """Tell the event again until it is confirmed, as the relay does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await outcome(destination) != "delivered":
            await asyncio.sleep(0.1)


async def row(
    make: Callable[[Path, float], AbstractAsyncContextManager[Rig]], fault: str, image: Path
) -> tuple[object, ...]:
    """What one destination makes of one fault: the outcome, whether it came in time, what the cloud sees at last."""
    async with make(image, SLOWLY if fault == "slow" else SECONDS) as rig:
        if fault not in ("busy", "no name"):  # the line was well, then it went bad
            await delivered(rig.destination)
        under_it, taken = await drive(rig, fault)
        await delivered(rig.destination)
        await rig.destination.close()
        return under_it, taken < IN_TIME, rig.seen()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], object]:
    """All rows, made side by side, because most of their time is waiting for something that does not come."""
    image = part_10_file(tmp_path_factory.mktemp("image") / "image.dcm", size=10_000)

    async def made() -> list[object]:
        rows = (row(make, fault, image) for make in RIGS for fault in FAULTS)  # type: ignore[arg-type]
        return list(await asyncio.gather(*rows, return_exceptions=True))

    return dict(zip(ROWS, asyncio.run(made()), strict=True))


@pytest.mark.parametrize(("destination", "fault"), ROWS)
def test_a_fault_is_told_in_time_and_the_event_is_seen_once_afterwards(
    destination: str, fault: str, table: dict[tuple[str, str], object]
) -> None:
    under_it = "delivered" if fault == "slow" else "tried again"
    assert table[destination, fault] == (under_it, True, 1)
