"""The stand-in of Service Bus, seen by the official client for Python: what that finds, the relay will find."""

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
)

from simulator.azure.servicebus_service import Bus
from tests.tools.waiting import PATIENCE_SECONDS, until


@asynccontextmanager
async def client(bus: Bus, **options: str) -> AsyncIterator[ServiceBusClient]:
    text = bus.connection_string(**options)
    made = ServiceBusClient.from_connection_string(
        text, transport_type=TransportType.Amqp, retry_total=0, try_timeout=PATIENCE_SECONDS
    )
    try:
        yield made
    finally:
        await made.close()


def furnish(bus: Bus) -> None:
    bus.add_queue("plain")
    bus.add_queue("exact", duplicate_window=600)
    bus.add_queue("short", lock_seconds=2.0, max_delivery=2)
    bus.add_queue("sessions", sessions=True)
    bus.add_topic("topic", "one", "other")


async def send(bus: Bus, entity: str, *messages: ServiceBusMessage) -> None:
    async with client(bus) as made, made.get_queue_sender(entity) as sender:
        for message in messages:
            await sender.send_messages(message)


async def taken(receiver: ServiceBusReceiver, count: int) -> list[str]:
    found = []
    async for message in receiver:
        found.append(str(message))
        await receiver.complete_message(message)
        if len(found) == count:
            break
    return found


async def messages_come_in_order_and_are_gone_when_completed(bus: Bus) -> None:
    await send(bus, "plain", *(ServiceBusMessage(f"m{number}") for number in range(20)))
    async with client(bus) as made, made.get_queue_receiver("plain") as receiver:
        assert await taken(receiver, 20) == [f"m{number}" for number in range(20)]


async def a_repeat_within_the_window_is_taken_once(bus: Bus) -> None:
    await send(bus, "exact", *(ServiceBusMessage("x", message_id=f"id{number % 2}") for number in range(6)))
    queue = bus.find("exact", sending=False)
    assert (len(queue.ready), queue.duplicates) == (2, 4)  # type: ignore[union-attr]


async def what_is_given_back_too_often_is_dead_with_the_reason(bus: Bus) -> None:
    await send(bus, "short", ServiceBusMessage("poison"))
    async with client(bus) as made:
        async with made.get_queue_receiver("short") as receiver:
            [message] = await receiver.receive_messages(max_wait_time=PATIENCE_SECONDS)
            await receiver.abandon_message(message)
            [message] = await receiver.receive_messages(max_wait_time=PATIENCE_SECONDS)  # and its lock expires
            assert message.delivery_count == 1
            short = bus.find("short", sending=False)
            await until(lambda: short.dead.ready, "the dead letter")  # type: ignore[union-attr]
        async with made.get_queue_receiver("short/$DeadLetterQueue") as receiver:
            [dead] = await receiver.receive_messages(max_wait_time=PATIENCE_SECONDS)
            assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"


async def a_consumer_may_bury_a_message_itself(bus: Bus) -> None:
    await send(bus, "plain", ServiceBusMessage("odd"))
    async with client(bus) as made, made.get_queue_receiver("plain") as receiver:
        [message] = await receiver.receive_messages(max_wait_time=PATIENCE_SECONDS)
        await receiver.dead_letter_message(message, reason="odd", error_description="it is odd")
        async with made.get_queue_receiver("plain/$DeadLetterQueue") as dead:
            [buried] = await dead.receive_messages(max_wait_time=PATIENCE_SECONDS)
            assert (buried.dead_letter_reason, buried.dead_letter_error_description) == ("odd", "it is odd")


async def a_session_is_read_by_one_at_a_time_and_in_order(bus: Bus) -> None:
    names = ["a1", "b1", "a2", "b2", "a3"]
    await send(bus, "sessions", *(ServiceBusMessage(name, session_id=name[0]) for name in names))
    async with client(bus) as made:
        async with made.get_queue_receiver("sessions", session_id="a") as receiver:
            assert await taken(receiver, 3) == ["a1", "a2", "a3"]
        async with made.get_queue_receiver("sessions", session_id=NEXT_AVAILABLE_SESSION) as receiver:
            assert receiver.session.session_id == "b"
            assert await taken(receiver, 2) == ["b1", "b2"]
        with pytest.raises(OperationTimeoutError):
            async with made.get_queue_receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1):
                pass


