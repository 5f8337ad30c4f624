"""worklist.settings: what the environment may say about the worklist."""

from pathlib import Path

import pytest

from gateway.dataset.character_sets import CharacterSet
from gateway.errors import SettingsError
from gateway.settings import load, variables
from worklist.settings import WorklistSettings
from worklist.visibility import VisibilityRule, VisibilityRules, Window


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
        "WORKLIST_STATION",
        "WORKLIST_WINDOW",
        "WORKLIST_LIMIT",
        "WORKLIST_PEERS",
        "WORKLIST_KEEP_DAYS",
        "WORKLIST_NIGHT_HOUR",
        "WORKLIST_CHARACTER_SETS",
    ]


def test_a_state_that_does_not_exist_is_refused_by_the_name_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLIST_SHOWN_STATES", "scheduled, waiting")
    with pytest.raises(SettingsError, match=r"WORKLIST_SHOWN_STATES.*no such state: waiting"):
        load(WorklistSettings)


def test_visibility_is_the_usual_rule_and_what_differs_for_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLIST_LIMIT", "500")
    monkeypatch.setenv("WORKLIST_WINDOW", "today")
    monkeypatch.setenv("WORKLIST_PEERS", "MAMMO_1=station:strict;limit:0, VAN 7=states:scheduled+completed;window:any")
    shown = ("scheduled", "in_progress")
    assert load(WorklistSettings).visibility == VisibilityRules(
        VisibilityRule("open", shown, Window(0, 0), 500),
        {
            "MAMMO_1": VisibilityRule("strict", shown, Window(0, 0), 0),
            "VAN 7": VisibilityRule("open", ("scheduled", "completed"), Window(), 500),
        },
    )


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("WORKLIST_PEERS", "MAMMO_1=stations:strict", "a peer is written MAMMO_1=station:strict;"),
        ("WORKLIST_PEERS", "MAMMO_1=station:mine", "a station is one of open, calling, strict"),
        ("WORKLIST_PEERS", "MAMMO_1=states:", "no such state"),
        ("WORKLIST_PEERS", "MAMMO_1=limit:many", "a limit is a number of answers"),
        ("WORKLIST_PEERS", "MAMMO_1=window:tomorrow", "a window is written any, today"),
        ("WORKLIST_PEERS", "=limit:1", "an AE title has 1 to 16"),
        ("WORKLIST_PEERS", "A=limit:1,A=limit:2", "given more than once: A"),
        ("WORKLIST_WINDOW", "-9999h..+1h", "a window reaches 1000 hours or days at most"),
        ("WORKLIST_WINDOW", "-1h..+1d", "a window is written any, today"),
        ("WORKLIST_STATION", "closed", "input should be 'open', 'calling' or 'strict'"),
    ],
)
def test_rules_that_make_no_sense_are_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load(WorklistSettings)
    assert str(refused.value).startswith(f"{variable}={value} cannot be used ({sentence}")


def test_the_database_follows_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DATA_DIR", "/var/lib/gateway")
    assert load(WorklistSettings).db_path == Path("/var/lib/gateway/worklist.db")


def test_a_machine_may_have_a_character_set_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLIST_CHARACTER_SETS", "MAMMO_1=ISO_IR 100, MAMMO_2=\\ISO 2022 IR 87")
    assert load(WorklistSettings).character_sets == {
        "MAMMO_1": CharacterSet(("ISO_IR 100",)),
        "MAMMO_2": CharacterSet(("ISO 2022 IR 6", "ISO 2022 IR 87")),
    }


@pytest.mark.parametrize(
    ("value", "reason"),
    [("MAMMO_1", "written AET=ISO_IR 100"), ("MAMMO_1=latin", "not a character set"), ("=ISO_IR 100", "written AET=")],
)
def test_a_character_set_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, reason: str) -> None:
    monkeypatch.setenv("WORKLIST_CHARACTER_SETS", value)
    with pytest.raises(SettingsError, match=rf"WORKLIST_CHARACTER_SETS.*{reason}"):
        load(WorklistSettings)
