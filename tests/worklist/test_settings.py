"""worklist.settings: what the environment may say about the worklist."""

from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.settings import load, variables
from worklist.settings import WorklistSettings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*variables(WorklistSettings), "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load(WorklistSettings)
    assert (settings.aet, settings.host, settings.port) == ("SCREENING_MWL", "0.0.0.0", 4243)
    assert (settings.db_path, settings.shown_states) == (Path("data/worklist.db"), ("scheduled", "in_progress"))


def test_the_variables_keep_the_names_that_sites_have_in_their_env() -> None:
    assert [name for name in variables(WorklistSettings) if name.startswith("WORKLIST_")] == [
        "WORKLIST_AET",
        "WORKLIST_HOST",
        "WORKLIST_PORT",
        "WORKLIST_DB_PATH",
        "WORKLIST_SHOWN_STATES",
    ]


def test_a_state_that_does_not_exist_is_refused_by_the_name_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLIST_SHOWN_STATES", "scheduled, waiting")
    with pytest.raises(SettingsError, match=r"WORKLIST_SHOWN_STATES.*no such state: waiting"):
        load(WorklistSettings)


def test_the_database_follows_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DATA_DIR", "/var/lib/gateway")
    assert load(WorklistSettings).db_path == Path("/var/lib/gateway/worklist.db")
