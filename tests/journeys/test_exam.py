"""Appointment in at the cloud, exam out at the cloud, through the real processes."""

import subprocess
import sys
from pathlib import Path

from simulator.site import Site
from tests.journeys.steps import journey, now, personal, wait_for_events


def test_a_whole_exam_goes_from_cloud_to_cloud(site: Site) -> None:
    exam = journey(site)
    images = exam.run(now=now())
    assert [hop.state for hop in exam.hops.seen] == ["ok"] * len(exam.hops.seen)
    assert len({image.sop_instance_uid for image in images}) == 4
    wait_for_events(site, {"mpps.in_progress": 1, "study.image_received": 4, "mpps.completed": 1})


def test_two_exams_do_not_meet(site: Site) -> None:
    first, second = journey(site), journey(site)
    studies = {image.study_instance_uid for exam in (first, second) for image in exam.run(now=now())}
    assert len(studies) == 2
    wait_for_events(site, {"mpps.in_progress": 2, "study.image_received": 8, "mpps.completed": 2})


def test_no_log_names_the_participant(site: Site) -> None:
    journey(site).run(now=now())
    assert list(personal(site)) == []


def test_an_appointment_that_comes_twice_is_one_item(site: Site) -> None:
    from simulator.journey import accession_of, create_item

    action = create_item(now=now())
    exam = journey(site)
    exam.appoint(action)
    assert site.control.send(action) == site.control.send(action)
    assert len(site.modality().find(accession_number=accession_of(action))) == 1


def test_the_check_of_a_running_site_passes(site: Site) -> None:
    journey(site).run(now=now())
    done = gateway(site, "check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "failed" not in done.stdout


def test_the_check_of_a_site_without_its_archive_names_the_hop(site: Site) -> None:
    site.stop("pacs")
    done = gateway(site, "check", "--local")
    assert done.returncode == 1
    archive, *others = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert "archive answers" in archive
    assert "nobody answers there" in archive
    # The relay asks the port once a minute; if it has done so since, it says the same.
    assert all("relay answers" in line and "archive_port" in line for line in others)


def test_the_command_line_is_a_modality(site: Site, tmp_path: Path) -> None:
    appointment = tmp_path / "clinic.json"
    appointment.write_text(
        '[{"accession_number": "CLI0001", "participant": {"nhs_number": "9990000018", "name": "PHANTOM^SYNTHETIC"},'
        f' "scheduled": {{"date": "{now():%Y%m%d}", "time": "0930"}}, "procedure": {{"modality": "MG"}}}}]'
    )
    assert gateway(site, "worklist", "add", str(appointment)).returncode == 0
    done = gateway(site, "modality", "CLI0001", "--views", "RCC,LCC")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for_events(site, {"mpps.in_progress": 1, "study.image_received": 2, "mpps.completed": 1})
    assert "completed" in gateway(site, "worklist", "list").stdout


def gateway(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against a site."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=site.environment(), cwd=site.folder,
    )  # fmt: skip
