"""Every door to the cloud uses the site's way out: a proxy that wants a password, and a CA that nobody else knows.

The services have names that only the proxy resolves, so whatever went another way would not arrive.
"""

import asyncio
import hashlib
import json
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import web
from azure.servicebus import TransportType

from gateway.errors import CloudError
from gateway.hops import Hops
from operations.checks.link_check import check
from relay.access.oidc_login import CodeFlow
from relay.access.oidc_tokens import Issuer, Tokens
from relay.access.users import User
from relay.assembly import cloud_link
from relay.cloud.blob_upload import BlobUpload
from relay.cloud.throttle import Throttle
from relay.delivery.https_api import HttpsDestination, ManageDestination, fixed_token
from relay.delivery.servicebus import ServiceBusDestination, by_connection_string, egress_options
from relay.egress import DIRECT, Egress
from relay.hybrid.entra import credential
from relay.hybrid.tokens import EntraTokens
from relay.settings import RelaySettings
from simulator.azure.blob_storage import Blobs
from simulator.azure.http_proxy import Proxy
from simulator.azure.servicebus_service import KEY, KEY_NAME, Bus
from simulator.site import free_port
from tests.relay.access.identity_provider import CLIENT, IdentityProvider
from tests.relay.access.test_oidc_tokens import AUDIENCE, Provider
from tests.relay.delivery.told import event, outcome
from tests.tools.certificates import authority, issued, rsa_key
from tests.tools.waiting import PATIENCE_SECONDS

HOST = "service.test"
LOGIN = "login.microsoftonline.com"


@dataclass
class Fence:
    """Who stands between the site and its services."""

    proxy: Proxy
    tls: ssl.SSLContext
    ca_file: Path

    def egress(self, credentials: str = "us:er") -> Egress:
        return Egress(self.address(credentials), ca_file=self.ca_file)

    def address(self, credentials: str = "us:er") -> str:
        return f"http://{credentials}@127.0.0.1:{self.proxy.port}"


@asynccontextmanager
async def fence(folder: Path) -> AsyncIterator[Fence]:
    ca = authority("Hospital CA")
    (folder / "ca.pem").write_bytes(ca.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*issued("service", ca, names=(HOST, LOGIN)).write(folder, "service"))
    proxy = Proxy(credentials="us:er", hosts={HOST: "127.0.0.1"})
    await proxy.start()
    try:
        yield Fence(proxy, tls, folder / "ca.pem")
    finally:
        await proxy.stop()


