"""status and check as commands; what a check looks at is in the journeys."""

import json
from pathlib import Path

from gateway import __version__
from tests.tools.command_line import command, facts


def test_status_counts_what_is_there_and_what_is_owed(empty_site: Path) -> None:
    assert facts("status") == {
        "site": "unnamed",
        "version": __version__,
        "worklist": {
            "items today": 0,
            "events open": 0,
            "events delivered": 0,
            "events parked": 0,
            "oldest open": None,
        },
        "pacs": {
            "studies": 0,
            "series": 0,
            "instances": 0,
            "bytes": 0,
            "damaged": 0,
            "all read again": None,
            "commitments to report": 0,
            "oldest commitment to report": None,
            "it waits because": None,
            "events open": 0,
            "events delivered": 0,
            "events parked": 0,
            "oldest open": None,
        },
    }


def test_a_check_without_processes_fails_hop_by_hop(empty_site: Path) -> None:
    done = command(empty_site, "check", "--json", "--local", WORKLIST_PORT="1", PACS_PORT="1", RELAY_HTTP_PORT="1")
    assert done.returncode == 1
    assert [(hop["name"], hop["state"]) for hop in json.loads(done.stdout)] == [
        ("worklist answers", "failed"),
        ("worklist is queried", "failed"),
        ("archive answers", "failed"),
        ("certificate in use", "skipped"),
        ("relay answers", "failed"),
        ("DICOMweb is searched", "failed"),
        ("steps owed to the cloud", "ok"),
        ("images owed to the cloud", "ok"),
        ("images owed to site archives", "skipped"),
        ("room on disk", "ok"),
    ]
