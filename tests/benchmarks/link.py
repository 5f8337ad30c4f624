"""How long a dead listener that looks alive is kept: `tests/benchmarks/link [--at MOMENTS]`.

For each of the three kinds, with the default settings, every channel of a site is made deaf at a moment of its life;
the time runs until nothing is left of them, and until a message of the cloud is answered again. All run side by
side, against stand-ins of the service in this process, and a run takes two minutes. A line that is half open leaves
ghosts at the service, to which it goes on giving senders: here they are taken away as soon as the gateway has given
them up, for how long the real service keeps them is not known.

Not measured: a real service.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from gateway.errors import CloudError
from gateway.log import configure
from relay.hybrid.exchange import LinkLimits
from relay.hybrid.sender import ECHO_TIMEOUT
from tests.relay.hybrid.hybrid_site import Site, site
from tests.tools.waiting import until

Kind = Literal["half open", "mute", "forgotten", "mute, may not send"]
FAULTS: dict[Kind, str] = {"half open": "freeze", "mute": "mute", "forgotten": "unlist", "mute, may not send": "mute"}
PATIENCE = 280.0
"""Seconds after which a kind counts as never noticed."""


@dataclass(frozen=True)
class Seen:
    """Seconds after the fault."""

    replaced: float
    answered: float


async def measure(kind: Kind, *, at: float) -> Seen:
    """Let a site run for `at` seconds, make it deaf, and see what becomes of it."""
    async with site(limits=LinkLimits(), proves=kind != "mute, may not send", echo_timeout=ECHO_TIMEOUT) as here:
        await until(lambda: len(here.listener.state.listener_ids) == 2, seconds=30)
        await asyncio.sleep(at)
        ghosts, since = set(here.listener.state.listener_ids), time.monotonic()
        getattr(here.service, FAULTS[kind])("actions")
        await until(lambda: not ghosts & set(here.listener.state.listener_ids), seconds=PATIENCE)
        replaced = time.monotonic() - since
        for ghost in [each for each in here.connection.listeners if each.ident in ghosts]:
            ghost.unlisted = True
        await until(lambda: len(here.listener.state.listener_ids) == 2, seconds=PATIENCE)
        await answered(here)
        return Seen(replaced, time.monotonic() - since)


async def answered(here: Site) -> None:
    """Send as the cloud does until an answer comes."""
    while True:
        try:
            assert json.loads(await here.sender.exchange("1"))["payload"] == 1
        except CloudError:
            await asyncio.sleep(0.1)
        else:
            return


async def run(moments: int) -> Table:
    """Measure every kind at several moments between two echoes."""
    kinds = [(kind, moment * 20 / moments) for kind in FAULTS for moment in range(moments)]
    async with asyncio.timeout(PATIENCE):
        seen = await asyncio.gather(*(measure(kind, at=at) for kind, at in kinds))
    table = Table("deaf listener", "at s", "all replaced s", "answers the cloud s", title="Default settings")
    for (kind, at), each in zip(kinds, seen, strict=True):
        table.add_row(kind, f"{at:.0f}", f"{each.replaced:.1f}", f"{each.answered:.1f}")
    longest = max(each.replaced for each in seen)
    table.caption = f"longest {longest:.1f} s; promised are 120"
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=int, default=2, help="moments between two echoes at which it happens (2)")
    configure("ERROR", process="benchmark")
    Console().print(asyncio.run(run(parser.parse_args().at)))


if __name__ == "__main__":
    main()
