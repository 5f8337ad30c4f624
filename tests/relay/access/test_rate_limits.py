"""Counting requests and wrong passwords, with a clock that is told the time."""

import pytest

from relay.access.rate_limits import FIRST_WAIT, LONGEST_WAIT, REMEMBERED, TRIES, Buckets, Guessing, client, pause
from tests.tools.clock import Clock


def test_a_burst_passes_and_then_the_rate_does() -> None:
    clock = Clock()
    buckets = Buckets(10, 3, clock=clock)
    assert [buckets.wait("10.0.0.1") for _ in range(4)] == [0, 0, 0, pytest.approx(0.1)]
    assert buckets.wait("10.0.0.2") == 0
    clock.now += 0.1
    assert [buckets.wait("10.0.0.1") for _ in range(2)] == [0, pytest.approx(0.1)]
    clock.now += 3600
    assert [buckets.wait("10.0.0.1") > 0 for _ in range(4)] == [False, False, False, True]


def test_without_a_rate_everything_passes() -> None:
    buckets = Buckets(0, 1, clock=Clock())
    assert {buckets.wait("10.0.0.1") for _ in range(100)} == {0.0}


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses_of_one_subscriber_count_as_one(address: str, counted: str) -> None:
    assert client(address) == counted


def test_what_is_remembered_is_bounded() -> None:
    buckets = Buckets(1, 1, clock=Clock())
    for number in range(REMEMBERED + 10):
        buckets.wait(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}")
    assert len(buckets._all) == REMEMBERED


def test_wrong_passwords_wait_longer_and_longer_by_address_and_by_name() -> None:
    clock = Clock()
    guessing = Guessing(clock=clock)
    for _ in range(TRIES - 1):
        guessing.wrong("10.0.0.1", "anna")
    assert guessing.wait("10.0.0.1", "anna") == 0
    guessing.wrong("10.0.0.1", "anna")
    assert [
        guessing.wait("10.0.0.1", "anna"),
        guessing.wait("10.0.0.1", "berta"),
        guessing.wait("10.0.0.2", "ANNA"),
    ] == [
        FIRST_WAIT,
        FIRST_WAIT,
        FIRST_WAIT,
    ]
    assert guessing.wait("10.0.0.2", "berta") == 0
    clock.now += FIRST_WAIT
    assert guessing.wait("10.0.0.1", "anna") == 0
    guessing.wrong("10.0.0.1", "anna")
    assert guessing.wait("10.0.0.1", "anna") == 2 * FIRST_WAIT
    guessing.right("10.0.0.1", "anna")
    assert guessing.wait("10.0.0.1", "anna") == 0


def test_the_wait_has_an_end() -> None:
    assert [pause(count) for count in (0, 4, 5, 6, 7, 1000)] == [0, 0, 1, 2, 4, LONGEST_WAIT]
