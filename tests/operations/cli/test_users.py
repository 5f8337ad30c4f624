"""`gateway users`, on real files; the audit trail tells of each change."""

import json
from pathlib import Path

from tests.tools.command_line import run

PASSWORD = "correct horse battery"


def test_users_come_and_go_and_the_trail_tells_of_it(data: Path) -> None:
    assert run("users", "list") == (0, "Nobody.\n")
    assert run("users", "add", "vera", "--role", "viewer", typed=f"{PASSWORD}\n") == (
        0,
        "vera may log in as viewer.\n",
    )
    assert run("users", "add", "vera", "--role", "admin", typed=f"{PASSWORD}\n") == (
        1,
        "There is a user vera already; 'gateway users passwd' changes the password.",
    )
    assert run("users", "add", "otto", "--role", "operator", typed="short\n") == (
        1,
        "A password has 12 to 256 characters.",
    )
    assert run("users", "passwd", "vera", typed="another password\n") == (0, "vera has a new password.\n")
    assert json.loads(run("users", "list", "--json")[1]) == [{"name": "vera", "role": "viewer"}]
    assert run("users", "remove", "vera") == (0, "vera may not log in any more.\n")
    assert run("users", "remove", "vera")[0] == 1
    assert run("users", "add", "vera", "--role", "god", typed=f"{PASSWORD}\n")[0] == 2
    listed = json.loads(run("audit", "list", "--json")[1])
    assert [(each["number"], each["event"], each["user"]) for each in listed] == [
        (1, "Security Alert / User Security Attributes Changed", "ina"),
        (2, "Security Alert / User Security Attributes Changed", "ina"),
        (3, "Security Alert / User Security Attributes Changed", "ina"),
        (4, "Audit Log Used", "ina"),
    ]
    code, said = run("audit", "verify", "--json")
    [chain] = json.loads(said)["chains"]
    assert (code, chain["chain"], chain["number"], chain["findings"], chain["restored"]) == (0, "relay", 4, [], [])
