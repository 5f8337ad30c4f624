"""The way out: through a proxy that wants a password, with a CA of its own, and a token of Entra ID."""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from gateway.errors import CloudError
from relay.egress import Egress, proxy_url
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import Endpoint, endpoint
from relay.hybrid.sender import HybridSender, SelfEcho
from relay.hybrid.tokens import SCOPE, EntraTokens
from simulator.azure.http_proxy import Proxy
from simulator.azure.hybrid_service import HybridService
from simulator.azure.hybrid_tokens import Bearer, Key
from simulator.site import free_port
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, echo, namespace, running
from tests.tools.certificates import issued
from tests.tools.waiting import until


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_used"),
    [
        ((), "wss://site.servicebus.windows.net", True),
        (("site.servicebus.windows.net",), "wss://site.servicebus.windows.net", False),
        ((".windows.net",), "wss://site.servicebus.windows.net", False),
        (("windows.net",), "wss://Site.ServiceBus.Windows.net", False),
        (("*.windows.net",), "wss://site.servicebus.windows.net", False),
        (("dows.net",), "wss://site.servicebus.windows.net", True),
        (("*",), "wss://site.servicebus.windows.net", False),
        (("10.0.0.0/8",), "wss://10.1.2.3", False),
        (("10.1.2.3",), "wss://10.1.2.3:444", False),
        (("10.0.0.0/8",), "wss://11.1.2.3", True),
        (("10.0.0.0/8",), "wss://name.example", True),
        (("", "."), "wss://name.example", True),
        ((), "ws://127.0.0.1:80", False),
        ((), "wss://localhost:80", False),
    ],
)
def test_a_proxy_is_asked_unless_it_is_said_not_to_be(no_proxy: tuple[str, ...], url: str, is_used: bool) -> None:
    assert Egress("http://proxy:8080", no_proxy).proxy_for(url) == ("http://proxy:8080" if is_used else None)


@pytest.mark.parametrize("text", ["proxy", "ftp://proxy:1", "http://:80", "http://proxy:8080/path", "socks5://proxy:1"])
def test_what_is_no_proxy_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="a proxy") as caught:
        proxy_url(text)
    assert "socks5" not in str(caught.value)


def test_a_password_does_not_show() -> None:
    assert "secret" not in repr(Egress(proxy_url("name:secret@proxy:8080")))


# --- through a proxy, encrypted ---------------------------------------------------------------------------------------


@dataclass
class Fenced:
    """A service that is reached by the name `service.test`, which only the proxy knows."""

    service: HybridService
    proxy: Proxy
    ca_file: Path
    at: Endpoint

    def egress(self, credentials: str = "us:er") -> Egress:
        return Egress(
            f"http://{credentials}@127.0.0.1:{self.proxy.port}".replace("us:er", "us:%65r"), ca_file=self.ca_file
        )


@asynccontextmanager
async def fenced(folder: Path) -> AsyncIterator[Fenced]:
    certificate, key = issued("service", names=("service.test",)).write(folder, "service")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    service = HybridService()
    service.namespace.hosts |= {"service.test"}
    service.namespace.add("actions", {"site": Key("the key")})
    await service.start(tls=tls)
    service.namespace.base = service.namespace.base.replace("localhost", "service.test")
    proxy = Proxy(credentials="us:er", hosts={"service.test": "127.0.0.1"})
    await proxy.start()
    try:
        yield Fenced(service, proxy, certificate, endpoint(service.namespace.base, "actions"))
    finally:
        await proxy.stop()
        await service.stop()


async def test_listener_rendezvous_and_sender_go_through_the_proxy(tmp_path: Path) -> None:
    async with fenced(tmp_path) as there:
        sender = HybridSender(there.at, TOKENS, egress=there.egress(), timeout=5)
        listener = HybridListener(
            there.at, TOKENS, on_message=echo, prove=SelfEcho(sender), limits=PATIENT, egress=there.egress()
        )
        async with running(listener):
            await until(lambda: listener.state.last_proven is not None)
        await sender.close()
        place = there.at.base.removeprefix("wss://")
        assert (there.proxy.requested, there.proxy.turned_away) == ([place] * 3, 0)


@pytest.mark.parametrize(
    ("credentials", "trusts", "refuses", "code"),
    [
        ("us:wrong", True, "", "proxy_refused"),
        ("us:er", False, "", "tls"),
        ("us:er", True, "service.test", "proxy"),
    ],
)
async def test_what_is_in_the_way_is_told_apart(
    tmp_path: Path, credentials: str, trusts: bool, refuses: str, code: str
) -> None:
    async with fenced(tmp_path) as there:
        there.proxy.refuses = frozenset({refuses})
        egress = there.egress(credentials) if trusts else Egress(there.egress(credentials).proxy)
        listener = HybridListener(there.at, TOKENS, on_message=echo, limits=PATIENT, egress=egress)
        async with running(listener):
            await until(lambda: listener.state.last_error != "")
            assert listener.state.last_error_code == code


async def test_a_proxy_that_is_not_there_and_a_name_that_nobody_knows_are_named() -> None:
    at = endpoint("service.invalid", "actions")
    seen = {}
    for egress in (Egress(f"http://127.0.0.1:{free_port()}"), Egress()):
        listener = HybridListener(at, TOKENS, on_message=echo, limits=PATIENT, egress=egress)
        async with running(listener):
            await until(lambda: listener.state.last_error != "")  # noqa: B023
        seen[listener.state.last_error_code] = listener.state.last_error
    assert set(seen) == {"proxy", "dns"}


# --- Entra ID ---------------------------------------------------------------------------------------------------------


class Identity:
    """A credential as the identity library gives it: new tokens, known to the service, until it is out of order."""

    def __init__(self, service: HybridService, *, seconds: float) -> None:
        self._service = service
        self._seconds = seconds
        self.given = 0
        self.closed = False
        self.out_of_order = False

    async def get_token(self, *scopes: str) -> AccessToken:
        assert scopes == (SCOPE,)
        if self.out_of_order:
            raise ClientAuthenticationError("the secret is hunter2")
        self.given += 1
        text, expires_at = f"eyJ.{self.given}", time.time() + self._seconds
        self._service.namespace.connections["actions"].bearers[text] = Bearer(expires_at)
        return AccessToken(text, int(expires_at))

    async def close(self) -> None:
        self.closed = True


async def test_a_token_of_entra_id_listens_sends_and_is_renewed() -> None:
    async with namespace() as service:
        identity = Identity(service, seconds=4)
        at, tokens = endpoint(service.namespace.base, "actions"), EntraTokens(identity)
        sender = HybridSender(at, tokens, timeout=5)
        listener = HybridListener(at, tokens, on_message=echo, prove=SelfEcho(sender), limits=PATIENT)
        async with running(listener):
            connection = service.namespace.connections["actions"]
            await until(lambda: connection.counts["renew"] >= 2)
            assert (listener.state.connections, connection.counts["expired"]) == (1, 0)
            assert listener.state.last_proven is not None
        await sender.close()
        assert identity.closed


async def test_an_identity_that_gives_no_token_is_named_and_not_quoted() -> None:
    async with namespace() as service:
        identity = Identity(service, seconds=60)
        identity.out_of_order = True
        with pytest.raises(CloudError) as caught:
            await EntraTokens(identity).token("any")
    assert ("Entra ID" in str(caught.value), "hunter2" in str(caught.value)) == (True, False)
