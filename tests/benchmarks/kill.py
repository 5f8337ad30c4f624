"""Kill the archive again and again while machines send to it, and look after every start: `tests/benchmarks/kill`.

Prints how often it was killed, what the kills cut off, how many objects were acknowledged, and how many of those were
lost or wrong. Ends with 1 if any was. 5000 kills take about ten minutes.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.durability.killing import Tally, campaign
from tests.durability.zygote import Zygote


def main() -> int:
    """Run one campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed kills after the same times")
    parser.add_argument("--folder", type=Path, help="on which volume; default: the one of temporary files")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="kill-", dir=arguments.folder))
    with Zygote() as zygote:
        tally = campaign(zygote, folder, kills=arguments.kills, seed=arguments.seed, progress=_show)
    print("\n" + tally.table())
    for fault in tally.faults:
        print(fault, f"in {folder}")
    return 1 if tally.faults else 0


def _show(tally: Tally) -> None:
    print(f"\r{tally.kills} kills, {tally.acknowledged} objects acknowledged", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
