"""Settings: what the environment may say and the sentences people get when it is wrong."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from gateway.errors import SettingsError
from gateway.remote_ae import Caller
from gateway.settings import AeTitle, GatewaySettings, Port, load, variables


class Room(GatewaySettings):
    model_config = SettingsConfigDict(env_prefix="ROOM_")

    aet: AeTitle = Field("SCREENING_ROOM", description="AE title of this room. A reason.")
    port: Port = Field(4243, description="TCP port of this room, 0 to 65535. A reason.")
    key: SecretStr | None = Field(
        None, min_length=8, validation_alias="AZURE_KEY", description="the key of at least 8 characters"
    )
    file: Path = Field(
        default_factory=lambda data: data["data_dir"] / "room.db", description="the database, under the data folder"
    )


class Demanding(GatewaySettings):
    model_config = SettingsConfigDict(env_prefix="DEMANDING_")

    partner: str = Field(description="Host name of the partner. There is none to assume.")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*variables(Room), *variables(Demanding), "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def refusal(cls: type[GatewaySettings]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(cls)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load(Room).model_dump() == {
        "data_dir": Path("data"),
        "site": "unnamed",
        "calling_aets": (),
        "max_associations": 32,
        "max_associations_per_peer": 16,
        "tls_certificate": None,
        "tls_key": None,
        "tls_client_ca": None,
        "tls_peer_ca": None,
        "audit_path": Path("data/audit"),
        "log_level": "INFO",
        "aet": "SCREENING_ROOM",
        "port": 4243,
        "key": None,
        "file": Path("data/room.db"),
    }


def test_paths_follow_the_data_folder_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DATA_DIR", "/var/lib/gateway")
    assert load(Room).file == Path("/var/lib/gateway/room.db")
    monkeypatch.setenv("ROOM_FILE", "/elsewhere/room.db")
    assert load(Room).file == Path("/elsewhere/room.db")


def test_a_list_of_ae_titles_is_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CALLING_AETS", " MAMMO_1, MAMMO_2 ,")
    assert load(Room).calling_aets == (Caller("MAMMO_1"), Caller("MAMMO_2"))


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOM_FILE", "")
    assert load(Room).file == Path("data/room.db")


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(Room).port = 1


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "ROOM_PORT",
            "99999",
            "ROOM_PORT=99999 cannot be used (input should be less than or equal to 65535); "
            "expected: TCP port of this room, 0 to 65535.",
        ),
        (
            "ROOM_AET",
            "MUCH_TOO_LONG_A_TITLE",
            "ROOM_AET=MUCH_TOO_LONG_A_TITLE cannot be used (an AE title has 1 to 16 printable ASCII characters and no "
            "backslash); expected: AE title of this room.",
        ),
        (
            "GATEWAY_CALLING_AETS",
            "MAMMO_1,MAMMO\\2",
            "GATEWAY_CALLING_AETS=MAMMO\\2 cannot be used (an AE title has 1 to 16 printable ASCII characters and no "
            "backslash); expected: AE titles that may call, separated by commas, each from anywhere or, written "
            "MAMMO_1@10.0.1.7 or MAMMO_1@10.0.1.0/24, from there only.",
        ),
        (
            "GATEWAY_CALLING_AETS",
            "MAMMO_1@room 7",
            "GATEWAY_CALLING_AETS=MAMMO_1@room 7 cannot be used ('room 7' does not appear to be an IPv4 or IPv6 "
            "network); expected: AE titles that may call, separated by commas, each from anywhere or, written "
            "MAMMO_1@10.0.1.7 or MAMMO_1@10.0.1.0/24, from there only.",
        ),
        (
            "LOG_LEVEL",
            "CHATTY",
            "LOG_LEVEL=CHATTY cannot be used (input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'); "
            "expected: DEBUG, INFO, WARNING or ERROR.",
        ),
    ],
)
def test_a_wrong_value_is_explained_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal(Room) == sentence


def test_a_missing_value_is_explained_by_its_variable() -> None:
    assert refusal(Demanding) == "DEMANDING_PARTNER is not set; expected: Host name of the partner."


def test_all_mistakes_are_told_at_once_and_consequences_of_one_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOM_PORT", "seven")
    monkeypatch.setenv("LOG_LEVEL", "CHATTY")
    assert [line.split("=")[0] for line in refusal(Room).splitlines()] == ["LOG_LEVEL", "ROOM_PORT"]


def test_the_value_of_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "hush")
    assert refusal(Room).startswith("AZURE_KEY cannot be used (")
    assert "hush" not in refusal(Room)


def test_secrets_come_from_the_credentials_folder_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "AZURE_KEY").write_text("from the folder\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(Room).key == SecretStr("from the folder")
    monkeypatch.setenv("AZURE_KEY", "from the environment")
    assert load(Room).key == SecretStr("from the environment")


def test_an_empty_credential_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "AZURE_KEY").write_text("\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(Room).key is None


def test_a_dotenv_file_in_the_working_directory_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("GATEWAY_SITE=van 7\nROOM_PORT=11112\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("ROOM_PORT", "104")
    settings = load(Room)
    assert (settings.site, settings.port) == ("van 7", 104)


def test_every_field_has_a_variable() -> None:
    assert list(variables(Room)) == [
        "GATEWAY_DATA_DIR",
        "GATEWAY_SITE",
        "GATEWAY_CALLING_AETS",
        "GATEWAY_MAX_ASSOCIATIONS",
        "GATEWAY_MAX_ASSOCIATIONS_PER_PEER",
        "GATEWAY_TLS_CERTIFICATE",
        "GATEWAY_TLS_KEY",
        "GATEWAY_TLS_CLIENT_CA",
        "GATEWAY_TLS_PEER_CA",
        "GATEWAY_AUDIT_PATH",
        "LOG_LEVEL",
        "ROOM_AET",
        "ROOM_PORT",
        "AZURE_KEY",
        "ROOM_FILE",
    ]
