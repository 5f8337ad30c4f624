"""`gateway users` and `gateway audit`, on real files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app

PASSWORD = "correct horse battery"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SUDO_USER", "ina")
    return tmp_path / "data"


def gateway(data: Path, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Run a command; its exit code and what it said."""
    result = CliRunner().invoke(app, arguments, input=typed)
    failed = result.exception is not None and not isinstance(result.exception, SystemExit)
    return result.exit_code, result.output + (f"{result.exception}\n" if failed else "")


def test_users_come_and_go_and_the_trail_tells_of_it(data: Path) -> None:
    assert gateway(data, "users", "list") == (0, "Nobody.\n")
    assert gateway(data, "users", "add", "vera", "--role", "viewer", typed=f"{PASSWORD}\n") == (
        0,
        "vera may log in as viewer.\n",
    )
    assert gateway(data, "users", "add", "vera", "--role", "admin", typed=f"{PASSWORD}\n") == (
        1,
        "There is a user vera already; 'gateway users passwd' changes the password.\n",
    )
    assert gateway(data, "users", "add", "otto", "--role", "operator", typed="short\n") == (
        1,
        "A password has 12 to 256 characters.\n",
    )
    assert gateway(data, "users", "passwd", "vera", typed="another password\n") == (0, "vera has a new password.\n")
    assert json.loads(gateway(data, "users", "list", "--json")[1]) == [{"name": "vera", "role": "viewer"}]
    assert gateway(data, "users", "remove", "vera") == (0, "vera may not log in any more.\n")
    assert gateway(data, "users", "remove", "vera")[0] == 1
    assert gateway(data, "users", "add", "vera", "--role", "god", typed=f"{PASSWORD}\n")[0] == 2
    listed = json.loads(gateway(data, "audit", "list", "--json")[1])
    assert [(each["number"], each["event"], each["user"]) for each in listed] == [
        (1, "Security Alert / User Security Attributes Changed", "ina"),
        (2, "Security Alert / User Security Attributes Changed", "ina"),
        (3, "Security Alert / User Security Attributes Changed", "ina"),
        (4, "Audit Log Used", "ina"),
    ]
    code, said = gateway(data, "audit", "verify", "--json")
    assert (code, json.loads(said)["number"], json.loads(said)["findings"]) == (0, 4, [])


def test_a_line_that_somebody_changed_is_named_with_exit_code_1(data: Path) -> None:
    gateway(data, "users", "add", "vera", "--role", "viewer", typed=f"{PASSWORD}\n")
    gateway(data, "users", "remove", "vera")
    head = json.loads(gateway(data, "audit", "verify", "--json")[1])
    path = data / "audit" / "audit-000000000001.log"
    path.write_text(path.read_text().replace("ina", "ian", 1))
    code, said = gateway(data, "audit", "verify", "--expect", f"{head['number']}:{head['hash']}")
    assert code == 1
    assert said.splitlines() == [
        "changed   audit-000000000001.log:1  Message 1 is not what was written.",
        f"1 findings; the trail is at 2:{head['hash']}",
    ]
    assert gateway(data, "audit", "verify", "--expect", "nonsense")[0] == 2
