"""Kill the archive again and again while machines send to it, and pull its plug: `tests/benchmarks/kill --kills 5000`.

Prints how often it was killed, what the kills cut off, how many objects were acknowledged, and how many of those were
lost or wrong; then the same for power cuts of a recorded run, which need strace. Ends with 1 if anything was wrong.
5000 kills take about ten minutes, 1000 cuts two.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.durability import calls
from tests.durability.cutting import power_cuts, record
from tests.durability.killing import Tally, campaign
from tests.durability.volume import Names
from tests.durability.zygote import Zygote


def main() -> int:
    """Run one campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5000)
    parser.add_argument(
        "--cuts", type=int, default=1000, help="power cuts under each rule of tests/durability/volume.py"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed kills after the same times")
    parser.add_argument("--folder", type=Path, help="on which volume; default: the one of temporary files")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="kill-", dir=arguments.folder))
    found = [*_killed(folder, arguments.kills, arguments.seed), *_unplugged(folder, arguments.cuts, arguments.seed)]
    for fault in found:
        print(fault)
    if found:
        print(f"What was found wrong is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _killed(folder: Path, kills: int, seed: int) -> list[str]:
    with Zygote() as zygote:
        tally = campaign(zygote, folder, kills=kills, seed=seed, progress=_show)
    print("\n" + tally.table())
    return tally.faults


def _unplugged(folder: Path, cuts: int, seed: int) -> list[str]:
    if reason := calls.missing():
        print(f"no power cuts: {reason}")
        return []
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found, run = list[str](), record(folder)
    for names in Names:
        faults = list(power_cuts(run, names, cuts=cuts, seed=seed))
        print(f"power cuts, {names.value + ' names':<36}{cuts:>8}\nlost, partial or otherwise wrong{len(faults):>24}")
        found += faults
    return found


def _show(tally: Tally) -> None:
    print(f"\r{tally.kills} kills, {tally.acknowledged} objects acknowledged", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
