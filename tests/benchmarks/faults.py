"""Deliver events over bad lines, while the process that delivers is killed: `tests/benchmarks/faults --events 5000`.

Prints events, faults and kills, and how many events were lost, seen twice, or out of order at any of three
destinations (a hybrid connection, HTTPS, Service Bus). Ends with 1 if there was one.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.relay.delivery.campaign import Tally, campaign


def main() -> int:
    """Run one campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes about the same day")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        tally = asyncio.run(campaign(Path(folder), events=arguments.events, seed=arguments.seed, progress=_show))
    print(f"\n{tally.table()}\n{'seconds':<40}{tally.seconds:>10.0f}")
    return 1 if tally.lost or tally.twice or tally.out_of_order else 0


def _show(tally: Tally) -> None:
    print(f"\r{tally.events} events, {tally.faults} faults, {tally.kills} kills", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
