"""What is held back from the cloud, for whom it waits, and that it waits for nothing else."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from gateway.errors import HeldBack, InvalidValue, NotFound
from gateway.messages import Image, Thumbnail
from gateway.outbox import Entry
from pacs import RetentionPolicy, candidates, delete, discard
from relay.delivery.composer import Composer
from relay.delivery.delivery import Delivery, Event
from relay.delivery.thumbnails import thumbnail
from relay.exams.exam import COMPARED
from relay.exams.holding import HOLDS, RULES, HoldRules, objections
from relay.render_pool import Renderer
from tests.fakes import FakeCloud
from tests.relay.exams.judging import FOUR, Exams, opened
from tests.relay.exams.test_exam import Scheduled, picture, value
from tests.relay.served import STUDY
from tests.tools.waiting import until


@pytest.fixture
def exams(tmp_path: Path) -> Iterator[Exams]:
    exams = opened(tmp_path)
    yield exams
    exams.close()


ONE_SIDE = Scheduled(data_set={"00400100": value("SQ", {"00200060": value("CS", "L")})})

IMAGES = {
    "as ordered": (Scheduled(), picture("RCC"), ()),
    "another patient id": (Scheduled(), picture("RCC", x00100020=value("LO", "9990000026")), ("patient_mismatch",)),
    "no patient id": (Scheduled(), picture("RCC", x00100020={"vr": "LO"}), ("patient_mismatch",)),
    "a patient id with other blanks": (Scheduled(), picture("RCC", x00100020=value("LO", "99900 00018")), ()),
    "another birth date": (Scheduled(), picture("RCC", x00100030=value("DA", "19700101")), ("birth_date_mismatch",)),
    "no birth date": (Scheduled(), picture("RCC", x00100030={"vr": "DA"}), ()),
    "another number": (Scheduled(), picture("RCC", x00080050=value("SH", "ACC-9")), ("accession_mismatch",)),
    "no number": (Scheduled(), picture("RCC", x00080050={"vr": "SH"}), ()),
    "a study of the machine's own": (Scheduled(), picture("RCC", x0020000d=value("UI", "1.9")), ()),
    "the side that was not ordered": (ONE_SIDE, picture("RCC"), ("laterality_mismatch",)),
    "the side that was ordered": (ONE_SIDE, picture("LCC"), ()),
    "sides that disagree among themselves": (Scheduled(), picture("RCC", x00200060=value("CS", "L")), ()),
    "a code and a position that disagree": (Scheduled(), picture("RCC", x00185101=value("CS", "MLO")), ()),
    "two at once": (
        Scheduled(),
        picture("RCC", x00100020=value("LO", "9990000026"), x00100030=value("DA", "19700101")),
        ("patient_mismatch", "birth_date_mismatch"),
    ),
}


@pytest.mark.parametrize(("item", "data_set", "codes"), IMAGES.values(), ids=IMAGES)
def test_who_disagrees_is_held(item: Scheduled, data_set: dict[str, object], codes: tuple[str, ...]) -> None:
    assert objections([item], data_set, HOLDS) == codes
    assert objections([item], data_set, frozenset()) == ()


def test_what_agrees_with_one_of_several_items_is_that_ones() -> None:
    others = Scheduled(accession_number="ACC-2", participant_id="9990000026")
    assert objections([others, Scheduled()], picture("RCC"), HOLDS) == ()
    assert objections([], picture("RCC"), HOLDS) == ()


def test_every_finding_has_its_rule_and_what_is_compared_is_compared_for_a_reason() -> None:
    assert set(COMPARED) <= set(RULES)
    assert {"repeated_view", "view_missing", "not_received"}.isdisjoint(HOLDS)
    assert all(why for _, why in RULES.values())


# --- on its way -------------------------------------------------------------------------------------------------------


async def preview(_image: Image, _size: int) -> Thumbnail:
    return Thumbnail(data="/9j/", width=1, height=1)


async def no_action(_accession_number: str) -> str | None:
    return None


async def delivered(exams: Exams, holding: HoldRules) -> list[str]:
    """Let everything leave that may; what the cloud had, by type, in order."""
    return [event.message_type for event in await events_left(exams, holding)]


async def events_left(exams: Exams, holding: HoldRules) -> list[Event]:
    """Let everything leave that may; what the cloud had, in order."""

    async def reason(entry: Entry) -> str:
        return holding.reason(entry)

    cloud = FakeCloud()
    compose = Composer("Van 1", preview=preview, action_id_of=no_action, reason_to_hold=reason)
    delivery = Delivery([exams.archive.outbox], cloud, compose=compose, clock=lambda: exams.now, poll_seconds=0.01)
    running = asyncio.create_task(delivery.run())
    await until(lambda: not exams.archive.outbox.counts()["open"])
    delivery.stop()
    await running
    return list(cloud.received)


async def test_an_image_that_disagrees_is_held_the_others_go_on_and_it_leaves_once_after_a_person_said_so(
    exams: Exams,
) -> None:
    exams.schedule()
    wrong = exams.store("RCC", PatientID="9990000026")
    for view in FOUR[1:]:
        exams.store(view)
    exams.judge()
    assert await delivered(exams, exams.holding) == ["study.image_received"] * 3 + ["exam.quality"]
    [held] = exams.archive.outbox.entries("parked")
    assert held.message_id == wrong
    assert held.reason == (
        "Held back: Patient ID of the image and of its worklist item disagree. A person who has compared the two may"
        " let it go: gateway outbox release pacs ID --by NAME."
    )
    with pytest.raises(InvalidValue, match="--by NAME"):
        exams.archive.outbox.release(held.id, now=exams.now)
    exams.archive.outbox.release(held.id, by="J. Smith", now=exams.now)
    exams.judge()
    assert sorted(await delivered(exams, exams.holding)) == ["exam.quality", "study.image_received"]
    assert exams.archive.outbox.entries("parked") == []
    with pytest.raises(NotFound):
        exams.archive.outbox.release(held.id, by="J. Smith", now=exams.now)


async def test_what_is_held_for_the_same_reason_is_shown_together(exams: Exams) -> None:
    exams.schedule()
    for view in FOUR:
        exams.store(view, PatientID="9990000026")
    await delivered(exams, exams.holding)
    assert [alike.count for alike in exams.archive.outbox.overview.parked_alike()] == [4]


async def test_the_exam_says_what_is_held_and_that_it_is_not_any_more(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    exams.judge()
    await delivered(exams, exams.holding)
    [entry] = exams.archive.outbox.entries("parked")
    exams.archive.outbox.release(entry.id, by="J. Smith", now=exams.now)
    exams.judge()
    found = [[finding["code"] for finding in told.parameters["findings"]] for told in exams.told()]  # type: ignore[attr-defined]
    assert found == [["patient_mismatch", "held_back"], ["patient_mismatch"]]


@pytest.mark.parametrize("destinations", [(), ("first", "second")], ids=["no destination", "two that are away"])
def test_what_is_said_to_be_held_can_be_released_while_nothing_leaves(
    exams: Exams, destinations: tuple[str, ...]
) -> None:
    if destinations:
        exams.archive.outbox.serve(destinations, now=exams.now)
    exams.schedule()
    for view in FOUR[:3]:
        exams.store(view, PatientID="9990000026")
    exams.judge()
    parked = exams.archive.outbox.entries("parked")
    assert {entry.message_id for entry in parked if entry.wants_name} == set(exams.made)
    assert len(parked) == 3 * max(1, len(destinations))
    for entry_id in {entry.id for entry in parked}:
        exams.archive.outbox.release(entry_id, by="J. Smith", now=exams.now)
    exams.judge()
    found = [[finding["code"] for finding in told.parameters["findings"]] for told in exams.told()]  # type: ignore[attr-defined]
    assert found[:1] + found[-1:] == [["patient_mismatch", "held_back"], ["patient_mismatch"]]
    assert exams.archive.outbox.entries("parked") == []


def test_an_item_that_comes_after_its_image_holds_it_while_nothing_leaves(exams: Exams) -> None:
    uid = exams.store("RCC", PatientID="9990000026")
    exams.judge()
    assert exams.archive.outbox.entries("parked") == []
    exams.schedule()
    exams.judge()
    assert [entry.message_id for entry in exams.archive.outbox.entries("parked")] == [uid]


async def test_a_site_that_holds_nothing_tells_everything(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    nothing = HoldRules(exams.archive, exams.worklist, holds=frozenset())
    assert await delivered(exams, nothing) == ["study.image_received"]


async def test_an_item_that_comes_after_its_image_is_asked_but_not_about_what_has_left(exams: Exams) -> None:
    first = exams.store("RCC", PatientID="9990000026")
    assert await delivered(exams, exams.holding) == ["study.image_received"]
    second = exams.store("LCC", PatientID="9990000026")
    exams.schedule()
    assert await delivered(exams, exams.holding) == []
    assert (exams.holding.reason_for(first), exams.holding.reason_for(second)[:10]) == ("", "Held back:")


async def test_what_one_destination_has_had_is_not_held_from_another(exams: Exams) -> None:
    exams.archive.outbox.serve(("first", "second"), now=exams.now)
    exams.store("RCC", PatientID="9990000026")
    [entry] = exams.archive.outbox.due(exams.now, limit=10, destination="first")
    exams.archive.outbox.delivered(entry, now=exams.now)
    exams.schedule()
    [entry] = exams.archive.outbox.due(exams.now, limit=10, destination="second")
    assert exams.holding.reason(entry) == ""


async def test_what_arrives_although_it_was_held_while_under_way_is_not_held_anywhere(exams: Exams) -> None:
    exams.archive.outbox.serve(("first", "second"), now=exams.now)
    exams.store("RCC", PatientID="9990000026")
    [under_way] = exams.archive.outbox.due(exams.now, limit=10, destination="first")
    exams.schedule()
    exams.judge()
    assert len(exams.archive.outbox.entries("parked")) == 2
    exams.archive.outbox.delivered(under_way, now=exams.now)
    exams.judge()
    found = [[finding["code"] for finding in told.parameters["findings"]] for told in exams.told()]  # type: ignore[attr-defined]
    assert found[::2] == [["patient_mismatch", "held_back"], ["patient_mismatch"]], "of one of the two destinations"
    assert exams.archive.outbox.entries("parked") == []
    due = exams.archive.outbox.due(exams.now, limit=10, destination="second")
    assert [(entry.message_type, entry.wants_name) for entry in due] == [("study.image_received", False)]
    assert exams.holding.reason(due[0]) == ""


async def test_a_correction_of_the_item_does_not_let_go_what_is_held(exams: Exams) -> None:
    exams.schedule()
    uid = exams.store("RCC", AccessionNumber="ACC-2")
    await delivered(exams, exams.holding)
    exams.schedule("ACC-2")
    assert await delivered(exams, exams.holding) == []
    assert exams.holding.reason_for(uid).startswith("Held back: Accession Number")


async def test_a_hold_that_comes_after_its_release_does_nothing(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    [entry] = exams.archive.outbox.due(exams.now, limit=10)
    assert exams.archive.outbox.held.hold(entry.id, reason="Held back.", now=exams.now)
    exams.archive.outbox.release(entry.id, by="J. Smith", now=exams.now)
    assert not exams.archive.outbox.held.hold(entry.id, reason="Held back.", now=exams.now)
    assert [each.released_by for each in exams.archive.outbox.due(exams.now, limit=10)] == ["J. Smith"]


async def test_what_was_parked_for_another_reason_and_released_is_held_all_the_same(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    [entry] = exams.archive.outbox.due(exams.now, limit=10)
    exams.archive.outbox.park(entry, reason="The cloud cannot take it.", now=exams.now)
    exams.archive.outbox.release(entry.id, now=exams.now)
    assert await delivered(exams, exams.holding) == []
    assert exams.archive.outbox.entries("parked")[0].reason.startswith("Held back:")


async def test_nothing_is_derived_from_an_image_that_is_held(exams: Exams) -> None:
    async def never(_image: Image, _size: int) -> Thumbnail:
        raise AssertionError("A thumbnail was made.")

    async def reason(entry: Entry) -> str:
        return exams.holding.reason(entry)

    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    [entry] = exams.archive.outbox.due(exams.now, limit=10)
    compose = Composer("Van 1", preview=never, action_id_of=no_action, reason_to_hold=reason)
    with pytest.raises(HeldBack):
        await compose(entry)


# --- other content under the same UID ---------------------------------------------------------------------------------


def said_to_be_held(exams: Exams, uid: str) -> tuple[bool, bool, list[list[str]]]:
    """Whether its pixels are held, whether the board is told so, and the findings of its exam."""
    seen = exams.evidence.exams_of(study_instance_uid="", accession_number="ACC-1")
    codes = [[finding.code for finding in exam.findings] for exam in seen]
    return exams.holding.reason_for(uid) != "", exams.evidence.hold_states([uid]) == {uid: "held"}, codes


async def test_what_let_other_content_of_the_uid_go_does_not_let_go_what_took_its_place(exams: Exams) -> None:
    exams.schedule()
    uid = exams.store("RCC")
    assert await delivered(exams, exams.holding) == ["study.image_received"]
    exams.store_in_its_place("RCC", uid, PatientID="9990000026")
    assert "study.image_received" not in await delivered(exams, exams.holding)
    assert said_to_be_held(exams, uid) == (True, True, [["patient_mismatch", "held_back"]])
    [held] = exams.archive.outbox.entries("parked")
    exams.archive.outbox.release(held.id, by="J. Smith", now=exams.now)
    assert said_to_be_held(exams, uid) == (False, False, [["patient_mismatch"]])


async def test_an_event_of_content_that_was_replaced_is_compared_by_what_it_says_itself(exams: Exams) -> None:
    exams.schedule()
    good = exams.store("RCC")
    exams.store_in_its_place("RCC", good, PatientID="9990000026")
    bad = exams.store("LCC", PatientID="9990000026", AccessionNumber="ACC-2")
    exams.store_in_its_place("LCC", bad)
    exams.schedule("ACC-2")
    left = await events_left(exams, exams.holding)
    images = [event for event in left if event.message_type == "study.image_received"]
    assert [(event.message_id == good, _participant(event.parameters)) for event in images] == [
        (True, "9990000018"),
        (False, "9990000018"),
    ]
    held = exams.archive.outbox.entries("parked")
    assert {_participant(entry.parameters) for entry in held} == {"9990000026"}
    assert bad in {entry.message_id for entry in held}


def _participant(parameters: dict[str, object]) -> object:
    participant = parameters["participant"]
    assert isinstance(participant, dict)
    return participant["nhs_number"]


async def test_an_event_of_content_that_was_replaced_has_no_thumbnail_of_what_took_its_place(exams: Exams) -> None:
    uid = exams.store("RCC")
    first = exams.archive.outbox.find(uid)
    assert first is not None
    exams.store_in_its_place("RCC", uid, PatientID="9990000026")
    async with Renderer() as renderer:
        compose = Composer("Van 1", preview=partial(thumbnail, exams.archive, renderer), action_id_of=no_action)
        event = await compose(first)
    image = event.parameters["image"]
    assert isinstance(image, dict)
    assert (image["thumbnail"], "another took its place" in image["thumbnail_reason"]) == (None, True)


async def test_an_image_that_left_the_archive_and_came_again_is_held_as_if_it_had_never_been_here(
    exams: Exams,
) -> None:
    uid = exams.store("RCC", PatientID="9990000026")
    assert await delivered(exams, exams.holding) == ["study.image_received"]
    delete(exams.archive, RetentionPolicy(days=0), STUDY, sop_instance_uid=uid, now=exams.now)
    exams.schedule()
    exams.store("RCC", SOPInstanceUID=uid, PatientID="9990000026")
    assert await delivered(exams, exams.holding) == []
    assert said_to_be_held(exams, uid) == (True, True, [["patient_mismatch", "held_back"]])


async def test_what_a_person_discards_never_leaves_and_the_cloud_is_told_who_decided_and_why(exams: Exams) -> None:
    exams.schedule()
    wrong = exams.store("RCC", PatientID="9990000026")
    exams.judge()
    [held] = exams.archive.outbox.entries("parked")
    discard(exams.archive, held.id, by=" J. Smith ", because="Another participant's.", now=exams.now)
    assert exams.holding.hold_states([wrong]) == {wrong: "discarded"}
    assert exams.holding.reason_for(wrong) == "Discarded by J. Smith: Another participant's."
    [rejected] = [each for each in exams.archive.outbox.entries("open") if each.message_type == "image.rejected"]
    assert (rejected.message_id, rejected.subject, rejected.parameters) == (
        f"{wrong}/rejected",
        STUDY,
        {
            "accession_number": "ACC-1",
            "study_instance_uid": STUDY,
            "sop_instance_uid": wrong,
            "reason": "Held back on site, and not passed on by decision of J. Smith: Another participant's.",
        },
    )
    exams.judge()  # nothing holds it a second time
    assert "study.image_received" not in await delivered(exams, exams.holding)
    assert exams.archive.outbox.entries("parked") == []
    assert exams.archive.outbox.overview.counts_of(STUDY).open == 0
    assert exams.archive.outbox.counts()["delivered"] == len(exams.archive.outbox.entries("delivered"))


async def test_retention_lets_go_what_was_discarded_and_nothing_that_is_held(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    exams.judge()
    await delivered(exams, exams.holding)
    later, policy = exams.now + timedelta(days=1), RetentionPolicy(days=0, needs_commitment=False)
    assert [bool(each.kept_because) for each in candidates(exams.archive, policy, now=later)] == [True]
    [held] = exams.archive.outbox.entries("parked")
    discard(exams.archive, held.id, by="J. Smith", because="Another participant's.", now=exams.now)
    assert [bool(each.kept_because) for each in candidates(exams.archive, policy, now=later)] == [True]  # untold still
    exams.judge()
    await delivered(exams, exams.holding)
    assert [each.kept_because for each in candidates(exams.archive, policy, now=later)] == [()]


@pytest.mark.parametrize(("by", "because"), [("", "x"), (" ", "x"), ("J. Smith", ""), ("J. Smith", "a\nb")])
def test_discarding_wants_a_name_and_a_reason(exams: Exams, by: str, because: str) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    exams.judge()
    [held] = exams.archive.outbox.entries("parked")
    with pytest.raises(InvalidValue):
        discard(exams.archive, held.id, by=by, because=because, now=exams.now)
    assert exams.archive.outbox.entries("parked") == [held]


def test_only_what_is_held_back_is_discarded_and_only_once(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC", PatientID="9990000026")
    exams.store("LCC")
    exams.judge()
    [held] = exams.archive.outbox.entries("parked")
    fine = next(each for each in exams.archive.outbox.entries("open") if each.message_type == "study.image_received")
    with pytest.raises(NotFound, match="held back"):
        discard(exams.archive, fine.id, by="J. Smith", because="x", now=exams.now)
    discard(exams.archive, held.id, by="J. Smith", because="x", now=exams.now)
    with pytest.raises(NotFound, match="held back"):
        discard(exams.archive, held.id, by="J. Smith", because="x", now=exams.now)
    with pytest.raises(NotFound):
        exams.archive.outbox.release(held.id, by="J. Smith", now=exams.now)
