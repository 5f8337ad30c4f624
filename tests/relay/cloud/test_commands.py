"""Every message of the cloud gets the answer it expects; what is acknowledged is in a real worklist."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import structlog

from gateway.messages import Check, HealthReport
from gateway.refusals import Refused
from pacs import Archive
from relay.cloud import commands
from relay.cloud.commands import Context
from relay.cloud.deferred import DeferredActions
from relay.cloud.full_images import FullImages, UploadTargets
from relay.cloud.site_tasks import SiteTasks
from relay.cloud.throttle import Throttle
from relay.protocol import Json
from tests.relay.test_protocol import ACTION_ID, create, without
from worklist import Worklist

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
ACCESSION = "ACC202611220001"
REPORT = HealthReport(
    healthy=True, version="0.1.0", listener_uptime_seconds=12.5, checks={"disk": Check(ok=True, detail="41% used.")}
)


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    opened = Worklist.open(tmp_path / "worklist.db")
    yield opened
    opened.close()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive.open(tmp_path / "pacs.db", tmp_path / "instances")
    yield opened
    opened.close()


@pytest.fixture
def context(worklist: Worklist, archive: Archive, tmp_path: Path) -> Context:
    return context_of(worklist, archive, tmp_path)


def context_of(worklist: Worklist, archive: Archive, folder: Path, cloud_zone: ZoneInfo | None = None) -> Context:
    requests, upload_targets = DeferredActions(archive.outbox), UploadTargets((".blob.core.windows.net",))
    throttle = Throttle(0, received_last=archive.received_last)
    images = FullImages(
        archive, requests, upload_targets, throttle=throttle, scratch=folder / "uploads", clock=lambda: NOW
    )
    site_tasks = SiteTasks(
        requests, upload_targets, throttle=throttle, folder=folder / "diagnostics", clock=lambda: NOW
    )
    return Context(
        worklist, requests, images, site_tasks, health=lambda: REPORT, clock=lambda: NOW, cloud_zone=cloud_zone
    )


async def answer(message: Json, context: Context) -> Json:
    content: Json = json.loads(await commands.answer(json.dumps(message), context))
    return content


def about(action_type: str, **item: object) -> Json:
    return {"action_type": action_type, "parameters": {"worklist_item": {"accession_number": ACCESSION, **item}}}


async def test_a_created_item_is_on_the_worklist_when_it_is_acknowledged(context: Context, worklist: Worklist) -> None:
    message = {**create(), "source_reference": {"appointment_id": "4711"}}
    assert await answer(message, context) == {"status": "created", "action_id": ACTION_ID}
    item = worklist.item(ACCESSION)
    assert (item.participant_id, item.date, item.time, item.state) == ("9990000017", "20261122", "101500", "scheduled")
    assert (item.action_id, item.appointment_id) == (ACTION_ID, "4711")


async def test_an_exact_repeat_is_created_again_and_changes_nothing(context: Context, worklist: Worklist) -> None:
    await answer(create(), context)
    before = worklist.items()
    assert await answer({**create(), "timestamp": "later"}, context) == {"status": "created", "action_id": ACTION_ID}
    assert worklist.items() == before


async def test_the_same_action_id_with_other_content_is_a_conflict(context: Context, worklist: Worklist) -> None:
    await answer(create(), context)
    before = worklist.items()
    refused = await answer(create(scheduled__time="111500"), context)
    assert (refused["status"], refused["code"], refused["action_id"]) == ("error", "conflict", ACTION_ID)
    assert worklist.items() == before


async def test_a_test_item_is_created_like_any_other(context: Context, worklist: Worklist) -> None:
    message = {**create(), "action_type": "worklist.create_test_item"}
    assert await answer(message, context) == {"status": "created", "action_id": ACTION_ID}
    assert worklist.item(ACCESSION).state == "scheduled"


async def test_times_of_a_cloud_that_speaks_another_zone_become_wall_time(
    worklist: Worklist, archive: Archive, tmp_path: Path
) -> None:
    context = context_of(worklist, archive, tmp_path, ZoneInfo("Pacific/Auckland"))
    await answer(create(), context)
    there = datetime(2026, 11, 22, 10, 15, tzinfo=ZoneInfo("Pacific/Auckland"))
    here = there.astimezone()
    assert (worklist.item(ACCESSION).date, worklist.item(ACCESSION).time) == (f"{here:%Y%m%d}", f"{here:%H%M%S}")


@pytest.mark.parametrize(
    ("message", "state"),
    [
        (about("worklist.update_status", status="in_progress"), "in_progress"),
        (about("worklist.update_status", status="COMPLETED"), "completed"),
        (about("worklist.cancel_item"), "cancelled"),
    ],
)
async def test_an_item_moves_as_the_cloud_says(context: Context, worklist: Worklist, message: Json, state: str) -> None:
    await answer(create(), context)
    expected = {"accession_number": ACCESSION, "status": "updated"}
    assert await answer(message, context) == expected
    assert await answer(message, context) == expected, "a repeat gets the same answer"
    assert worklist.item(ACCESSION).state == state


async def test_an_item_gets_another_time(context: Context, worklist: Worklist) -> None:
    await answer(create(), context)
    moved = about("worklist.reschedule_item", scheduled={"date": "20261123", "time": "0930"})
    assert await answer(moved, context) == {"accession_number": ACCESSION, "status": "updated"}
    assert (worklist.item(ACCESSION).date, worklist.item(ACCESSION).time) == ("20261123", "0930")


async def test_the_content_of_an_item_is_replaced_and_a_repeat_gets_the_same_answer(
    context: Context, worklist: Worklist
) -> None:
    await answer(create(), context)
    message = {**create(participant__name="OTHER^ANNA"), "action_type": "worklist.update_item", "action_id": "u-1"}
    expected = {"accession_number": ACCESSION, "status": "updated"}
    assert [await answer(message, context) for _ in range(2)] == [expected, expected]
    assert (worklist.item(ACCESSION).patient_name, worklist.item(ACCESSION).revision) == ("OTHER^ANNA", 2)


async def test_an_update_of_an_item_that_has_begun_is_a_conflict(context: Context) -> None:
    await answer(create(), context)
    await answer(about("worklist.update_status", status="in_progress"), context)
    refused = await answer({**create(), "action_type": "worklist.update_item", "action_id": "u-1"}, context)
    assert (refused["code"], refused["message"]) == (
        "conflict", f"Item {ACCESSION} is in_progress; only a scheduled item can be updated.",
    )  # fmt: skip


async def test_a_repeat_of_what_was_done_does_not_undo_what_was_done_since(
    context: Context, worklist: Worklist
) -> None:
    await answer(create(), context)
    first = {**about("worklist.reschedule_item", scheduled={"date": "20261123", "time": "0930"}), "action_id": "r-1"}
    second = {**about("worklist.reschedule_item", scheduled={"date": "20261124", "time": "0930"}), "action_id": "r-2"}
    for message in (first, second, first):
        assert await answer(message, context) == {"accession_number": ACCESSION, "status": "updated"}
    assert worklist.item(ACCESSION).date == "20261124"


async def test_an_id_used_for_two_requests_is_a_conflict(context: Context, worklist: Worklist) -> None:
    await answer(create(), context)
    refused = await answer({**about("worklist.cancel_item"), "action_id": ACTION_ID}, context)
    assert (refused["status"], refused["code"], worklist.item(ACCESSION).state) == ("error", "conflict", "scheduled")


async def test_a_request_that_was_overtaken_is_a_conflict(context: Context, worklist: Worklist) -> None:
    await answer({**create(), "timestamp": "2026-11-22T06:00:00Z"}, context)
    cancel = {**about("worklist.cancel_item"), "timestamp": "2026-11-22T08:00:00+01:00"}
    late = {**about("worklist.update_status", status="scheduled"), "timestamp": "2026-11-22T06:30:00Z"}
    assert (await answer(cancel, context))["status"] == "updated"
    assert (await answer(late, context))["code"] == "conflict"
    assert worklist.item(ACCESSION).state == "cancelled"


async def test_what_is_refused_is_noted_for_people_on_site(context: Context) -> None:
    noted: list[Refused] = []
    await answer(create(), replace(context, note=noted.append))
    await answer({"action_type": "image.paint", "action_id": "i1"}, replace(context, note=noted.append))
    assert noted == [Refused("cloud command", "cloud_unsupported", "Unsupported action: image.paint", about="i1")]


async def test_an_echo_gives_the_whole_message_back(context: Context) -> None:
    message: Json = {"action_type": "echo", "action_id": 7, "more": [{"a": " b "}, None]}
    assert await answer(message, context) == {"status": "echo", "payload": message}


async def test_health_is_the_report(context: Context) -> None:
    assert await answer({"action_type": "health", "action_id": "h1"}, context) == {
        "status": "ok",
        "action_id": "h1",
        "health": {
            "healthy": True,
            "version": "0.1.0",
            "listener_uptime_seconds": 12.5,
            "checks": {"disk": {"ok": True, "detail": "41% used.", "proven_at": None}},
        },
    }


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (
            {"action_type": "image.paint", "action_id": "i1"},
            {"code": "unsupported", "message": "Unsupported action: image.paint", "action_id": "i1"},
        ),
        (
            {},
            {"code": "unsupported", "message": "Unsupported action: no-op", "action_id": None},
        ),
        (
            create(accession_number="A" * 17),
            {
                "code": "invalid",
                "message": "parameters.worklist_item.accession_number must have at most 16 characters.",
                "action_id": ACTION_ID,
            },
        ),
        (
            without(create(), "parameters"),
            {"code": "missing_attribute", "message": "parameters is missing.", "action_id": ACTION_ID},
        ),
        (
            about("worklist.cancel_item"),
            {
                "code": "not_found",
                "message": f"No worklist item has the accession number {ACCESSION}.",
                "action_id": None,
            },
        ),
    ],
)
async def test_a_refusal_is_structured_and_nothing_happens(
    context: Context, worklist: Worklist, message: Json, refused: Json
) -> None:
    assert await answer(message, context) == {"status": "error", **refused}
    assert worklist.items() == []


async def test_what_is_not_json_is_answered_too(context: Context) -> None:
    assert json.loads(await commands.answer("{", context)) == {
        "status": "error",
        "code": "invalid",
        "message": "The message is not JSON.",
        "action_id": None,
    }


async def test_a_fault_of_ours_is_admitted_without_details(context: Context) -> None:
    def broken() -> HealthReport:
        raise KeyError("EXAMPLE^ANNA")

    context = replace(context, health=broken)
    assert await answer({"action_type": "health", "action_id": "h1"}, context) == {
        "status": "error",
        "code": "internal",
        "message": "The gateway failed to do this; its log says why. The same action may be sent again.",
        "action_id": "h1",
    }


async def test_the_log_knows_the_action_and_not_the_participant(context: Context) -> None:
    with structlog.testing.capture_logs() as lines:
        await answer(create(), context)
        await answer(create(participant__birth_date="19.4.1968"), context)
    assert [(line["event"], line["action_id"]) for line in lines] == [
        ("item scheduled", ACTION_ID),
        ("action refused", ACTION_ID),
    ]
    assert not any(value in str(lines) for value in ("EXAMPLE", "9990000017", "1968"))
