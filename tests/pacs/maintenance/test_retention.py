"""What may go and what never goes: the rules as a table, and the deed on real files and databases."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import Conflict, NotFound
from gateway.outbox import NewEntry
from gateway.sqlite import utc_text
from pacs import Archive
from pacs.archive.maintenance_rows import MaintenanceRows, StudyFacts
from pacs.maintenance.fsck import Fsck
from pacs.maintenance.quarantine import carry_out
from pacs.maintenance.retention import (
    RetentionOutcome,
    RetentionPolicy,
    candidates,
    delete,
    judge,
    prune,
    remove_ordered,
)
from tests.pacs.archive.test_archive import NOW, folder, image, send
from tests.tools.archive_files import files_of

LATER = NOW + timedelta(days=31)
MONTH = RetentionPolicy(days=30)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        yield archive


def study(archive: Archive, number: int, *, images: int = 2) -> None:
    """A study 2.25.<number>000 with the images 2.25.<number>01, 02 and so on."""
    for each in range(1, images + 1):
        uid = f"2.25.{number}0{each}"
        series = f"2.25.{number}00{each % 2 + 1}"
        send(archive, image(each, SOPInstanceUID=uid, StudyInstanceUID=f"2.25.{number}000", SeriesInstanceUID=series))


def deliver(archive: Archive, *uids: str) -> None:
    """The cloud confirms events, of the images with these UIDs or of all."""
    for entry in archive.outbox.entries("open"):
        if not uids or entry.message_id in uids:
            archive.outbox.delivered(entry, now=NOW)


def pruned(archive: Archive, policy: RetentionPolicy = MONTH, *, now: datetime = LATER) -> list[str]:
    """What went, with its files."""
    gone = [each.study.study_instance_uid for each in prune(archive, policy, now=now) if not each.kept_because]
    remove_ordered(archive, files_of(archive))
    return gone


def reasons(archive: Archive, policy: RetentionPolicy = MONTH) -> list[tuple[str, ...]]:
    return [outcome.kept_because for outcome in candidates(archive, policy, now=LATER)]


def sound(archive: Archive) -> bool:
    return list(Fsck(archive, files_of(archive), at_rest=True).findings(hashes=True, now=NOW)) == []


# ---- the rules -------------------------------------------------------------------------------------------------------

WELL = StudyFacts(
    1,
    "2.25.1",
    "A1",
    "2026-11-22T08:00:00.000Z",
    4,
    1000,
    confirmed=4,
    committed=4,
    damaged=0,
    pending=0,
    unforwarded=0,
)


@pytest.mark.parametrize(
    ("study", "policy", "kept_because"),
    [
        (WELL, MONTH, ()),
        (WELL, RetentionPolicy(days=32), ("it is too young",)),
        (WELL, RetentionPolicy(days=31), ("it is too young",)),  # to the second
        (replace(WELL, confirmed=3), MONTH, ("the cloud has not confirmed all of it",)),
        (replace(WELL, pending=1), MONTH, ("the cloud is still owed events of it",)),
        (replace(WELL, committed=3), MONTH, ()),
        (
            replace(WELL, committed=3),
            RetentionPolicy(days=30, needs_commitment=True),
            ("its safekeeping was not promised to the modality",),
        ),
        (WELL, RetentionPolicy(days=30, needs_commitment=True), ()),
        (replace(WELL, damaged=1), MONTH, ("a file of it is damaged, which somebody has to look at",)),
        (
            replace(WELL, confirmed=0, pending=4),
            MONTH,
            ("the cloud has not confirmed all of it", "the cloud is still owed events of it"),
        ),
    ],
)
def test_a_study_goes_when_no_rule_holds_it(
    study: StudyFacts, policy: RetentionPolicy, kept_because: tuple[str, ...]
) -> None:
    assert judge(study, policy, now=LATER) == RetentionOutcome(study, kept_because)


COUNTS = st.integers(0, 3)


@given(
    st.builds(StudyFacts, COUNTS, st.just("2.25.1"), st.just("A1"), st.datetimes().map(utc_text),
              COUNTS, COUNTS, confirmed=COUNTS, committed=COUNTS, damaged=COUNTS, pending=COUNTS),
    st.builds(RetentionPolicy, st.integers(0, 1000), st.booleans()),
    st.datetimes(min_value=datetime(2020, 1, 1), timezones=st.just(UTC)),
)  # fmt: skip
def test_nothing_unconfirmed_ever_passes(study: StudyFacts, policy: RetentionPolicy, now: datetime) -> None:
    if not judge(study, policy, now=now).kept_because:
        assert study.confirmed == study.instances
        assert study.pending == 0
        assert study.last_received_at < utc_text(now - timedelta(days=policy.days))
        assert study.committed == study.instances or not policy.needs_commitment


class Made:
    """One study as hypothesis wants it: how many images, which of them the cloud confirmed, which are committed to."""

    def __init__(self, confirmed: list[bool], committed: list[bool]) -> None:
        self.confirmed = confirmed
        self.committed = committed + [False] * len(confirmed)


@given(
    st.lists(
        st.builds(Made, st.lists(st.booleans(), min_size=1, max_size=3), st.lists(st.booleans(), max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_unconfirmed_is_ever_removed(studies: list[Made], needs_commitment: bool) -> None:
    with (
        TemporaryDirectory() as temporary,
        closing(Archive.open(Path(temporary) / "pacs.db", Path(temporary) / "instances")) as archive,
    ):
        kept = set()
        for number, made in enumerate(studies, start=1):
            study(archive, number, images=len(made.confirmed))
            uids = [f"2.25.{number}0{each}" for each in range(1, len(made.confirmed) + 1)]
            deliver(archive, *(uid for uid, done in zip(uids, made.confirmed, strict=True) if done), "none")
            with archive.write() as conn:
                for uid, done in zip(uids, made.committed, strict=False):
                    if done:
                        conn.execute("UPDATE instance SET committed_at = 'x' WHERE sop_instance_uid = ?", (uid,))
            promised = all(made.committed[: len(uids)]) or not needs_commitment
            if not (all(made.confirmed) and promised):
                kept.update(uids)
        pruned(archive, RetentionPolicy(30, needs_commitment))
        assert {stored.sop_instance_uid for stored in archive.latest(100)} == kept
        assert all(files_of(archive).path(uid).exists() for uid in kept)
        assert len(folder(archive)) == len(kept)


# ---- the deed --------------------------------------------------------------------------------------------------------


def test_a_confirmed_study_goes_whole_with_files_and_counts(archive: Archive) -> None:
    study(archive, 1, images=3)
    study(archive, 2)
    deliver(archive, "2.25.101", "2.25.102", "2.25.103")
    assert pruned(archive) == ["2.25.1000"]
    with pytest.raises(NotFound):
        archive.locate("2.25.1000")
    assert archive.statistics()["instances"] == 2
    assert folder(archive) == ["kept", "kept"]
    assert sound(archive)


def test_the_oldest_goes_first(archive: Archive) -> None:
    for number, day in ((1, 3), (2, 1), (3, 2)):
        study(archive, number, images=1)
        with archive.write() as conn:
            conn.execute(
                "UPDATE study SET last_received_at = ? WHERE study_instance_uid = ?",
                (f"2026-10-0{day}T00:00:00.000Z", f"2.25.{number}000"),
            )
    deliver(archive)
    assert pruned(archive) == ["2.25.2000", "2.25.3000", "2.25.1000"]


def test_one_image_that_is_not_confirmed_keeps_its_whole_study(archive: Archive) -> None:
    study(archive, 1, images=3)
    deliver(archive, "2.25.101", "2.25.103")
    assert reasons(archive) == [("the cloud has not confirmed all of it", "the cloud is still owed events of it")]
    assert pruned(archive) == []
    assert sound(archive)


def test_what_is_parked_was_not_confirmed(archive: Archive) -> None:
    study(archive, 1, images=1)
    [entry] = archive.outbox.entries("open")
    archive.outbox.park(entry, reason="The cloud does not want it.", now=NOW)
    assert pruned(archive) == []


def test_any_other_event_of_the_study_keeps_it_as_well(archive: Archive) -> None:
    study(archive, 1, images=1)
    deliver(archive)
    archive.outbox.enqueue(NewEntry("wanted", "image.upload", "2.25.1000", 4, {}), now=NOW)
    assert reasons(archive) == [("the cloud is still owed events of it",)]
    assert pruned(archive) == []


def test_a_confirmation_of_other_content_does_not_count(archive: Archive) -> None:
    study(archive, 1, images=1)
    deliver(archive)
    with archive.write() as conn:
        conn.execute("UPDATE instance SET sha256 = 'ab'")
    assert reasons(archive) == [("the cloud has not confirmed all of it",)]


def test_a_young_study_is_not_looked_at(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive)
    assert pruned(archive, now=NOW + timedelta(days=29)) == []


def test_a_study_that_gets_an_image_during_the_prune_stays(archive: Archive) -> None:
    study(archive, 1, images=1)
    study(archive, 2, images=1)
    deliver(archive)
    outcomes = prune(archive, MONTH, now=LATER)
    assert not next(outcomes).kept_because
    send(archive, image(7, SOPInstanceUID="2.25.207", StudyInstanceUID="2.25.2000", SeriesInstanceUID="2.25.2001"))
    second = next(outcomes)
    assert second.kept_because == ("the cloud has not confirmed all of it", "the cloud is still owed events of it")
    remove_ordered(archive, files_of(archive))
    assert archive.statistics()["instances"] == 2
    assert sound(archive)


def test_killed_between_rows_and_files_the_next_look_removes_them(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive)
    assert len(list(prune(archive, MONTH, now=LATER))) == 1
    assert folder(archive) == ["kept", "kept"]
    assert sound(archive)  # what shall go is no orphan
    assert remove_ordered(archive, files_of(archive)) == 2
    assert folder(archive) == []
    assert remove_ordered(archive, files_of(archive)) == 0


def test_an_image_that_comes_again_before_its_file_went_stays(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive)
    list(prune(archive, MONTH, now=LATER))
    study(archive, 1)
    assert remove_ordered(archive, files_of(archive)) == 0
    assert archive.statistics()["instances"] == 2
    assert sound(archive)


def test_an_image_that_comes_again_later_is_told_again(archive: Archive) -> None:
    study(archive, 1, images=1)
    deliver(archive)
    assert pruned(archive) == ["2.25.1000"]
    study(archive, 1, images=1)
    [entry] = archive.outbox.entries("open")
    assert entry.message_id == f"2.25.101/{archive.instance('2.25.101').sha256[:16]}"
    assert pruned(archive) == []
    deliver(archive)
    assert pruned(archive) == ["2.25.1000"]


def test_removing_and_receiving_at_once_never_loses_an_image(archive: Archive) -> None:
    """Again and again the same images are pruned and come in again, side by side."""
    stop = threading.Event()

    def keep_removing() -> None:
        while not stop.is_set():
            deliver(archive)
            list(prune(archive, MONTH, now=LATER))
            remove_ordered(archive, files_of(archive))

    removing = threading.Thread(target=keep_removing)
    removing.start()
    for _ in range(15):
        study(archive, 1)
    stop.set()
    removing.join()
    study(archive, 1)
    remove_ordered(archive, files_of(archive))
    assert archive.statistics()["instances"] == 2
    assert sound(archive)


def test_while_a_backup_is_taken_rows_go_and_files_stay(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive)
    with files_of(archive).held_still():
        assert pruned(archive) == ["2.25.1000"]
        carry_out(archive, files_of(archive), now=NOW)
        assert folder(archive) == ["kept", "kept"]
    remove_ordered(archive, files_of(archive))
    assert folder(archive) == []


def test_a_command_beside_the_archive_leaves_the_files_to_it(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive)
    with closing(Archive.attach(archive.database_path, files_of(archive).root)) as beside:
        assert [each.kept_because for each in prune(beside, MONTH, now=LATER)] == [()]
    assert folder(archive) == ["kept", "kept"]
    assert remove_ordered(archive, files_of(archive)) == 2


def test_removal_is_synced_before_the_order_is_forgotten(archive: Archive) -> None:
    study(archive, 1, images=1)
    deliver(archive)
    list(prune(archive, MONTH, now=LATER))
    path = files_of(archive).path("2.25.101")
    path.unlink()  # killed after the file, before the order
    assert remove_ordered(archive, files_of(archive)) == 1
    assert MaintenanceRows(archive).removals() == []
    assert os.path.lexists(path) is False


# ---- what somebody asks for ------------------------------------------------------------------------------------------

NOW_OR_NEVER = RetentionPolicy(days=0)


def test_a_part_of_a_study_goes_with_its_counts_and_files(archive: Archive) -> None:
    study(archive, 1, images=3)
    deliver(archive)
    assert delete(archive, NOW_OR_NEVER, "2.25.1000", "2.25.1001", now=LATER) == 1
    assert delete(archive, NOW_OR_NEVER, "2.25.1000", sop_instance_uid="2.25.101", now=LATER) == 1
    assert remove_ordered(archive, files_of(archive)) == 2
    assert [each.sop_instance_uid for each in archive.locate("2.25.1000")] == ["2.25.103"]
    assert sound(archive)


def test_the_last_part_takes_the_study_with_it(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive)
    assert delete(archive, NOW_OR_NEVER, "2.25.1000", now=LATER) == 2
    assert archive.statistics() == {"studies": 0, "series": 0, "instances": 0, "bytes": 0}
    assert remove_ordered(archive, files_of(archive)) == 2
    assert sound(archive)


@pytest.mark.parametrize("uids", [("2.25.404",), ("2.25.1000", "2.25.404"), ("2.25.1000", "2.25.1001", "2.25.404")])
def test_what_is_not_there_cannot_be_deleted(archive: Archive, uids: tuple[str, ...]) -> None:
    study(archive, 1)
    deliver(archive)
    with pytest.raises(NotFound):
        delete(archive, NOW_OR_NEVER, *uids, now=LATER)


def test_one_unconfirmed_image_keeps_the_whole_study(archive: Archive) -> None:
    study(archive, 1)
    deliver(archive, "2.25.101")
    with pytest.raises(Conflict) as refused:
        delete(archive, NOW_OR_NEVER, "2.25.1000", "2.25.1001", "2.25.101", now=LATER)
    assert str(refused.value) == (
        "Study 2.25.1000 stays as it is: the cloud has not confirmed all of it; the cloud is still owed events of it."
    )
    assert archive.statistics()["instances"] == 2
