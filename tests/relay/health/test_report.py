"""Health is judged by proof: when a round trip last came through, not by what looks connected."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.disk_space import Volume
from gateway.messages import Check
from relay.health.report import Disk, Facts, Forwards, HopFact, Images, PortFact, QueueFact, report

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
ROOM = Disk(Volume(total_bytes=100_000_000_000, free_bytes=60_000_000_000))
LINK = HopFact("hybrid_connection", NOW)


def facts(*hops: HopFact, queue: QueueFact | None = None, disk: Disk = ROOM, images: Images | None = None) -> Facts:
    return Facts("0.1.0", NOW - timedelta(seconds=90), hops, (queue or QueueFact("archive"),), disk, images)


def test_a_site_where_all_is_proven_is_healthy() -> None:
    assert report(facts(LINK, HopFact("delivery", NOW - timedelta(minutes=2))), now=NOW).model_dump() == {
        "healthy": True,
        "version": "0.1.0",
        "listener_uptime_seconds": 90.0,
        "checks": {
            "hybrid_connection": {"ok": True, "detail": "", "proven_at": "2026-11-22T08:00:00.000Z"},
            "delivery": {"ok": True, "detail": "", "proven_at": "2026-11-22T07:58:00.000Z"},
            "archive": {
                "ok": True,
                "detail": "Owed to the cloud: nothing open.",
                "proven_at": "2026-11-22T08:00:00.000Z",
            },
            "disk": {"ok": True, "detail": "40% used, 60 GB free.", "proven_at": "2026-11-22T08:00:00.000Z"},
        },
    }


@pytest.mark.parametrize(
    ("hop", "expected"),
    [
        (
            HopFact("worklist_port", NOW),
            Check(ok=True, detail="No machine has begun a step yet.", proven_at="2026-11-22T08:00:00.000Z"),
        ),
        (
            HopFact("worklist_port", None, "It cannot be reached."),
            Check(ok=False, detail="It cannot be reached. No machine has begun a step yet."),
        ),
    ],
)
def test_a_port_is_judged_by_its_proof_and_says_when_a_machine_spoke(hop: HopFact, expected: Check) -> None:
    found = report(replace(facts(), ports=(PortFact(hop, "No machine has begun a step yet."),)), now=NOW)
    assert (found.healthy, found.checks["worklist_port"]) == (expected.ok, expected)


def test_without_a_cloud_it_says_so() -> None:
    assert report(facts(), now=NOW).checks["cloud"] == Check(ok=True, detail="No cloud is configured.")


@pytest.mark.parametrize(
    ("hop", "ok", "detail"),
    [
        (HopFact("link", None), False, "Not proven since the start; the first round trip is awaited."),
        (HopFact("link", None, "Token refused."), False, "Token refused."),
        (HopFact("link", NOW - timedelta(seconds=180)), True, ""),
        (HopFact("link", NOW - timedelta(seconds=180), "Busy."), True, "Busy."),
        (HopFact("link", NOW - timedelta(seconds=181)), False, "No round trip for more than 180 seconds."),
        (HopFact("link", NOW - timedelta(seconds=181), "Busy."), False, "Busy."),
    ],
)
def test_a_hop_is_well_while_its_proof_is_young(hop: HopFact, ok: bool, detail: str) -> None:
    found = report(facts(hop), now=NOW)
    assert (found.healthy, found.checks["link"].ok, found.checks["link"].detail) == (ok, ok, detail)


@pytest.mark.parametrize(
    ("queue", "ok", "detail"),
    [
        (
            QueueFact("archive", open=3, oldest="2026-11-22T07:00:00.000Z"),
            True,
            "Owed to the cloud: 3 open since 2026-11-22T07:00:00.000Z.",
        ),
        (
            QueueFact("archive", parked=2, parked_because="It is too large."),
            True,
            "Owed to the cloud: nothing open. 2 parked, the newest because: It is too large.",
        ),
        (QueueFact("archive", trouble="The database cannot be read."), False, "The database cannot be read."),
        (
            QueueFact(
                "archive",
                forwards=(
                    Forwards("SITE_PACS", 3, 2, "2026-11-22T07:00:00.000Z", "It does not answer.", "C000H."),
                    Forwards("READER", 0, 0),
                ),
            ),
            True,
            "Owed to the cloud: nothing open. Owed to SITE_PACS: 3 open since 2026-11-22T07:00:00.000Z. It does not "
            "answer. 2 parked, because: C000H. Owed to READER: nothing open.",
        ),
    ],
)
def test_a_queue_says_what_is_owed(queue: QueueFact, ok: bool, detail: str) -> None:
    check = report(facts(LINK, queue=queue), now=NOW).checks["archive"]
    assert (check.ok, check.detail) == (ok, detail)


@pytest.mark.parametrize(
    ("free", "ok", "words"),
    [
        (16, True, "84% used, 16 MB free."),
        (15, True, "85% used, 15 MB free. Make room soon."),
        (6, True, "94% used, 6 MB free. Make room soon."),
        (5, False, "95% used, 5 MB free. No images are taken: make room now."),
    ],
)
def test_the_disk_warns_before_it_is_too_full(free: int, ok: bool, words: str) -> None:
    check = report(facts(LINK, disk=Disk(Volume(100_000_000, free * 1_000_000))), now=NOW).checks["disk"]
    assert (check.ok, check.detail) == (ok, words)


def test_one_image_more_does_not_make_another_report_of_the_disk() -> None:
    said = {
        free: report(facts(LINK, disk=Disk(Volume(10**12, free))), now=NOW).checks["disk"].detail
        for free in (412_345_678_901, 412_328_678_901, 9_876_543_210)
    }
    assert list(said.values()) == [
        "59% used, 410 GB free.",
        "59% used, 410 GB free.",
        "99% used, 9.9 GB free. No images are taken: make room now.",
    ]


def test_a_volume_that_is_gone_is_said_so() -> None:
    check = report(facts(LINK, disk=Disk(trouble="The folder is gone.")), now=NOW).checks["disk"]
    assert check == Check(ok=False, detail="The folder is gone.")


@pytest.mark.parametrize(
    ("images", "ok", "detail", "proven_at"),
    [
        (Images(0), True, "No stored file is known to be damaged.", "2026-11-22T08:00:00.000Z"),
        (
            Images(0, "2026-11-22T02:00:00.000Z"),
            True,
            "No stored file is known to be damaged. They are being read again since 2026-11-22T02:00:00.000Z.",
            "2026-11-22T08:00:00.000Z",
        ),
        (
            Images(0, "2026-11-22T02:00:00.000Z", "2026-11-22T03:00:00.000Z"),
            True,
            "All files were read again and are well.",
            "2026-11-22T03:00:00.000Z",
        ),
        (
            Images(2, "2026-11-22T02:00:00.000Z", "2026-11-22T03:00:00.000Z"),
            False,
            "2 stored files are damaged; 'gateway fsck --hashes' says which and what to do.",
            "2026-11-22T08:00:00.000Z",
        ),
    ],
)
def test_damage_to_stored_files_is_not_well(images: Images, ok: bool, detail: str, proven_at: str) -> None:
    found = report(facts(LINK, images=images), now=NOW)
    assert (found.healthy, found.checks["images"]) == (ok, Check(ok=ok, detail=detail, proven_at=proven_at))


def test_exams_that_cannot_be_judged_are_a_check_of_their_own() -> None:
    checks = report(replace(facts(), exams="1 exam could not be judged."), now=NOW).checks
    assert checks["exams"] == Check(ok=False, detail="1 exam could not be judged.")
    assert "exams" not in report(facts(), now=NOW).checks
