"""Sessions against a clock: they end in time, at once when the account changes, and for good."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.access.permissions import Role
from relay.access.sessions import LONGEST_SECONDS, REMEMBERED, Sessions
from relay.access.users import Account, User

VERA = User("vera", Role.VIEWER)
ACCOUNT = Account("vera", Role.VIEWER, "00", "11")
IDLE = 900.0


class Desk:
    """Sessions with a clock and a file of users that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.account: Account | None = ACCOUNT
        self.sessions = Sessions(lambda _: self.account, idle_seconds=IDLE, clock=lambda: self.now)

    def is_in(self, token: str) -> bool:
        return (found := self.sessions.find(token)) is not None and not found.is_over


def test_a_session_is_locked_after_the_idle_time_and_use_puts_that_off() -> None:
    desk = Desk()
    token = desk.sessions.begin(VERA, ACCOUNT)
    desk.now += IDLE - 1
    assert desk.is_in(token)
    desk.sessions.use(token)
    desk.now += IDLE - 1
    assert desk.is_in(token)
    desk.now += 1
    assert not desk.is_in(token)


def test_what_is_locked_stays_locked_and_says_whose_it_was() -> None:
    desk = Desk()
    token = desk.sessions.begin(VERA, ACCOUNT)
    desk.now += IDLE
    assert not desk.is_in(token)
    desk.sessions.use(token)
    assert not desk.is_in(token)
    found = desk.sessions.find(token)
    assert found is not None
    assert found.user == VERA


def test_nobody_stays_in_for_more_than_twelve_hours() -> None:
    desk = Desk()
    token = desk.sessions.begin(VERA, ACCOUNT)
    while desk.now - 1000 < LONGEST_SECONDS - 600:
        desk.now += 600
        assert desk.is_in(token)
        desk.sessions.use(token)
    desk.now += 600
    assert not desk.is_in(token)


def test_a_display_is_not_locked_and_ends_with_its_account() -> None:
    desk = Desk()
    token = desk.sessions.begin(VERA, ACCOUNT, is_display=True)
    desk.now += 400 * 86_400
    assert desk.is_in(token)
    desk.account = None
    assert not desk.is_in(token)


@pytest.mark.parametrize("changed", [None, replace(ACCOUNT, hash="22"), replace(ACCOUNT, role=Role.ADMIN)])
def test_a_session_ends_when_its_account_changes(changed: Account | None) -> None:
    desk = Desk()
    token = desk.sessions.begin(VERA, ACCOUNT)
    desk.account = changed
    assert not desk.is_in(token)
    desk.account = ACCOUNT
    assert not desk.is_in(token)


def test_the_session_of_an_identity_provider_needs_no_account() -> None:
    desk = Desk()
    desk.account = None
    assert desk.is_in(desk.sessions.begin(VERA, None))


def test_a_session_that_was_ended_is_not_known() -> None:
    desk = Desk()
    token = desk.sessions.begin(VERA, ACCOUNT)
    assert desk.sessions.end(token) is not None
    assert desk.sessions.find(token) is None
    assert desk.sessions.end(token) is None


def test_of_too_many_sessions_the_longest_unused_goes() -> None:
    desk = Desk()
    tokens = [desk.sessions.begin(VERA, ACCOUNT) for _ in range(REMEMBERED)]
    desk.sessions.use(tokens[0])
    desk.sessions.begin(VERA, ACCOUNT)
    assert [desk.is_in(token) for token in tokens[:3]] == [True, False, True]


def test_tokens_are_long_and_each_is_another() -> None:
    desk = Desk()
    tokens = {desk.sessions.begin(VERA, ACCOUNT) for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43  # 256 bits in base64


@given(st.lists(st.sampled_from(["use", "look", "wait", "wait long"]), max_size=40))
def test_nobody_is_in_who_was_locked_or_paused_too_long(steps: list[str]) -> None:
    desk = Desk()
    token, used, is_in = desk.sessions.begin(VERA, ACCOUNT), desk.now, True
    for step in steps:
        if step == "use":
            is_in = desk.is_in(token)
            desk.sessions.use(token)
            used = desk.now if is_in else used
        elif step == "look":
            is_in = is_in and desk.now - used < IDLE and desk.now - 1000 < LONGEST_SECONDS
            assert desk.is_in(token) == is_in
        else:
            desk.now += 400 if step == "wait" else IDLE
