"""`gateway mpps`: the step that is stuck."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import InvalidValue, NoLongerUpdatable
from tests.tools.command_line import facts, said
from tests.worklist.samples import NOW, begun, ended, item
from worklist import Worklist


def test_a_stuck_step_is_listed_and_closed(worklist: Worklist) -> None:
    worklist.schedule(item(), action_id="ACC1", content_hash="h", now=NOW)
    update = ended()
    del update.PerformedProcedureStepStatus
    worklist.begin("1.1", begun(), now=NOW)
    worklist.change("1.1", update, now=NOW)
    step = {
        "mpps_instance_uid": "1.1",
        "accession_numbers": ["ACC1"],
        "status": "IN PROGRESS",
        "begun_at": "2026-11-22T09:00:00.123Z",
        "instances": 1,
        "closed_by": "",
        "closed_because": "",
    }
    assert facts("mpps", "list") == [step]
    before = datetime.now(UTC)
    closed = facts("mpps", "close", "1.1", "--by", "J. Smith", "--reason", "tube failed")
    assert closed == step | {
        "status": "DISCONTINUED", "begun_at": "2026-11-22T09:35:00", "closed_by": "J. Smith",
        "closed_because": "tube failed",
    }  # fmt: skip
    assert said("mpps", "list") == "No step is in progress.\n"
    assert worklist.item("ACC1").state == "discontinued"
    [event, _] = worklist.outbox.entries("open")
    assert datetime.fromisoformat(event.created_at) >= before - timedelta(milliseconds=1)
    with pytest.raises(NoLongerUpdatable):
        said("mpps", "close", "1.1", "--by", "J. Smith", "--reason", "again")


def test_a_step_is_closed_for_a_reason(worklist: Worklist) -> None:
    assert "The cloud has to be told why." in said("mpps", "close", "1.1", "--by", "x", code=2)


@pytest.mark.parametrize("by", ["", " ", "J.\nSmith", "x" * 129])
def test_a_step_is_closed_by_somebody_with_a_name(worklist: Worklist, by: str) -> None:
    with pytest.raises(InvalidValue, match="Say who decides this"):
        said("mpps", "close", "1.1", "--by", by, "--reason", "tube failed")
