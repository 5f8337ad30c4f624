"""The file of users and the checking of passwords."""

import stat
from pathlib import Path

import pytest

from gateway.errors import Conflict, InvalidValue, NotFound, SettingsError
from relay.access.permissions import Role
from relay.access.users import CHECK, REMEMBERED_SECONDS, Passwords, User, UserFile, account
from tests.tools.clock import Clock

N = 2**10
PASSWORD = "correct horse battery"


@pytest.fixture
def file(tmp_path: Path) -> UserFile:
    file = UserFile(tmp_path / "data" / "users.json")
    file.add(account("vera", Role.VIEWER, PASSWORD, n=N))
    return file


def test_the_file_holds_no_password_and_only_its_owner_reads_it(file: UserFile) -> None:
    assert PASSWORD not in file.path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [each.name for each in file.path.parent.iterdir()] == ["users.json"]
    assert {name: each.role for name, each in file.read().items()} == {"vera": Role.VIEWER}


def test_two_users_with_one_password_have_different_hashes(file: UserFile) -> None:
    file.add(account("otto", Role.OPERATOR, PASSWORD, n=N))
    assert file.read()["otto"].hash != file.read()["vera"].hash


def test_a_user_is_there_once_and_only_who_is_there_is_changed(file: UserFile) -> None:
    with pytest.raises(Conflict, match="There is a user vera already"):
        file.add(account("vera", Role.ADMIN, PASSWORD, n=N))
    for change in (lambda: file.remove("otto"), lambda: file.replace(account("otto", Role.ADMIN, PASSWORD, n=N))):
        with pytest.raises(NotFound, match="There is no user otto"):
            change()
    file.remove("vera")
    assert file.read() == {}


@pytest.mark.parametrize(
    ("name", "password"),
    [("", PASSWORD), ("a:b", PASSWORD), ("../x", PASSWORD), ("a" * 65, PASSWORD), ("ärger", PASSWORD),
     (CHECK, PASSWORD),
     ("vera", "too short"), ("vera", "x" * 257)],
)  # fmt: skip
def test_names_and_passwords_that_will_not_do_are_refused(name: str, password: str) -> None:
    with pytest.raises(InvalidValue):
        account(name, Role.VIEWER, password, n=N)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"users": [{"name": "x"}]}', '{"users": [{"name": "x", "role": "god"}]}']
)
def test_a_file_that_is_none_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "users.json").write_text(content)
    with pytest.raises(SettingsError, match="is not a file of users"):
        UserFile(tmp_path / "users.json").read()


def test_name_and_password_have_to_go_together_and_are_remembered_for_a_while(file: UserFile) -> None:
    clock = Clock()
    passwords = Passwords(file, clock=clock)
    vera = User("vera", Role.VIEWER)
    assert passwords.remembered("vera", PASSWORD) is None
    assert passwords.check("vera", PASSWORD) == vera
    assert [
        passwords.check(*each) for each in (("vera", "wrong"), ("Vera", PASSWORD), ("", ""), ("otto", PASSWORD))
    ] == [None] * 4
    assert (passwords.remembered("vera", PASSWORD), passwords.remembered("vera", "wrong")) == (vera, None)
    clock.now += REMEMBERED_SECONDS
    assert passwords.remembered("vera", PASSWORD) is None


def test_a_change_of_the_file_counts_at_once(file: UserFile) -> None:
    passwords = Passwords(file)
    assert passwords.check("vera", PASSWORD) is not None
    file.replace(account("vera", Role.ADMIN, "another password", n=N))
    assert (passwords.remembered("vera", PASSWORD), passwords.check("vera", PASSWORD)) == (None, None)
    assert passwords.check("vera", "another password") == User("vera", Role.ADMIN)
    file.remove("vera")
    assert (passwords.remembered("vera", "another password"), passwords.any()) == (None, False)


def test_a_real_account_takes_as_long_as_it_should() -> None:
    assert account("vera", Role.VIEWER, PASSWORD).n == 2**15
