"""Random faults and kills over many events, to three destinations at once; then everything is counted.

A producer writes events of many subjects into two outboxes. A process of its own delivers them over lines that go bad,
to services that have bad moments, and is killed with SIGKILL at random and started again, each time with a clock that
may be days off. At the end the lines are well, and what each cloud can see is compared with what was written: nothing
lost, nothing twice, and in order for each subject.
"""

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import get_args

from gateway import outbox
from gateway.outbox import NewEntry, Owner
from gateway.sqlite import Database
from relay.hybrid.protocol import endpoint
from simulator.azure.servicebus_entities import Queue
from simulator.azure.servicebus_service import Bus
from simulator.cloud.programme import EVENTS, Cloud
from tests.relay.delivery import deliverer
from tests.relay.delivery.bad_line import BadLine, Fault
from tests.relay.delivery.deliverer import NAMES, NOW, Plan

SPEED = 60.0
"""Seconds that pass in one: a pause between knocks of half a minute takes half a second."""

WELL_SECONDS = {"http": (0.1, 1.5), "servicebus": (1.0, 3.0)}
"""How long a line, and a service, is well between two faults; a client that opens slowly needs longer."""

LIFE_SECONDS = (0.3, 3.0)
"""How long a process lives at most; the official client of Service Bus takes half a second to open."""

LIFE_MESSAGES = (60, 400)
"""After how many messages told it is killed at the latest: a quick machine has kills as well."""

CALM = 0.8
"""The share of faults, and of kills, that also wait until something was told since the last one. All others come by the
time alone; if all did, a machine that needs longer than that for one event would get nowhere."""

CLOCKS = (timedelta(), timedelta(), timedelta(days=2), timedelta(days=-2))
"""How far off the clock of a process is."""

_processes = multiprocessing.get_context("forkserver")


@dataclass
class Tally:
    """The figures of a campaign."""

    events: int = 0
    faults: int = 0
    kills: int = 0
    told: int = 0
    lost: int = 0
    twice: int = 0
    out_of_order: int = 0
    seconds: float = 0.0

    def table(self) -> str:
        rows = {
            f"events, each to {len(NAMES)} destinations": self.events,
            "faults": self.faults,
            "kills": self.kills,
            "told, repeats included": self.told,
            "lost": self.lost,
            "seen twice": self.twice,
            "out of order": self.out_of_order,
        }
        return "\n".join(f"{name:<40}{number:>10}" for name, number in rows.items())


@dataclass
class World:
    """The services, the lines that lead to them, and what was written."""

    clouds: dict[str, Cloud]
    bus: Bus
    queue: Queue
    lines: dict[str, BadLine]
    owners: list[Owner]
    plan: Plan
    chance: random.Random
    tally: Tally
    written: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    def seen(self) -> dict[str, list[str]]:
        """The message ids each cloud can see, in order."""
        told = {name: list(cloud.events.received) for name, cloud in self.clouds.items()}
        return {**told, "servicebus": [str(message.message_id) for message in self.queue.ready]}

    def told(self) -> int:
        """How many messages the clouds have taken, repeats included."""
        return sum(self.told_at(name) for name in NAMES)

    def told_at(self, name: str) -> int:
        """The same of one of them."""
        return self.bus.taken if name == "servicebus" else self.clouds[name].events.arrivals.total()

    def is_done(self) -> bool:
        return all(owner.outbox.counts()["open"] == 0 for owner in self.owners)


def _nobody(_: Tally) -> None: ...


async def campaign(folder: Path, *, events: int, seed: int, progress: Callable[[Tally], None] = _nobody) -> Tally:
    """Run one campaign; kills come every few seconds, faults all the time. `progress` is called after each kill."""
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        world = await _built(stack, folder, random.Random(seed))
        for owner in world.owners:
            stack.callback(owner.close)
        producing = asyncio.create_task(_produce(world, events))
        troubles = [asyncio.create_task(trouble) for trouble in _troubles(world)]
        try:
            await _deliver_and_kill(world, until=lambda: producing.done() and world.is_done(), progress=progress)
            await producing
        finally:
            for task in (producing, *troubles):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        _count(world)
    world.tally.seconds = time.monotonic() - began
    return world.tally


async def _built(stack: AsyncExitStack, folder: Path, chance: random.Random) -> World:
    clouds = {name: await stack.enter_async_context(Cloud()) for name in ("hybrid", "https")}
    bus = await stack.enter_async_context(Bus())
    queue = bus.add_queue("events", duplicate_window=86400)
    ports = {
        "hybrid": int(clouds["hybrid"].addresses.namespace.rpartition(":")[2]),
        "https": int(clouds["https"].addresses.control.rpartition(":")[2]),
        "servicebus": bus.port,
    }
    lines = {name: await stack.enter_async_context(BadLine(port)) for name, port in ports.items()}
    databases = (folder / "one.db", folder / "other.db")
    plan = Plan(
        databases=databases,
        hybrid=f"ws://127.0.0.1:{lines['hybrid'].port}",
        hybrid_audience=endpoint(clouds["hybrid"].addresses.namespace, EVENTS).audience,
        https=f"http://127.0.0.1:{lines['https'].port}/api/v1",
        servicebus=bus.connection_string().replace(f":{bus.port}", f":{lines['servicebus'].port}"),
        base=NOW,
        started=time.time(),
        speed=SPEED,
    )
    owners = [_made(path) for path in databases]
    return World(clouds, bus, queue, lines, owners, plan, chance, Tally())


