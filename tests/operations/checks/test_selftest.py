"""When a site may test itself; the test itself is a journey (`tests/journeys/test_selftest.py`)."""

from datetime import UTC, datetime, timedelta

import pytest

from operations.checks.selftest import clinic, marked_item
from worklist import Item

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=3)


def due(time: str, state: str = "scheduled", accession_number: str = "A-1") -> Item:
    from dataclasses import replace

    from tests.relay.served import item

    scheduled = item(accession_number)
    step = scheduled.data_set["00400100"]["Value"][0]  # type: ignore[index,call-overload]
    step["00400002"]["Value"], step["00400003"]["Value"] = ["20261122"], [time]
    return replace(scheduled, state=state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("items", "received_last", "because"),
    [
        ([], LONG_AGO, ""),
        ([due("093000")], LONG_AGO, "item A-1 is due at 09:30"),
        ([due("103000")], LONG_AGO, "item A-1 is due at 10:30"),
        ([due("1031"), due("0829"), due("093000", "completed"), due("093000", "cancelled")], LONG_AGO, ""),
        ([due("1500", "in_progress")], LONG_AGO, "item A-1 is in progress"),
        ([due("093000", accession_number="SELFTEST1")], LONG_AGO, ""),
        ([], NOW - timedelta(minutes=59), "an image came in at 08:31"),
        ([], NOW + timedelta(minutes=1), ""),  # a clock that was wrong does not forbid tests
    ],
)
def test_a_clinic_is_under_way_while_somebody_is_expected_or_imaged(
    items: list[Item], received_last: datetime, because: str
) -> None:
    assert clinic(items, received_last, now=NOW) == because


def test_the_item_is_marked_and_for_a_station_of_our_own() -> None:
    item = marked_item(station="GATEWAY_CHECK", now=NOW)
    assert (item.accession_number[:8], len(item.accession_number), item.participant_id) == ("SELFTEST", 16, "SELFTEST")
    assert "GATEWAY_CHECK" in str(item.data_set["00400100"])
    assert item.accession_number != marked_item(station="GATEWAY_CHECK", now=NOW).accession_number
