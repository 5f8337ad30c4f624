"""What the cloud changes on the worklist is in the trail, and is done whether or not that can be written."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from gateway.audit.recorder import RELAY, AuditRecorder
from gateway.messages import CancelItem
from pacs import Archive
from relay.cloud import commands
from relay.cloud.audit import WorklistAudit
from tests.relay.cloud.test_commands import ACCESSION, about, context_of, create
from tests.tools.audit_trail import detail, messages, told
from tests.tools.waiting import wait_until
from worklist import Worklist

PERSON = "9990000017"


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    with closing(Worklist.open(tmp_path / "worklist.db")) as opened:
        yield opened


def recorder(folder: Path, **options: int) -> AuditRecorder:
    return AuditRecorder(folder / "audit", RELAY, site="van-1", **options)


async def tell(worklist: Worklist, folder: Path, told: AuditRecorder, *actions: dict[str, object]) -> list[str]:
    """What became of actions that the cloud sent."""
    with closing(Archive.open(folder / "pacs.db", folder / "instances")) as archive:
        context = replace(context_of(worklist, archive, folder), notify=WorklistAudit(told, worklist))
        answers = [json.loads(await commands.answer(json.dumps(each), context)) for each in actions]
    return [str(each["status"]) for each in answers]


async def test_an_item_that_is_made_and_changed_is_a_procedure_record(worklist: Worklist, tmp_path: Path) -> None:
    change = {**about("worklist.update_status", status="in_progress"), "action_id": "b"}
    unknown = {**about("worklist.cancel_item"), "action_id": "c"}
    unknown["parameters"] = {"worklist_item": {"accession_number": "NOBODY"}}
    with recorder(tmp_path) as told_to:
        assert await tell(worklist, tmp_path, told_to, create(), change, unknown) == ["created", "updated", "error"]
    study = worklist.item(ACCESSION).study_instance_uid
    found = messages(tmp_path / "audit")
    assert [told(each) for each in found] == [
        ("Procedure Record", kind, "0", ["cloud@"], [study, PERSON]) for kind in "CU"
    ]
    assert [accession(each) for each in found] == [ACCESSION, ACCESSION]


async def test_an_item_is_taken_when_the_trail_cannot_be_written_and_told_when_it_can(
    worklist: Worklist, tmp_path: Path
) -> None:
    (tmp_path / "audit").write_text("in the way")
    with recorder(tmp_path) as told_to:
        assert await tell(worklist, tmp_path, told_to, create()) == ["created"]
        assert worklist.item(ACCESSION).state == "scheduled"
        wait_until(lambda: told_to.trouble != "")
        (tmp_path / "audit").unlink()
    assert [accession(each) for each in messages(tmp_path / "audit")] == [ACCESSION]


async def test_what_cannot_be_kept_until_it_is_written_is_counted(worklist: Worklist, tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("in the way")
    with recorder(tmp_path, most_bytes=0) as told_to:
        assert await tell(worklist, tmp_path, told_to, create()) == ["created"]
        wait_until(lambda: told_to.trouble != "")
        (tmp_path / "audit").unlink()
    gaps = [detail(each, "Alert Description").split() for each in messages(tmp_path / "audit")]
    assert sum(int(count) for count, *_ in gaps) == 3  # the start, the item and the stop


def test_of_an_item_that_has_left_the_worklist_the_number_is_told(worklist: Worklist, tmp_path: Path) -> None:
    with recorder(tmp_path) as told_to:
        WorklistAudit(told_to, worklist)(CancelItem.model_validate({**about("worklist.cancel_item"), "action_id": "c"}))
    [message] = messages(tmp_path / "audit")
    assert (told(message)[:2], accession(message)) == (("Procedure Record", "U"), ACCESSION)


def accession(message: Element) -> str:
    [found] = message.iter("Accession")
    return found.get("Number", "")
