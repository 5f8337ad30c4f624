"""`gateway users` and `gateway audit`, on real files."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent
from gateway.audit.trail import BEGINNING, Trail
from operations.cli import app

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
    [chain] = json.loads(said)["chains"]
    assert (code, chain["chain"], chain["number"], chain["findings"], chain["restored"]) == (0, "relay", 4, [], [])


def test_a_line_that_somebody_changed_is_named_with_exit_code_1(data: Path) -> None:
    gateway(data, "users", "add", "vera", "--role", "viewer", typed=f"{PASSWORD}\n")
    gateway(data, "users", "remove", "vera")
    [head] = json.loads(gateway(data, "audit", "verify", "--json")[1])["chains"]
    path = data / "audit" / "audit-000000000001.log"
    path.write_text(path.read_text().replace("ina", "ian", 1))
    code, said = gateway(data, "audit", "verify", "--expect", f"{head['number']}:{head['hash']}")
    assert code == 1
    assert said.splitlines() == [
        "changed   audit-000000000001.log:1  Message 1 is not what was written.",
        f"relay: 1 findings; it is at 2:{head['hash']}",
    ]
    assert gateway(data, "audit", "verify", "--expect", "nonsense")[0] == 2


def message(at: datetime) -> str:
    return messages.activity(AuditEvent(at, "van-1"), Actor("somebody"), messages.STARTED)


def test_the_chains_of_all_services_are_listed_in_the_order_of_time(data: Path) -> None:
    begin = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
    for chain, seconds in (("pacs", (0, 30)), ("worklist", (10, 20))):
        Trail.chain(data / "audit", chain).append([message(begin + timedelta(seconds=each)) for each in seconds])
    listed = json.loads(gateway(data, "audit", "list", "--json")[1])
    assert [(each["chain"], each["number"]) for each in listed] == [
        ("pacs", 1),
        ("worklist", 1),
        ("worklist", 2),
        ("pacs", 2),
        ("relay", 1),
    ]
    one = json.loads(gateway(data, "audit", "list", "--chain", "pacs", "--from", "2", "--json")[1])
    assert [(each["chain"], each["number"]) for each in one] == [("pacs", 2)]
    assert gateway(data, "audit", "list", "--chain", "other")[0] == 2


def test_each_chain_is_verified_and_can_be_expected_at_a_line(data: Path) -> None:
    trail = Trail.chain(data / "audit", "pacs")
    noted = trail.append(["<a/>", "<b/>"])
    assert gateway(data, "audit", "verify", "--expect", f"pacs:2:{noted.hash}")[0] == 0
    code, said = gateway(data, "audit", "verify", "--expect", f"pacs:1:{noted.hash}")
    assert (code, said.splitlines()) == (
        1,
        [
            f"relay: well; it is at 0:{BEGINNING}",
            "replaced  pacs/audit-000000000001.log:2  Message 1 is another one than by what was noted elsewhere.",
            f"pacs: 1 findings; it is at 2:{noted.hash}",
        ],
    )


def test_a_chain_that_is_gone_altogether_is_missed_by_who_noted_a_line_of_it(data: Path) -> None:
    code, said = gateway(data, "audit", "verify", "--expect", f"pacs:7:{'0' * 64}")
    assert (code, "Messages 1 to 7 are missing at the end, by what was noted elsewhere." in said) == (1, True)


def test_a_trail_that_was_put_back_is_well_and_called_not_whole(data: Path) -> None:
    when = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
    told = messages.restored(AuditEvent(when, "van-1"), Actor("ina"), taken_at="2026-11-22T02:30:00.000Z", number=3)
    head = Trail(data / "audit").append([told])
    code, said = gateway(data, "audit", "verify")
    assert (code, said.splitlines()) == (
        0,
        [
            "restored  message 1  Restored from the backup of 2026-11-22T02:30:00.000Z, which ends with message 3. "
            "What was written after that is not in this trail.",
            f"relay: well, but not whole; it is at 1:{head.hash}",
        ],
    )
