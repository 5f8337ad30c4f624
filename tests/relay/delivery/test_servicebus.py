"""Service Bus against the stand-in of it: what arrives there, by queue, topic and session, and with which credentials.

Faults are in `test_faults`. With AZURE_SERVICEBUS_TEST_CONNECTION_STRING and AZURE_SERVICEBUS_TEST_QUEUE in the
environment, the last tests send to the real one; OPERATIONS says how.
"""

import asyncio
import json
import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.servicebus import TransportType
from azure.servicebus.aio import ServiceBusClient

from gateway.errors import CloudError
from relay.delivery.servicebus import ServiceBusDestination, by_connection_string, by_identity, explain
from simulator.azure.servicebus_service import KEY, KEY_NAME, Bus
from simulator.site import free_port
from tests.relay.delivery.told import UID, event, outcome
from tests.tools.certificates import authority, issued
from tests.tools.waiting import PATIENCE_SECONDS

NODE = TransportType.Amqp


@asynccontextmanager
async def opened(bus: Bus, entity: str, *, sessions: bool = False) -> AsyncIterator[ServiceBusDestination]:
    connect = by_connection_string(bus.connection_string(), transport=NODE)
    destination = ServiceBusDestination(connect, entity=entity, sessions=sessions, seconds=10)
    try:
        yield destination
    finally:
        await destination.close()


async def test_an_event_is_one_message_that_says_what_it_is_and_a_repeat_is_known() -> None:
    async with Bus() as bus, opened(bus, "events") as destination:
        queue = bus.add_queue("events", duplicate_window=600)
        assert [await outcome(destination) for _ in range(2)] == ["delivered", "delivered"]
        [message] = queue.ready
        assert json.loads(message.body) == json.loads(event().text)
        assert (message.message_id, message.session_id) == (UID, None)
        assert {name: bytes_as_text(value) for name, value in message.application.items()} == {
            "site": "van-1",
            "sequence": 1,
        }


def bytes_as_text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


async def test_a_queue_with_sessions_gets_one_per_subject() -> None:
    async with Bus() as bus, opened(bus, "events", sessions=True) as destination:
        queue = bus.add_queue("events", sessions=True)
        assert await outcome(destination) == "delivered"
        assert [message.session_id for message in queue.ready] == ["1.2.3"]


async def test_a_queue_that_needs_sessions_says_so_by_failing_until_the_setting_is_right() -> None:
    async with Bus() as bus, opened(bus, "events") as destination:
        bus.add_queue("events", sessions=True)
        assert await outcome(destination) == "tried again"


async def test_a_topic_is_addressed_like_a_queue() -> None:
    async with Bus() as bus, opened(bus, "news") as destination:
        topic = bus.add_topic("news", "one", "other")
        assert await outcome(destination) == "delivered"
        assert [len(queue.ready) for queue in topic.subscriptions] == [1, 1]


async def test_a_queue_that_is_not_there_is_named_and_waited_for() -> None:
    async with Bus() as bus, opened(bus, "events") as destination:
        with pytest.raises(CloudError, match="Service Bus has no queue or topic events") as caught:
            await destination.send(event())
        assert not caught.value.permanent
        bus.add_queue("events")
        assert await outcome(destination) == "delivered"


async def test_fifty_at_once_on_a_client_that_is_not_open_yet_all_arrive() -> None:
    async with Bus() as bus, opened(bus, "events") as destination:
        queue = bus.add_queue("events")
        assert set(await asyncio.gather(*(outcome(destination) for _ in range(50)))) == {"delivered"}
        assert len(queue.ready) == 50


async def test_the_detach_after_ten_idle_minutes_costs_no_event() -> None:
    async with Bus() as bus, opened(bus, "events") as destination:
        queue = bus.add_queue("events", duplicate_window=600)
        assert await outcome(destination) == "delivered"
        bus.detach()
        assert "delivered" in [await outcome(destination, event(action_id=f"{n}")) for n in range(2)]
        assert len(queue.ready) == 1


