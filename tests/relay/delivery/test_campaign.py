"""Random faults and kills: everything arrives, is seen once, and in order per subject. `tests/benchmarks/faults` does
the same with thousands of events."""

import asyncio
from pathlib import Path

from tests.relay.delivery.campaign import campaign


def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens_to_lines_services_and_the_relay(
    tmp_path: Path,
) -> None:
    tally = asyncio.run(campaign(tmp_path, events=300, seed=1))
    assert (tally.lost, tally.twice, tally.out_of_order) == (0, 0, 0), tally.table()
    assert tally.kills > 0
    assert tally.faults > 0
