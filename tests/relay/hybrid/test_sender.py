"""What an event told over a hybrid connection becomes: delivered, tried again, or never."""

import asyncio
import json

import pytest

from relay.delivery.hybrid import HybridDestination
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender
from relay.hybrid.tokens import SasTokens
from simulator.cloud.programme import KEY, KEY_NAME, Cloud
from tests.relay.delivery.told import UID, event, outcome
from tests.relay.hybrid.hybrid_site import TOKENS, site
from tests.tools.waiting import PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"status": "processed"}', "delivered"),
        ('{"status": "created", "new": 1}', "delivered"),
        ('{"status": "updated"}', "delivered"),
        ('{"status": "ok"}', "delivered"),
        ('{"status": "error", "code": "invalid"}', "parked"),
        ('{"status": "error", "code": "unsupported"}', "parked"),
        ('{"status": "error", "code": "conflict"}', "parked"),
        ('{"status": "error", "code": "busy"}', "tried again"),
        ('{"status": "error"}', "tried again"),
        ('{"status": ["processed"]}', "tried again"),
        ('{"status": "exists"}', "tried again"),
        ('"processed"', "tried again"),
        ("processed", "tried again"),
        ("", "tried again"),
    ],
)
def test_only_a_confirmation_delivers_and_only_a_refusal_of_the_content_parks(answer: str, expected: str) -> None:
    async def say(_text: str) -> str:
        return answer

    async def run() -> None:
        async with site(on_message=say) as here:
            assert await outcome(HybridDestination(here.sender)) == expected

    asyncio.run(run())


def test_the_cloud_gets_the_envelope_as_it_is() -> None:
    async def run() -> None:
        async with Cloud() as cloud:
            destination = hybrid_destination(cloud)
            assert await outcome(destination) == "delivered"
            assert cloud.events.received[UID].envelope == json.loads(event().text)
            await destination.close()

    asyncio.run(run())


def hybrid_destination(cloud: Cloud) -> HybridDestination:
    at = endpoint(cloud.addresses.namespace, "events")
    return HybridDestination(HybridSender(at, SasTokens(KEY_NAME, KEY), timeout=5))


def test_an_event_whose_confirmation_got_lost_is_tried_again_and_known_by_its_id() -> None:
    async def run() -> None:
        async with Cloud() as cloud:
            cloud.events.mishaps = ["busy", "lost"]
            destination = hybrid_destination(cloud)
            outcomes = [await outcome(destination) for _ in range(3)]
            assert outcomes == ["tried again", "tried again", "delivered"]
            assert (len(cloud.events.received), cloud.events.arrivals[UID]) == (1, 2)
            await destination.close()

    asyncio.run(run())


@pytest.mark.parametrize("status", [401, 403, 404, 408, 410, 429, 500, 502, 503, 504])
def test_whatever_the_service_refuses_is_tried_again(status: int) -> None:
    async def run() -> None:
        async with site() as here:
            here.connection.faults.unavailable = (status, "no")
            assert await outcome(HybridDestination(here.sender)) == "tried again"

    asyncio.run(run())


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async def never(_text: str) -> str:
        await asyncio.sleep(PATIENCE_SECONDS)
        return ""

    async def run() -> None:
        async with site(on_message=never) as here:
            sender = HybridSender(endpoint(here.service.namespace.base, "actions"), TOKENS, timeout=0.3)
            async with asyncio.timeout(PATIENCE_SECONDS / 2):
                assert await outcome(HybridDestination(sender)) == "tried again"
            await sender.close()

    asyncio.run(run())