class Identity:
    """An identity of Entra ID, as the stand-in knows it."""

    scopes: ClassVar[set[str]] = set()

    def __init__(self, token: str) -> None:
        self.token = token

    async def get_token(self, *scopes: str, **_: object) -> AccessToken:
        Identity.scopes |= set(scopes)
        return AccessToken(self.token, int(time.time()) + 3600)

    async def close(self) -> None: ...

    async def __aenter__(self) -> "Identity":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None: ...


async def test_an_identity_with_the_right_may_send_and_another_is_told_what_to_check() -> None:
    async with Bus() as bus:
        queue = bus.add_queue("events")
        bus.identities.add("known")
        became = []
        for token in ("known", "unknown"):
            destination = ServiceBusDestination(
                by_identity(
                    f"127.0.0.1:{bus.port}", transport=NODE, credential=partial(Identity, token), use_tls=False
                ),
                entity="events",
                seconds=3,
            )
            became.append(await outcome(destination))
            await destination.close()
        assert became == ["delivered", "tried again"]
        assert Identity.scopes == {"https://servicebus.azure.net//.default"}, "as the official client asks"
        assert len(queue.ready) == 1


async def test_a_service_bus_that_is_not_there_is_tried_again_in_bounded_time() -> None:
    text = (
        f"Endpoint=sb://127.0.0.1:{free_port()};SharedAccessKeyName=k;SharedAccessKey=a2V5;UseDevelopmentEmulator=true;"
    )
    destination = ServiceBusDestination(by_connection_string(text, transport=NODE), entity="events", seconds=3)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [await outcome(destination) for _ in range(2)] == ["tried again", "tried again"]
    await destination.close()


async def test_it_travels_in_an_encrypted_websocket_as_firewalls_want_it(tmp_path: Path) -> None:
    ca = authority()
    certificate, key = issued("localhost", ca).write(tmp_path, "bus")
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with Bus() as bus:
        queue = bus.add_queue("events")
        app = web.Application()
        app.router.add_get("/$servicebus/websocket", bus.websocket)
        app.router.add_get("/$servicebus/websocket/", bus.websocket)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        connect = partial(websocket_client, runner.addresses[0][1], tmp_path / "ca.pem")
        destination = ServiceBusDestination(connect, entity="events", seconds=10)
        assert await outcome(destination) == "delivered"
        assert len(queue.ready) == 1
        await destination.close()
        await runner.cleanup()


def websocket_client(port: int, ca: Path, seconds: float) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(
        f"Endpoint=sb://localhost/;SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}",
        transport_type=TransportType.AmqpOverWebsocket,
        custom_endpoint_address=f"https://localhost:{port}",
        connection_verify=str(ca),
        try_timeout=seconds,
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "Service Bus did not answer in time."),
        (AttributeError("x"), "Service Bus cannot be used now (AttributeError)."),
    ],
)
def test_what_goes_wrong_is_said_without_its_own_text(error: Exception, words: str) -> None:
    assert explain(error, "events") == words


# --- the real one -----------------------------------------------------------------------------------------------------

REAL = os.environ.get("AZURE_SERVICEBUS_TEST_CONNECTION_STRING", "")
REAL_QUEUE = os.environ.get("AZURE_SERVICEBUS_TEST_QUEUE", "")


@pytest.mark.skipif(not (REAL and REAL_QUEUE), reason="AZURE_SERVICEBUS_TEST_CONNECTION_STRING and _QUEUE are not set")
@pytest.mark.parametrize("transport", [TransportType.Amqp, TransportType.AmqpOverWebsocket])
async def test_the_real_service_bus_takes_an_event_once_however_often_it_is_told(transport: TransportType) -> None:
    one = event(action_id=str(uuid.uuid4()), message_id=str(uuid.uuid4()))
    destination = ServiceBusDestination(by_connection_string(REAL, transport=transport), entity=REAL_QUEUE)
    assert [await outcome(destination, one) for _ in range(3)] == ["delivered"] * 3
    await destination.close()
    found = []
    async with (
        ServiceBusClient.from_connection_string(REAL, transport_type=transport) as client,
        client.get_queue_receiver(REAL_QUEUE, max_wait_time=5) as receiver,
    ):
        async for message in receiver:
            found.append(message.message_id)
            await receiver.complete_message(message)
    assert found.count(one.message_id) == 1
