"""Who asks, behind proxies: believed from the right, from those who are trusted, and from nobody else."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import load
from relay.access.middleware import AccessPolicy
from relay.access.proxy_headers import client
from relay.access.rate_limits import Buckets, Guessing
from relay.settings import RelaySettings
from tests.relay import served
from tests.relay.access.test_middleware import ask, basic, door_in, told, trail
from tests.relay.served import first_study
from tests.tools.clock import Clock

PROXIES = (ip_network("10.0.9.0/28"), ip_network("127.0.0.1"), ip_network("fd00::/64"))


def seen(peer: str, forwarded_for: tuple[str, ...] = (), forwarded: tuple[str, ...] = ()) -> str:
    return client(peer, forwarded_for=forwarded_for, forwarded=forwarded, trusted=PROXIES)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "forwarded", "found"),
    [
        ("192.0.2.1", (), (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.7",), (), "192.0.2.1"),
        ("192.0.2.1", (), ("for=198.51.100.7",), "192.0.2.1"),
        ("10.0.9.1", (), (), "10.0.9.1"),
        ("10.0.9.1", ("198.51.100.7",), (), "198.51.100.7"),
        ("10.0.9.1", ("1.1.1.1, 198.51.100.7",), (), "198.51.100.7"),
        ("10.0.9.1", ("1.1.1.1", "198.51.100.7"), (), "198.51.100.7"),
        ("10.0.9.1", ("1.1.1.1, 198.51.100.7, 10.0.9.2",), (), "198.51.100.7"),
        ("10.0.9.1", ("10.0.9.3, 10.0.9.2",), (), "10.0.9.3"),
        ("10.0.9.1", ("198.51.100.7:4711",), (), "198.51.100.7"),
        ("10.0.9.1", ("[2001:db8::7]:4711",), (), "2001:db8::7"),
        ("10.0.9.1", ("2001:db8::7",), (), "2001:db8::7"),
        ("::ffff:10.0.9.1", ("198.51.100.7",), (), "198.51.100.7"),
        ("fd00::1%eth0", ("198.51.100.7",), (), "198.51.100.7"),
        ("10.0.9.1", ("198.51.100.7, somebody",), (), "10.0.9.1"),
        ("10.0.9.1", ("somebody, 198.51.100.7",), (), "198.51.100.7"),
        ("10.0.9.1", (" , ,",), (), "10.0.9.1"),
        ("10.0.9.1", (), ("for=198.51.100.7",), "198.51.100.7"),
        ("10.0.9.1", (), ('proto=https; For="[2001:db8::7]:80";by=_x',), "2001:db8::7"),
        ("10.0.9.1", (), ("for=1.1.1.1, for=198.51.100.7;proto=http, for=10.0.9.2",), "198.51.100.7"),
        ("10.0.9.1", (), ("for=198.51.100.7, for=_hidden",), "10.0.9.1"),
        ("10.0.9.1", (), ("for=198.51.100.7, proto=https",), "10.0.9.1"),
        ("10.0.9.1", ("198.51.100.7",), ("for=198.51.100.7",), "198.51.100.7"),
        ("10.0.9.1", ("198.51.100.7",), ("for=1.1.1.1",), "10.0.9.1"),
        ("10.0.9.1", ("1.1.1.1",), ("for=198.51.100.7",), "10.0.9.1"),
        ("", ("198.51.100.7",), (), ""),
    ],
)
def test_who_asks(peer: str, forwarded_for: tuple[str, ...], forwarded: tuple[str, ...], found: str) -> None:
    assert seen(peer, forwarded_for, forwarded) == found


WORDS = st.text(st.sampled_from('0123456789abcdef.:[]%,;= "for_'), max_size=60)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4))
def test_who_is_not_trusted_is_himself_whatever_he_says(forwarded_for: list[str], forwarded: list[str]) -> None:
    assert seen("192.0.2.1", tuple(forwarded_for), tuple(forwarded)) == "192.0.2.1"


@given(st.lists(WORDS, max_size=4))
def test_what_a_client_puts_in_front_changes_nothing(lies: list[str]) -> None:
    assert seen("10.0.9.1", (*lies, "198.51.100.7")) == "198.51.100.7"


def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(RelaySettings).trusted_proxies == ()
    monkeypatch.setenv("RELAY_TRUSTED_PROXIES", "127.0.0.1, 10.0.9.0/28")
    assert load(RelaySettings).trusted_proxies == (ip_network("127.0.0.1"), ip_network("10.0.9.0/28"))


# ---- at the door -----------------------------------------------------------------------------------------------------

BEHIND = AccessPolicy(False, proxies=(ip_network("127.0.0.1"),))


def test_the_trail_has_the_client_and_not_the_proxy(tmp_path: Path) -> None:
    for folder, policy, address in (
        (tmp_path / "a", BEHIND, "198.51.100.7"),
        (tmp_path / "b", AccessPolicy(False), "127.0.0.1"),
    ):
        folder.mkdir()
        with served.site(folder, first_study(), access=door_in(folder, policy=policy)) as site:
            ask(site, "/dicom-web/studies", X_Forwarded_For="1.1.1.1, 198.51.100.7", **basic("vera"))
        assert {each["who"] for each in trail(folder)} == {f"vera@{address}"}


def test_clients_behind_a_proxy_have_a_rate_each(tmp_path: Path) -> None:
    with served.site(
        tmp_path, access=door_in(tmp_path, policy=BEHIND, buckets=Buckets(0.01, 2, clock=Clock()))
    ) as site:
        first = [ask(site, "/healthz", X_Forwarded_For="198.51.100.7").status for _ in range(3)]
        other = ask(site, "/healthz", X_Forwarded_For="198.51.100.8").status
        spoofed = ask(site, "/healthz", X_Forwarded_For="1.2.3.4, 198.51.100.7").status
    assert (first, other, spoofed) == ([200, 200, 429], 200, 429)


def test_wrong_passwords_behind_a_proxy_slow_down_who_guesses_them(tmp_path: Path) -> None:
    access = door_in(tmp_path, policy=BEHIND, guessing=Guessing(clock=Clock()))
    with served.site(tmp_path, access=access) as site:
        for number in range(6):
            ask(site, "/", X_Forwarded_For="198.51.100.7", **basic(f"nobody{number}", "wrong password"))
        guessed = ask(site, "/", X_Forwarded_For="198.51.100.7", **basic("nobody", "wrong password"))
        other = ask(site, "/", X_Forwarded_For="198.51.100.8", **basic("vera"))
    assert (told(guessed)[0], other.status) == (429, 200)


def test_the_relays_own_credential_is_of_no_use_through_a_proxy(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path, policy=BEHIND)) as site:
        assert site.access is not None
        own = {"Authorization": site.access.own.authorization("cloud")}
        through, here = ask(site, "/", X_Forwarded_For="198.51.100.7", **own), ask(site, "/", **own)
    assert (through.status, here.status) == (401, 200)