def _made(path: Path) -> Owner:
    database = Database(path, outbox.SCHEMA)
    database.migrate()
    owner = Owner(database)
    owner.outbox.serve(NAMES, now=NOW)
    return owner


async def _produce(world: World, events: int) -> None:
    """Write events a few at a time, over about as many subjects as a day has exams."""
    subjects = max(4, events // 12)
    while world.tally.events < events:
        for _ in range(world.chance.randint(1, 12)):
            which, subject = world.chance.randrange(2), f"s{world.chance.randrange(subjects)}"
            message_id = f"m{world.tally.events}"
            await asyncio.to_thread(_put, world, which, subject, message_id)
            world.written.setdefault((which, subject), []).append(message_id)
            world.tally.events += 1
        await asyncio.sleep(world.chance.uniform(0, 0.05))


def _put(world: World, which: int, subject: str, message_id: str) -> None:
    parameters = {"sop_instance_uid": message_id, "reason": "x" * world.chance.randrange(2000)}
    new = NewEntry(message_id, "image.rejected", subject, 1 + len(subject) % 2, parameters)
    world.owners[which].outbox.enqueue(new, now=world.plan.clock())


async def _deliver_and_kill(world: World, *, until: Callable[[], bool], progress: Callable[[Tally], None]) -> None:
    _processes.set_forkserver_preload([deliverer.__name__])
    while True:
        plan = replace(world.plan, base=world.plan.base + world.chance.choice(CLOCKS))
        process = _processes.Process(target=deliverer.main, args=(plan,), daemon=True)
        process.start()
        deadline = time.monotonic() + world.chance.uniform(*LIFE_SECONDS)
        least = world.told() + (world.chance.random() < CALM)
        enough = world.told() + world.chance.randint(*LIFE_MESSAGES)
        while not (done := until()) and world.told() < enough:
            if time.monotonic() > deadline and world.told() >= least:
                break
            await asyncio.sleep(0.02)
            if process.exitcode is not None:
                raise AssertionError(f"The delivering process ended by itself with {process.exitcode}.")
        process.kill()
        await asyncio.to_thread(process.join)
        progress(world.tally)
        if done:
            return
        world.tally.kills += 1


def _troubles(world: World) -> Iterator[Coroutine[None, None, None]]:
    for name, line in world.lines.items():
        well_seconds = WELL_SECONDS["servicebus" if name == "servicebus" else "http"]
        yield _line_trouble(world, name, line, well_seconds=well_seconds)
        yield _service_trouble(world, name, _deeds(world)[name], well_seconds=well_seconds)


async def _well(world: World, name: str, seconds: tuple[float, float]) -> None:
    """Wait between two faults."""
    least = world.told_at(name) + (world.chance.random() < CALM)
    await asyncio.sleep(world.chance.uniform(*seconds))
    while world.told_at(name) < least:
        await asyncio.sleep(0.02)


async def _line_trouble(world: World, name: str, line: BadLine, *, well_seconds: tuple[float, float]) -> None:
    faults: tuple[Fault, ...] = get_args(Fault)
    while True:
        await _well(world, name, well_seconds)
        await line.become(world.chance.choice(faults))
        world.tally.faults += 1
        await asyncio.sleep(world.chance.uniform(0.01, 0.3))
        await line.become(None)


async def _service_trouble(
    world: World, name: str, deeds: Sequence[Callable[[], object]], *, well_seconds: tuple[float, float]
) -> None:
    while True:
        await _well(world, name, well_seconds)
        world.chance.choice(deeds)()
        world.tally.faults += 1


def _deeds(world: World) -> dict[str, Sequence[Callable[[], object]]]:
    """What may happen to each service."""
    bus, hybrid, https = world.bus, world.clouds["hybrid"], world.clouds["https"]
    return {
        "hybrid": (
            lambda: hybrid.events.mishaps.append("busy"),
            lambda: hybrid.events.mishaps.append("lost"),
            lambda: hybrid.service.kill(EVENTS),
        ),
        "https": (lambda: https.events.mishaps.append("busy"), lambda: https.events.mishaps.append("lost")),
        "servicebus": (
            bus.cut,
            bus.freeze,
            bus.detach,
            lambda: setattr(bus.faults, "busy", 1),
            lambda: setattr(bus.faults, "lose_confirmation", 1),
            lambda: setattr(bus.faults, "refuse_token", 1),
            lambda: setattr(bus.faults, "refuse_connection", 1),
        ),
    }


def _count(world: World) -> None:
    tally = world.tally
    tally.told = world.told()
    for seen in world.seen().values():
        tally.twice += len(seen) - len(set(seen))
        place = {message_id: index for index, message_id in enumerate(seen)}
        for message_ids in world.written.values():
            found = [place[each] for each in message_ids if each in place]
            tally.lost += len(message_ids) - len(found)
            tally.out_of_order += sum(later < earlier for earlier, later in pairwise(found))
