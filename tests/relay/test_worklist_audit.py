"""What the cloud changes on the worklist is in the trail, and is done whether or not that can be written."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.audit import Trail
from pacs import Archive
from relay import commands
from relay.audit import Recorder
from relay.worklist_audit import WorklistAudit
from tests.relay.test_commands import ACCESSION, about, context_of, create
from tests.trail_reader import messages, told
from worklist import Worklist

PERSON = "9990000017"


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    with closing(Worklist.open(tmp_path / "worklist.db")) as opened:
        yield opened


async def tell(worklist: Worklist, folder: Path, *actions: dict[str, object]) -> list[str]:
    """What became of actions that the cloud sent."""
    with closing(Archive.open(folder / "pacs.db", folder / "instances")) as archive:
        audit = WorklistAudit(Recorder(Trail(folder / "audit"), site="van-1"), worklist)
        context = replace(context_of(worklist, archive, folder), told=audit)
        answers = [json.loads(await commands.answer(json.dumps(each), context)) for each in actions]
        await audit.close()
        archive.files.close()
    return [str(each["status"]) for each in answers]


async def test_an_item_that_is_made_and_changed_is_a_procedure_record(worklist: Worklist, tmp_path: Path) -> None:
    change = {**about("worklist.update_status", status="in_progress"), "action_id": "b"}
    unknown = {**about("worklist.cancel_item"), "action_id": "c"}
    unknown["parameters"] = {"worklist_item": {"accession_number": "NOBODY"}}
    assert await tell(worklist, tmp_path, create(), change, unknown) == ["created", "updated", "error"]
    study = worklist.item(ACCESSION).study_instance_uid
    found = [told(each) for each in messages(tmp_path / "audit")]
    assert sorted(found) == [("Procedure Record", kind, "0", ["cloud@"], [study, PERSON]) for kind in "CU"]


async def test_an_item_is_taken_when_the_trail_cannot_be_written(worklist: Worklist, tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("in the way")
    assert await tell(worklist, tmp_path, create()) == ["created"]
    assert worklist.item(ACCESSION).state == "scheduled"
