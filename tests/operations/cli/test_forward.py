"""`gateway forward` and what `gateway status` and `gateway check` say of it, on a real database."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.hops import HopFailed, Hops
from gateway.settings import load
from operations.checks.site_check import _forwarded
from pacs import Archive
from pacs.forward.queue_rows import ForwardQueue
from pacs.forward.rules import Fate, Settled
from pacs.settings import PacsSettings
from relay.health.facts import archive_queue
from relay.health.report import Forwards
from tests.pacs.archive.test_archive import NOW, image, send
from tests.tools.command_line import facts, run
from worklist import Worklist


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForwardQueue]:
    """A data folder with one study of three images, owed to SITE_PACS; one is parked, one delivered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PACS_PEERS", "SITE_PACS=127.0.0.1:1,WORKSTATION=127.0.0.1:2")
    Worklist.open(tmp_path / "data" / "worklist.db").close()
    with closing(Archive.open(tmp_path / "data" / "pacs.db", tmp_path / "data" / "instances")) as archive:
        queue = ForwardQueue(archive)
        queue.set_targets(["SITE_PACS"], known=["SITE_PACS"], now=NOW)
        for number in (1, 2, 3):
            send(archive, image(number))
        first, second, _ = queue.due("SITE_PACS", now=NOW, limit=3)
        settled = [Settled(first, Fate.PARKED, "It was answered with status C000H."), Settled(second, Fate.DELIVERED)]
        queue.settle("SITE_PACS", settled, lambda _: timedelta(0), now=NOW)
        yield queue


def test_the_report_of_the_archive_says_what_is_owed_to_site_archives(queue: ForwardQueue, tmp_path: Path) -> None:
    with closing(Archive.attach(tmp_path / "data" / "pacs.db", tmp_path / "data" / "instances")) as archive:
        found = archive_queue(archive)
        [target] = queue.targets()
    assert found.forwards == (
        Forwards("SITE_PACS", 1, 1, target.oldest_open, "", "It was answered with status C000H."),
    )


def listed(state: str = "parked") -> list[str]:
    found = facts("forward", "list", "--state", state)
    return [each["sop_instance_uid"] for each in found]


def test_what_is_parked_is_listed_with_the_reason_and_released(queue: ForwardQueue) -> None:
    [parked] = facts("forward", "list")
    assert {name: parked[name] for name in ("id", "target", "sop_instance_uid", "study_instance_uid", "reason")} == {
        "id": 1,
        "target": "SITE_PACS",
        "sop_instance_uid": "2.25.1",
        "study_instance_uid": "2.25.1002",
        "reason": "It was answered with status C000H.",
    }
    assert "2.25.1" in run("forward", "list")[1]
    assert run("forward", "release", "1") == (0, "1 released.\n")
    assert listed("open") == ["2.25.3", "2.25.1"]
    code, said = run("forward", "release", "1")
    assert (code, said) == (1, "Nothing that is parked has the id 1; see 'gateway forward list'.")
    assert run("forward", "release")[0] == 2


def test_what_is_owed_is_cancelled_by_target(queue: ForwardQueue) -> None:
    assert run("forward", "cancel", "--to", "SITE_PACS") == (0, "2 cancelled.\n")
    assert (listed("open"), listed(), listed("delivered")) == ([], [], ["2.25.2"])
    assert run("forward", "cancel", "7")[0] == 1


def test_a_study_or_an_instance_is_owed_on_demand(queue: ForwardQueue) -> None:
    said = "owed to WORKSTATION; see 'gateway forward list --state open'.\n"
    assert run("forward", "study", "2.25.1002", "--to", "WORKSTATION") == (0, f"3 {said}")
    assert run("forward", "instance", "2.25.2", "--to", "SITE_PACS")[0] == 0
    assert sorted(listed("open")) == ["2.25.1", "2.25.2", "2.25.2", "2.25.3", "2.25.3"]
    assert run("forward", "study", "2.25.7", "--to", "WORKSTATION")[0] == 1
    assert run("forward", "study", "2.25.1002", "--to", "NOBODY")[0] == 2


def test_status_and_check_say_what_waits_and_why(queue: ForwardQueue) -> None:
    queue.failed("SITE_PACS", "SITE_PACS is away.", lambda _: timedelta(0), now=NOW)
    status = subprocess.run(
        [sys.executable, "-m", "gateway", "status", "--json"], capture_output=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    pacs = json.loads(status.stdout)["pacs"]
    assert {name: pacs[name] for name in list(pacs)[-4:]} == {
        "to SITE_PACS open": 1,
        "to SITE_PACS parked": 1,
        "to SITE_PACS oldest open": "2026-11-22T08:00:00.000Z",
        "SITE_PACS waits because": "SITE_PACS is away.",
    }
    hops = Hops()
    with pytest.raises(HopFailed), hops.watch("forwarded") as note:
        _forwarded(note, load(PacsSettings))
    assert hops.seen[0].detail == (
        "SITE_PACS: 1 open, 1 parked. The oldest for SITE_PACS waits since 2026-11-22T08:00:00.000Z. SITE_PACS is away."
    )
