"""How the real processes start, refuse to start, and are told apart by their peers."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulator.modality.modality import ModalityError
from simulator.site import READY_SECONDS, Site, wait_until
from tests.journeys.steps import journey, now, wait_for_events


def run(site: Site, module: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a process that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=60, check=False,
        env={**site.environment(), **settings}, cwd=site.folder,
    )  # fmt: skip


@pytest.fixture
def empty_site(tmp_path: Path) -> Iterator[Site]:
    """A site of which nothing runs."""
    with Site(tmp_path, settings={"RELAY_DESTINATION": "none"}) as site:
        yield site


@pytest.mark.parametrize(
    ("module", "variable"),
    [("worklist", "WORKLIST_PORT"), ("pacs", "PACS_PORT"), ("relay", "RELAY_HTTP_PORT")],
)
def test_a_wrong_setting_ends_with_78_and_names_the_variable(empty_site: Site, module: str, variable: str) -> None:
    done = run(empty_site, module, **{variable: "seven"})
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines()[1].startswith(f"{variable}=seven cannot be used")


@pytest.mark.parametrize("module", ["worklist", "pacs"])
def test_a_port_that_is_taken_ends_with_1_and_is_told(empty_site: Site, module: str) -> None:
    with socket.create_server(("127.0.0.1", empty_site.ports[module])):
        done = run(empty_site, module)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_half_a_cloud_configuration_is_refused(empty_site: Site) -> None:
    done = run(empty_site, "relay", RELAY_DESTINATION="https")
    assert done.returncode == 78
    assert "RELAY_API_URL is not set; RELAY_DESTINATION=https needs it." in done.stderr


def test_only_known_machines_may_call_once_they_are_named(tmp_path: Path) -> None:
    with Site(tmp_path, settings={"GATEWAY_CALLING_AETS": "MAMMO_1,MAMMO_2"}) as site:
        site.start("worklist", "pacs")
        site.modality("MAMMO_2").echo_worklist()
        site.modality("MAMMO_2").echo_pacs()
        for echo in (site.modality("STRANGER").echo_worklist, site.modality("STRANGER").echo_pacs):
            with pytest.raises(ModalityError, match=r"[Cc]alling AE title"):
                echo()


def test_events_go_over_https_as_well(tmp_path: Path) -> None:
    with Site(tmp_path, settings={"RELAY_DESTINATION": "https"}) as site:
        site.start_cloud()
        site.start("worklist", "pacs")
        site.start("relay")
        journey(site).run(now=now())
        events = wait_for_events(site, {"mpps.in_progress": 1, "study.image_received": 4, "mpps.completed": 1})
        assert {event["via"] for event in events} == {"https"}


def test_the_three_run_together_and_stop_together(empty_site: Site) -> None:
    with readiness(empty_site) as ready:
        together = start_together(empty_site, NOTIFY_SOCKET=ready.getsockname())
        said = Counter[bytes]()
        while said[b"READY=1"] < 3:  # the first ones may be watched already
            said[ready.recv(64)] += 1
    assert answers(empty_site)
    children = children_of(together.pid)
    together.send_signal(signal.SIGTERM)
    assert together.wait(60) == 0
    assert (len(children), [pid for pid in children if Path(f"/proc/{pid}").exists()]) == (3, [])


def test_one_of_the_three_that_dies_takes_the_others_with_it(empty_site: Site) -> None:
    together = start_together(empty_site)
    wait_until(lambda: answers(empty_site), what="All three")
    os.kill(children_of(together.pid)[0], signal.SIGKILL)
    assert together.wait(60) == 1
    assert not answers(empty_site)


@contextmanager
def readiness(site: Site) -> Iterator[socket.socket]:
    """Where processes say that they are ready, sd_notify(3): they listen a moment earlier than they can be stopped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(site.folder / "notify"))
        channel.settimeout(READY_SECONDS)
        yield channel


def start_together(site: Site, **settings: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "run"],
        env={**site.environment(), **settings}, cwd=site.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def answers(site: Site) -> bool:
    """Whether all three listen."""
    for port in (site.ports[name] for name in ("worklist", "pacs", "relay")):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return False
    return True


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that still run."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []
