"""The bundle helps from afar and holds no patient data, wherever on the site there is some, and no secrets."""

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.outbox import NewEntry
from operations.diagnostics.bundle import collect
from operations.site_settings import SiteSettings
from pacs import Archive
from tests.relay.served import item, mammogram, receive
from worklist import Worklist

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
PERSONAL = ("ANNA", "9990000018", "19620504")
SECRETS = ("not-for-others", "c2lnbmVk", "hunter2")

LOG = [
    json.dumps({"event": "instance stored", "level": "info", "process": "pacs", "sop_instance_uid": "1.2.3"}),
    "Traceback (most recent call last): BJÖRK^ANNA 9990000018",
    json.dumps({"message": "somebody else's line about BJÖRK^ANNA"}),
    json.dumps(["ANNA"]),
    "",
    json.dumps({"event": "event delivered", "level": "info", "process": "relay", "message_id": "1.2.3"}),
]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SiteSettings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_RELAY_SHARED_ACCESS_KEY", SECRETS[0])
    monkeypatch.setenv("RELAY_API_TOKEN", SECRETS[2])
    monkeypatch.setenv("RELAY_API_URL", f"https://someone:{SECRETS[2]}@programme.example/api/v1")
    monkeypatch.setenv("RELAY_HTTP_PORT", "1")
    return SiteSettings.load()


@pytest.fixture
def full(settings: SiteSettings, tmp_path: Path) -> Iterator[SiteSettings]:
    """A site with a participant in every place that can hold one."""
    (tmp_path / "data").mkdir()
    with (
        closing(Worklist.open(settings.worklist.db_path)) as worklist,
        closing(Archive.open(settings.pacs.db_path, settings.pacs.storage_path)) as archive,
    ):
        worklist.schedule(item(), action_id="A-1", content_hash="", now=NOW)
        for _ in range(2):
            receive(archive, mammogram("RCC", 1), tmp_path)
        [entry] = archive.outbox.entries("open")
        archive.outbox.park(entry, reason="The cloud refused the content with HTTP 422.", now=NOW)
        wanted = {"target_url": f"https://a.blob.core.windows.net/x?sig={SECRETS[1]}"}
        archive.outbox.enqueue(NewEntry("request/R-1", "image.request", "request/1/R-1", 4, wanted), now=NOW)
        yield settings


def contents(bundle: Path) -> dict[str, str]:
    with tarfile.open(bundle) as tar:
        return {member.name: (tar.extractfile(member) or _none()).read().decode() for member in tar.getmembers()}


def _none() -> object:
    raise AssertionError("a bundle holds files only")


def test_no_patient_data_and_no_secret_is_in_the_bundle(full: SiteSettings, tmp_path: Path) -> None:
    (tmp_path / "gateway.log").write_text("\n".join(LOG))
    facts = collect(full, tmp_path / "bundle.tar.gz", logs=[tmp_path / "gateway.log"], now=NOW)
    parts = contents(tmp_path / "bundle.tar.gz")
    assert [word for word in (*PERSONAL, *SECRETS) for text in parts.values() if word in text] == []
    assert facts["log_lines"] == 2
    assert json.loads(parts["diagnostics/about.json"])["log_lines_left_out"] == 3
    assert parts["diagnostics/log.jsonl"].splitlines() == [LOG[0], LOG[5]]


def test_it_says_what_is_needed_to_help(full: SiteSettings, tmp_path: Path) -> None:
    collect(full, tmp_path / "bundle.tar.gz", logs=[], now=NOW)
    parts = {name: text for name, text in contents(tmp_path / "bundle.tar.gz").items() if name.endswith(".json")}
    facts = {Path(name).stem: json.loads(text) for name, text in parts.items()}
    assert facts["archive"]["instances"] == 1
    assert facts["archive"]["outbox"]["parked"] == {
        "study.image_received: The cloud refused the content with HTTP 422.": 1
    }
    assert facts["worklist"]["items"] == {f"{NOW.astimezone():%Y%m%d} scheduled": 1}
    assert facts["fsck"] == {"findings": {}, "everything_looked_at": True}
    assert facts["settings"]["AZURE_RELAY_SHARED_ACCESS_KEY"] == "set"
    assert facts["settings"]["RELAY_API_URL"] == "https://programme.example/api/v1"
    assert facts["settings"]["AZURE_SERVICEBUS_CONNECTION_STRING"] == "not set"
    assert "pydicom" in facts["versions"]["packages"]
    assert list(facts["health"]) == ["not_made"]  # nobody serves, and the rest was made all the same


def test_a_site_whose_databases_are_not_there_still_gets_a_bundle(settings: SiteSettings, tmp_path: Path) -> None:
    collect(settings, tmp_path / "bundle.tar.gz", logs=[], now=NOW)
    parts = contents(tmp_path / "bundle.tar.gz")
    assert "not_made" in json.loads(parts["diagnostics/worklist.json"])
    assert "packages" in json.loads(parts["diagnostics/versions.json"])


def test_nothing_is_overwritten(full: SiteSettings, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_text("mine")
    with pytest.raises(FileExistsError):
        collect(full, tmp_path / "bundle.tar.gz", logs=[], now=NOW)
    assert (tmp_path / "bundle.tar.gz").read_text() == "mine"
