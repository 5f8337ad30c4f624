"""The archive looked after while it serves: decisions at once, nights at night, and a full volume."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.disk_space import Watermarks, volume_of
from gateway.errors import Conflict, OutOfResources
from pacs import Archive
from pacs.maintenance.retention import RetentionPolicy
from pacs.maintenance.schedule import Maintenance, MaintenanceSchedule
from simulator.exam.phantom import mammogram
from simulator.modality.modality import ModalityError
from simulator.site import Site
from tests.journeys.steps import COLUMNS, ROWS
from tests.pacs.archive.test_archive import NOW, folder, image, send
from tests.tools.archive_files import files_of
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

NOTHING = MaintenanceSchedule(night_hour=2, policy=None, scrub_bytes_per_second=0)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        send(archive, image(1))
        yield archive


def month_later() -> datetime:
    return NOW + timedelta(days=31)


def test_a_decision_of_another_process_is_carried_out_at_once(archive: Archive) -> None:
    with pytest.raises(Conflict):
        send(archive, image(1, PatientID="SECOND"))
    [found] = archive.quarantine.objects()
    with (
        Maintenance(archive, files_of(archive), NOTHING),
        closing(Archive.attach(archive.database_path, files_of(archive).root)) as command,
    ):
        command.quarantine.decide(found.id, "replace", by="J. Smith")
        wait_until(lambda: [each.sha256 for each in command.quarantine.objects()] not in ([found.sha256], []))
        wait_until(lambda: archive.quarantine.decided() == [])
    assert archive.instance("2.25.1").sha256 == found.sha256


def test_a_night_prunes_and_scrubs(archive: Archive) -> None:
    for entry in archive.outbox.entries("open"):
        archive.outbox.delivered(entry, now=NOW)
    send(archive, image(2, StudyInstanceUID="2.25.7", SeriesInstanceUID="2.25.8"))
    files_of(archive).path("2.25.2").unlink()
    with Maintenance(
        archive, files_of(archive), MaintenanceSchedule(2, RetentionPolicy(days=30), 1 << 40), clock=month_later
    ):
        wait_until(lambda: archive.condition().scrub.ended_at is not None and folder(archive) == [])
    assert archive.statistics()["studies"] == 1  # the other one is owed to the cloud
    assert archive.condition().scrub.damaged_count == 1


def test_without_a_retention_time_nothing_goes(archive: Archive) -> None:
    for entry in archive.outbox.entries("open"):
        archive.outbox.delivered(entry, now=NOW)
    with Maintenance(archive, files_of(archive), MaintenanceSchedule(2, None, 1 << 40), clock=month_later):
        wait_until(lambda: archive.condition().scrub.ended_at is not None)
    assert folder(archive) == ["kept"]


def test_stopping_does_not_wait_for_a_scrub(archive: Archive) -> None:
    began = time.monotonic()
    with Maintenance(
        archive, files_of(archive), MaintenanceSchedule(2, None, 1), clock=month_later
    ):  # a byte a second: an hour for this file
        time.sleep(0.2)
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_what_fails_does_not_end_the_care(archive: Archive) -> None:
    files_of(archive).root.rename(files_of(archive).root.with_name("unmounted"))
    with capture_logs() as logs, Maintenance(archive, files_of(archive), NOTHING) as care:
        wait_until(lambda: "night" in {line.get("task") for line in logs}, "the failure")
        assert all(thread.is_alive() for thread in care._threads)
    files_of(archive).root.with_name("unmounted").rename(files_of(archive).root)


# ---- watermarks ------------------------------------------------------------------------------------------------------


def test_above_the_watermark_no_image_is_taken_and_the_refusal_says_what_to_do(tmp_path: Path) -> None:
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances", Watermarks(0, 0))) as archive:
        used = volume_of(tmp_path).used_percent
        with pytest.raises(OutOfResources) as refused:
            send(archive, image(1))
        assert str(refused.value) == (
            f"The image volume is {used:.0f} % full and takes no more from 0 % on."
            " Make room, for example with 'gateway prune'."
        )
        assert refused.value.comment.startswith("The image volume is ")
        assert (refused.value.dimse_status, refused.value.http_status) == (0xA700, 507)
        assert folder(archive) == []


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 8 MB of its own."""
    mount = tmp_path / "volume"
    mount.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("a volume can only be mounted by root")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_when_there_is_room_again_images_are_taken_again(small_volume: Path, tmp_path: Path) -> None:
    with closing(Archive.open(tmp_path / "pacs.db", small_volume / "instances")) as archive:
        send(archive, image(1))
        filling = small_volume / "something else"
        filling.write_bytes(bytes(8_100_000))
        with pytest.raises(OutOfResources, match="takes no more from 95 % on"):
            send(archive, image(2))
        filling.unlink()
        send(archive, image(2))
        assert archive.statistics()["instances"] == 2


def test_a_modality_hears_a700_and_its_worklist_goes_on(tmp_path: Path) -> None:
    full = {"PACS_WARN_PERCENT": "0.0001", "PACS_STOP_PERCENT": "0.0001", "RELAY_DESTINATION": "none"}
    with Site(tmp_path, settings=full) as site:
        site.start("worklist", "pacs")
        modality = site.modality()
        with pytest.raises(ModalityError, match=r"A700.*The image volume is"):
            list(modality.store([mammogram(rows=ROWS, columns=COLUMNS)]))
        modality.echo_worklist()
        assert modality.find(date="20261122") == []
        modality.echo_pacs()


def test_the_folders_of_an_archive_are_made_in_its_first_night(archive: Archive) -> None:
    evening = iter((NOW,))
    with Maintenance(archive, files_of(archive), NOTHING, clock=lambda: next(evening, month_later())):
        wait_until((files_of(archive).root / "00" / "ff").exists)