@asynccontextmanager
async def served(app: web.Application, there: Fence) -> AsyncIterator[str]:
    """Serve within TLS and give host and port, as the proxy knows them."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=there.tls).start()
    try:
        yield f"{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def api(taken: list[str]) -> web.Application:
    async def take(request: web.Request) -> web.Response:
        taken.append(f"{request.method} {request.path}")
        await request.read()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", take)
    return app


async def test_events_and_images_for_the_api_go_through_the_proxy(tmp_path: Path) -> None:
    taken: list[str] = []
    (tmp_path / "image.dcm").write_bytes(b"an image")
    async with fence(tmp_path) as there, served(api(taken), there) as place:
        base = f"https://{place}/api/v1"
        https = HttpsDestination(base, fixed_token("t"), egress=there.egress())
        opened: Callable[[str, str], BinaryIO] = lambda _uid, _sha256: (tmp_path / "image.dcm").open("rb")  # noqa: E731
        manage = ManageDestination(base, fixed_token("t"), opened=opened, egress=there.egress())
        assert [await outcome(https), await outcome(manage)] == ["delivered", "delivered"]
        await https.close()
        await manage.close()
        assert there.proxy.requested == [place] * 2
    assert [line.partition(" ")[0] for line in taken] == ["POST", "PUT"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda there: there.egress("us:wrong"), "proxy wants a name and a password"),
        (lambda there: Egress(there.address()), "certificate is not trusted"),
        (lambda _there: DIRECT, "name cannot be resolved"),
    ],
)
async def test_what_is_in_the_way_of_the_api_is_named(
    tmp_path: Path, changed: Callable[[Fence], Egress], words: str
) -> None:
    async with fence(tmp_path) as there, served(api([]), there) as place:
        https = HttpsDestination(f"https://{place}/api/v1", fixed_token("t"), egress=changed(there))
        with pytest.raises(CloudError, match=words) as caught:
            await https.send(event())
        await https.close()
        assert not caught.value.permanent


async def test_a_full_image_goes_to_its_blob_through_the_proxy(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "image.dcm").write_bytes(content)
    (tmp_path / "blobs").mkdir()
    digest, throttle = (
        hashlib.sha256(content).hexdigest(),
        Throttle(0, received_last=lambda: datetime(2026, 1, 1, tzinfo=UTC)),
    )
    async with fence(tmp_path) as there, Blobs(tmp_path / "blobs").serving(tls=there.tls) as blobs:
        blobs.url = blobs.url.replace("127.0.0.1", HOST)
        with (tmp_path / "image.dcm").open("rb") as file:
            await BlobUpload(blobs.signed("one.dcm"), file, digest, throttle=throttle, egress=there.egress()).run()
        assert blobs.blobs["one.dcm"].sha256 == digest
        assert set(there.proxy.requested) == {blobs.url.removeprefix("https://")}


async def test_the_identity_provider_is_asked_through_the_proxy(tmp_path: Path) -> None:
    provider, app = Provider(), web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", provider.discovery), web.get("/keys", provider.jwks)])
    async with fence(tmp_path) as there, served(app, there) as place:
        provider.url = f"https://{place}"
        found = await Tokens(Issuer(provider.url, AUDIENCE), egress=there.egress()).check(provider.token())
        assert (isinstance(found, User), set(there.proxy.requested)) == (True, {place})


async def test_people_sign_in_with_the_identity_provider_through_the_proxy(tmp_path: Path) -> None:
    provider, app = IdentityProvider(), web.Application()

    async def give_token(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        status, content = provider.token(form, "")
        return web.json_response(content, status=status)

    async def discovery(_: web.Request) -> web.Response:
        return web.json_response(provider.discovery())

    app.add_routes([web.get("/.well-known/openid-configuration", discovery), web.post("/token", give_token)])
    app.router.add_get("/keys", Provider().jwks)
    async with fence(tmp_path) as there, served(app, there) as place:
        provider.url = f"https://{place}"
        code = CodeFlow(Tokens(Issuer(provider.url, AUDIENCE), egress=there.egress()), CLIENT)
        state, address = await code.begin("https://gateway.example", "/board")
        answer = urlsplit(provider.redirection(dict(parse_qsl(urlsplit(address).query)))).query
        user, begun = await code.finish(dict(parse_qsl(answer)), state)
        assert (user.name, begun.where, set(there.proxy.requested)) == ("ida", "/board", {place})


async def test_entra_id_is_asked_for_tokens_through_the_proxy(tmp_path: Path) -> None:
    async def grant(_request: web.Request) -> web.Response:
        return web.json_response({"token_type": "Bearer", "expires_in": 3600, "access_token": "eyJ"})

    app = web.Application()
    app.router.add_post("/contoso/oauth2/v2.0/token", grant)
    holder = issued("app", key=rsa_key(2048))
    async with fence(tmp_path) as there, served(app, there) as place:
        port = place.partition(":")[2]
        there.proxy.places[f"{LOGIN}:443"] = ("127.0.0.1", int(port))
        tokens = EntraTokens(
            credential(
                "certificate",
                tenant_id="contoso",
                client_id="app",
                certificate=(holder.pem + holder.key_pem).decode(),
                egress=there.egress(),
            )
        )
        assert (await tokens.token("any")).text == "eyJ"
        await tokens.close()
        assert set(there.proxy.requested) == {f"{LOGIN}:443"}


async def test_service_bus_goes_through_the_proxy_in_a_websocket(tmp_path: Path) -> None:
    async with fence(tmp_path) as there, Bus() as bus:
        queue, app = bus.add_queue("events"), web.Application()
        app.router.add_get("/$servicebus/websocket", bus.websocket)
        async with served(app, there) as place:
            there.proxy.places[f"{HOST}:443"] = ("127.0.0.1", int(place.partition(":")[2]))
            text = f"Endpoint=sb://{HOST}/;SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}"
            transport = TransportType.AmqpOverWebsocket
            outward = egress_options(HOST, there.egress(), transport=transport)
            connect = by_connection_string(text, transport=transport, outward=outward)
            destination = ServiceBusDestination(connect, entity="events", seconds=10)
            assert await outcome(destination) == "delivered"
            await destination.close()
        assert (len(queue.ready), set(there.proxy.requested)) == (1, {f"{HOST}:443"})


def test_plain_amqp_is_given_no_proxy_as_it_would_become_a_websocket_without_a_word() -> None:
    egress = Egress("http://us:%65r@proxy.test:8080")
    assert "http_proxy" not in egress_options(HOST, egress, transport=TransportType.Amqp)
    assert egress_options(HOST, egress, transport=TransportType.AmqpOverWebsocket)["http_proxy"] == {
        "proxy_hostname": "http://proxy.test",
        "proxy_port": 8080,
        "username": "us",
        "password": "er",
    }


# --- what is said -----------------------------------------------------------------------------------------------------


def bus_settings(**more: str) -> RelaySettings:
    values = {
        "RELAY_DESTINATION": "servicebus",
        "AZURE_SERVICEBUS_CONNECTION_STRING": f"Endpoint=sb://{HOST}/;SharedAccessKeyName=n;SharedAccessKey=a2V5",
        "AZURE_SERVICEBUS_QUEUE": "events",
        "http_port": str(free_port()),
        **more,
    }
    return RelaySettings.model_validate(values)


@pytest.mark.parametrize(
    ("more", "is_said"),
    [
        ({"AZURE_SERVICEBUS_TRANSPORT": "amqp", "proxy": "http://proxy.test:8080"}, True),
        ({"AZURE_SERVICEBUS_TRANSPORT": "amqp", "proxy": "http://proxy.test:8080", "no_proxy": ".test"}, False),
        ({"AZURE_SERVICEBUS_TRANSPORT": "amqp"}, False),
        ({"proxy": "http://proxy.test:8080"}, False),
        ({"RELAY_DESTINATION": "none", "AZURE_SERVICEBUS_TRANSPORT": "amqp", "proxy": "http://proxy.test:8080"}, False),
    ],
)
def test_events_that_leave_past_the_proxy_are_spoken_of(more: dict[str, str], is_said: bool) -> None:
    said = cloud_link.not_by_proxy(bus_settings(**more))
    assert ("cannot go through RELAY_PROXY" in said, bool(said)) == (is_said, is_said)


@contextmanager
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread, as checks are plain code."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def fenced_api(folder: Path) -> Iterator[tuple[Fence, str]]:
    there_and_place: list[tuple[Fence, str]] = []
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with fence(folder) as there, served(api([]), there) as place:
            there_and_place.append((there, place))
            ready.set()
            await done.wait()

    with elsewhere() as loop:
        serving = asyncio.run_coroutine_threadsafe(serve(), loop)
        assert ready.wait(PATIENCE_SECONDS)
        try:
            yield there_and_place[0]
        finally:
            loop.call_soon_threadsafe(done.set)
            serving.result(PATIENCE_SECONDS)


def walked(settings: RelaySettings) -> tuple[str, str]:
    hops = Hops()
    check(settings, hops)
    return next((hop.state, hop.detail) for hop in hops.seen if hop.name == "doors are reached")


def test_the_check_reaches_the_api_through_the_proxy_or_says_why_not(tmp_path: Path) -> None:
    with fenced_api(tmp_path) as (there, place):
        told = partial(
            bus_settings,
            RELAY_DESTINATION="https",
            api_url=f"https://{place}/api/v1",
            api_token="t",
            ca_file=str(there.ca_file),
        )
        well, refused = walked(told(proxy=there.address())), walked(told(proxy=there.address("us:wrong")))
    by = f"through the proxy 127.0.0.1:{there.proxy.port}"
    assert well == ("ok", f"API: {place} {by}, TLSv1.3, signed by Hospital CA.")
    assert (refused[0], "wants a name and a password" in refused[1]) == ("failed", True)
    assert "wrong" not in json.dumps(refused)


def test_the_check_says_that_plain_amqp_goes_past_the_proxy() -> None:
    settings = bus_settings(
        AZURE_SERVICEBUS_TRANSPORT="amqp",
        AZURE_SERVICEBUS_CONNECTION_STRING="Endpoint=sb://bus.invalid/;SharedAccessKeyName=n;SharedAccessKey=a2V5",
        proxy="http://127.0.0.1:1",
    )
    state, detail = walked(settings)
    assert (state, detail.startswith("Service Bus: bus.invalid:5671 takes no connection")) == ("failed", True)
    assert "set AZURE_SERVICEBUS_TRANSPORT=websocket" in detail