async def a_topic_copies_to_each_subscription(bus: Bus) -> None:
    await send(bus, "topic", ServiceBusMessage("news"))
    async with client(bus) as made:
        for name in ("one", "other"):
            async with made.get_subscription_receiver("topic", name) as receiver:
                assert await taken(receiver, 1) == ["news"]


async def a_batch_is_taken_apart_and_a_message_that_is_too_large_is_refused(bus: Bus) -> None:
    async with client(bus) as made, made.get_queue_sender("plain") as sender:
        await sender.send_messages([ServiceBusMessage("one"), ServiceBusMessage("b" * 200_000)])
        with pytest.raises(MessageSizeExceededError):
            await sender.send_messages(ServiceBusMessage("x" * 300_000))
    async with client(bus) as made, made.get_queue_receiver("plain") as receiver:
        assert [len(text) for text in await taken(receiver, 2)] == [3, 200_000]


async def a_wrong_key_and_an_unknown_queue_are_refused_in_the_clients_own_words(bus: Bus) -> None:
    async with client(bus, key="d3Jvbmc=") as made:
        with pytest.raises(ServiceBusAuthenticationError):
            async with made.get_queue_sender("plain"):
                pass
    async with client(bus) as made:
        with pytest.raises(MessagingEntityNotFoundError):
            async with made.get_queue_sender("nothing"):
                pass


SCENARIOS = (
    messages_come_in_order_and_are_gone_when_completed,
    a_repeat_within_the_window_is_taken_once,
    what_is_given_back_too_often_is_dead_with_the_reason,
    a_consumer_may_bury_a_message_itself,
    a_session_is_read_by_one_at_a_time_and_in_order,
    a_topic_copies_to_each_subscription,
    a_batch_is_taken_apart_and_a_message_that_is_too_large_is_refused,
    a_wrong_key_and_an_unknown_queue_are_refused_in_the_clients_own_words,
)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, object]:
    """What became of every scenario. They run side by side, because each client takes a second to close."""

    async def one(scenario: Callable[[Bus], Awaitable[None]]) -> None:
        async with Bus(session_wait=0.5) as bus:
            furnish(bus)
            await scenario(bus)

    async def all_of_them() -> list[object]:
        return list(await asyncio.gather(*map(one, SCENARIOS), return_exceptions=True))

    return dict(zip((each.__name__ for each in SCENARIOS), asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("scenario", [each.__name__ for each in SCENARIOS])
def test_the_official_client_sees_that(scenario: str, outcomes: dict[str, object]) -> None:
    outcome = outcomes[scenario]
    if isinstance(outcome, BaseException):
        raise outcome


NODE_MODULES = Path(os.environ.get("SERVICE_BUS_NODE_MODULES", "nowhere"))
"""A folder in which `npm install @azure/service-bus` was run, and in it node_modules."""


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.skipif(not (NODE_MODULES / "@azure/service-bus").exists(), reason="SERVICE_BUS_NODE_MODULES is not set")
def test_the_official_client_for_javascript_sees_the_same() -> None:
    async def scenario() -> bytes:
        async with Bus() as bus:
            furnish(bus)
            script = Path(__file__).with_name("servicebus_client.cjs")
            node = await asyncio.create_subprocess_exec(
                "node", script, bus.connection_string(), stdout=PIPE, env={**os.environ, "NODE_PATH": str(NODE_MODULES)}
            )
            out, _ = await asyncio.wait_for(node.communicate(), 60)
            return out

    assert json.loads(asyncio.run(scenario())) == {
        "plain": [*(f"m{number}" for number in range(20)), "batch-1", "batch-2"],
        "exact": ["e0", "e1"],
        "session": ["a1", "a2"],
        "deliveries": 1,
        "dead": "odd",
        "topic": ["news"],
    }
