"""`gateway link check`: the step that fails is the one that is named, and those after it are not blamed."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.hops import Hops
from operations.checks.link_check import check
from relay.settings import RelaySettings
from simulator.azure.http_proxy import Proxy
from simulator.azure.hybrid_service import HybridService
from simulator.azure.hybrid_tokens import Key
from simulator.site import free_port
from tests.tools.certificates import issued


@contextmanager
def service(folder: Path | None = None, *, scheme: str = "http") -> Iterator[tuple[str, Proxy]]:
    """A service and a proxy on a thread of their own, as the check is plain code; with a folder it has TLS.

    `scheme` is that of the proxy.
    """
    there, proxy = HybridService(), Proxy(credentials="us:er", hosts={"service.test": "127.0.0.1"})
    there.namespace.hosts |= {"service.test"}
    keys = {"site": Key("k"), "ear": Key("k", frozenset({"Listen"}))}
    there.namespace.add("actions", keys)
    tls = None
    if folder is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*issued("service", names=("service.test", "localhost")).write(folder, "service"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def there_do(work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)  # type: ignore[arg-type]

    there_do(there.start(tls=tls))
    there.namespace.base = there.namespace.base.replace("localhost", "service.test" if tls else "localhost")
    there_do(proxy.start(tls=tls if scheme == "https" else None))
    try:
        yield there.namespace.base, proxy
    finally:
        there_do(proxy.stop())
        there_do(there.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def settings(namespace: str, **more: str) -> RelaySettings:
    values = {
        "AZURE_RELAY_NAMESPACE": namespace,
        "AZURE_RELAY_HYBRID_CONNECTION": "actions",
        "AZURE_RELAY_KEY_NAME": "site",
        "AZURE_RELAY_SHARED_ACCESS_KEY": "k",
        "http_port": str(free_port()),
        **more,
    }
    return RelaySettings.model_validate(values)


def walked(**options: str) -> dict[str, tuple[str, str]]:
    hops = Hops()
    check(settings(**options), hops)
    return {hop.name: (hop.state, hop.detail) for hop in hops.seen}


def test_a_way_that_works_is_walked_to_its_end() -> None:
    with service() as (base, _):
        seen = walked(namespace=base)
    assert [state for state, _ in seen.values()] == ["ok", "skipped", "ok", "skipped", "ok", "ok", "ok", "skipped"]
    assert seen["name is resolved"][1] == "127.0.0.1 is 127.0.0.1 (this machine)."
    assert seen["listener is let in, echo returns"][1] == (
        "The relay does not run. A listener of this command was let in, and its echo came back."
    )


@pytest.mark.parametrize(
    ("more", "step", "words"),
    [
        ({"AZURE_RELAY_SHARED_ACCESS_KEY": "another"}, "listener is let in, echo returns", "refused the token"),
        ({"AZURE_RELAY_KEY_NAME": "ear"}, "listener is let in, echo returns", "refused the token"),
        ({"AZURE_RELAY_HYBRID_CONNECTION": "another"}, "listener is let in, echo returns", "no such hybrid connection"),
        ({"AZURE_RELAY_NAMESPACE": "wss://service.invalid"}, "name is resolved", "service.invalid has no address"),
        ({"AZURE_RELAY_NAMESPACE": "ws://127.0.0.1:1"}, "port is open", "takes no connection: Connection refused"),
    ],
)
def test_the_step_that_fails_is_named(more: dict[str, str], step: str, words: str) -> None:
    with service() as (base, _):
        seen = walked(**{"namespace": base, **more})
    failed = {name: detail for name, (state, detail) in seen.items() if state == "failed"}
    assert list(failed) == [step]
    assert words in failed[step]


@pytest.mark.parametrize(
    ("credentials", "trusts", "failed", "words"),
    [
        ("us:er", True, "", ""),
        ("us:wrong", True, "proxy connects", "wants a name and a password"),
        ("us:er", False, "certificate is trusted", "not trusted: self-signed certificate"),
    ],
)
def test_proxy_and_certificate_are_told_apart(
    tmp_path: Path, credentials: str, trusts: bool, failed: str, words: str
) -> None:
    with service(tmp_path) as (base, proxy):
        more = {"ca_file": str(tmp_path / "service.pem")} if trusts else {}
        seen = walked(namespace=base, proxy=f"http://{credentials}@127.0.0.1:{proxy.port}", **more)
    found = {name: detail for name, (state, detail) in seen.items() if state == "failed"}
    assert list(found) == ([failed] if failed else [])
    assert words in "".join(found.values())
    assert "wrong" not in str(seen)


def test_through_a_proxy_within_tls_everything_is_within_tls_twice(tmp_path: Path) -> None:
    with service(tmp_path, scheme="https") as (base, proxy):
        trusted = {"ca_file": str(tmp_path / "service.pem")}
        seen = walked(namespace=base, proxy=f"https://us:er@localhost:{proxy.port}", **trusted)
        untrusted = walked(namespace=base, proxy=f"https://us:er@localhost:{proxy.port}")
    assert {name: detail for name, (state, detail) in seen.items() if state == "failed"} == {}
    assert "TLSv1.3, signed by" in seen["certificate is trusted"][1]
    assert "The certificate of the proxy localhost is not trusted" in untrusted["proxy connects"][1]


def test_a_site_without_a_cloud_has_nothing_to_look_at() -> None:
    hops = Hops()
    check(RelaySettings.model_validate({}), hops)
    assert [(hop.name, hop.state) for hop in hops.seen] == [("link", "skipped"), ("doors are reached", "skipped")]
