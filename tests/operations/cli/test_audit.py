"""`gateway audit`, on real chains."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent
from gateway.audit.trail import BEGINNING, Trail
from tests.tools.command_line import run

PASSWORD = "correct horse battery"


def test_a_line_that_somebody_changed_is_named_with_exit_code_1(data: Path) -> None:
    run("users", "add", "vera", "--role", "viewer", typed=f"{PASSWORD}\n")
    run("users", "remove", "vera")
    [head] = json.loads(run("audit", "verify", "--json")[1])["chains"]
    path = data / "audit" / "audit-000000000001.log"
    path.write_text(path.read_text().replace("ina", "ian", 1))
    code, said = run("audit", "verify", "--expect", f"{head['number']}:{head['hash']}")
    assert code == 1
    assert said.splitlines() == [
        "changed   audit-000000000001.log:1  Message 1 is not what was written.",
        f"relay: 1 findings; it is at 2:{head['hash']}",
    ]
    assert run("audit", "verify", "--expect", "nonsense")[0] == 2


def message(at: datetime) -> str:
    return messages.activity(AuditEvent(at, "van-1"), Actor("somebody"), messages.STARTED)


def test_the_chains_of_all_services_are_listed_in_the_order_of_time(data: Path) -> None:
    begin = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
    for chain, seconds in (("pacs", (0, 30)), ("worklist", (10, 20))):
        Trail.chain(data / "audit", chain).append([message(begin + timedelta(seconds=each)) for each in seconds])
    listed = json.loads(run("audit", "list", "--json")[1])
    assert [(each["chain"], each["number"]) for each in listed] == [
        ("pacs", 1),
        ("worklist", 1),
        ("worklist", 2),
        ("pacs", 2),
        ("relay", 1),
    ]
    one = json.loads(run("audit", "list", "--chain", "pacs", "--from", "2", "--json")[1])
    assert [(each["chain"], each["number"]) for each in one] == [("pacs", 2)]
    assert run("audit", "list", "--chain", "other")[0] == 2


def test_each_chain_is_verified_and_can_be_expected_at_a_line(data: Path) -> None:
    trail = Trail.chain(data / "audit", "pacs")
    noted = trail.append(["<a/>", "<b/>"])
    assert run("audit", "verify", "--expect", f"pacs:2:{noted.hash}")[0] == 0
    code, said = run("audit", "verify", "--expect", f"pacs:1:{noted.hash}")
    assert (code, said.splitlines()) == (
        1,
        [
            f"relay: well; it is at 0:{BEGINNING}",
            "replaced  pacs/audit-000000000001.log:2  Message 1 is another one than by what was noted elsewhere.",
            f"pacs: 1 findings; it is at 2:{noted.hash}",
        ],
    )


def test_a_chain_that_is_gone_altogether_is_missed_by_who_noted_a_line_of_it(data: Path) -> None:
    code, said = run("audit", "verify", "--expect", f"pacs:7:{'0' * 64}")
    assert (code, "Messages 1 to 7 are missing at the end, by what was noted elsewhere." in said) == (1, True)


def test_a_trail_that_was_put_back_is_well_and_called_not_whole(data: Path) -> None:
    when = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
    told = messages.restored(AuditEvent(when, "van-1"), Actor("ina"), taken_at="2026-11-22T02:30:00.000Z", number=3)
    head = Trail(data / "audit").append([told])
    code, said = run("audit", "verify")
    assert (code, said.splitlines()) == (
        0,
        [
            "restored  message 1  Restored from the backup of 2026-11-22T02:30:00.000Z, which ends with message 3. "
            "What was written after that is not in this trail.",
            f"relay: well, but not whole; it is at 1:{head.hash}",
        ],
    )
