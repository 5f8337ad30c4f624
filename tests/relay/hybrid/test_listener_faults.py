"""The table of faults of the link: each is named by its word, and the link is back by itself once it is over."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import Token, endpoint, sign
from relay.hybrid.sender import HybridSender
from relay.hybrid.tokens import SasTokens
from simulator.azure.hybrid_tokens import Key
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, Site, echo, namespace, running, site
from tests.tools.waiting import until

QUICK = replace(PATIENT, delays=(0, 0.02, 0.05), heartbeat=0.3, first_message=0.3)


async def answers(here: Site) -> bool:
    return bool(json.loads(await here.sender.exchange("7")) == {"status": "echo", "payload": 7})


def refusing(status: int) -> Callable[[Site], Awaitable[None]]:
    """The line is reset, and the service does not let the listener in again at first."""

    async def fault(here: Site) -> None:
        here.connection.faults.refuse_listen = [(status, "no")] * 2
        here.service.kill("actions")

    return fault


def closing(code: int, reason: str = "") -> Callable[[Site], Awaitable[None]]:
    async def fault(here: Site) -> None:
        await here.service.close("actions", code, reason=reason)

    return fault


async def deleted(here: Site) -> None:
    """The hybrid connection is deleted, and made again a moment later."""
    here.connection.faults.refuse_listen = [(404, "Endpoint does not exist.")] * 3
    await here.service.close("actions", 1001)


async def half_open(here: Site) -> None:
    [ghost] = here.connection.listeners
    here.service.freeze("actions")
    await until(lambda: here.listener.state.connections == 2)
    ghost.unlisted = True


async def unplugged(here: Site) -> None:
    """The service is gone for a moment, and there again at the same address."""
    port = int(here.service.namespace.base.rpartition(":")[2])
    await here.service.stop()
    await until(lambda: here.listener.state.last_error_code == "unreachable")
    await here.service.start(port=port)


async def rendezvous_refused(here: Site) -> None:
    here.connection.faults.refuse_rendezvous.append((410, "Gone"))
    await until(lambda: here.listener.state.last_proven is not None)


FAULTS: list[tuple[str, Callable[[Site], Awaitable[None]], str]] = [
    *((f"refused {status}", refusing(status), code) for status, code in {
        400: "address_refused", 401: "token_refused", 403: "not_allowed", 404: "no_such_entity", 408: "no_answer",
        410: "gone", 418: "refused", 429: "throttled", 500: "service_trouble", 502: "no_answer", 503: "busy",
        504: "no_answer"}.items()),
    ("closed 1000", closing(1000), "closed"),
    ("closed 1001", closing(1001), "gone"),
    ("closed 1008", closing(1008, "bad token"), "token_refused"),
    ("closed 1011", closing(1011), "service_trouble"),
    ("closed 1011 for its token", closing(1011, "ExpiredToken: expired"), "token_expired"),
    ("closed 1008 for its token", closing(1008, "ExpiredToken: expired"), "token_expired"),
    ("deleted, and made again", deleted, "no_such_entity"),
    ("half open", half_open, "silent"),
    ("unplugged", unplugged, "unreachable"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "code"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
async def test_a_fault_is_named_and_gone_when_its_cause_is(fault: Callable[[Site], Awaitable[None]], code: str) -> None:
    async with site(limits=QUICK, proves=False) as here:
        await fault(here)
        await until(lambda: here.listener.state.last_error_code == code)
        await until(lambda: bool(here.listener.state.listener_ids) and here.listener.state.connections > 1)
        assert await answers(here)


@pytest.mark.parametrize(
    "fault", [{"accept_delay": 0.5}, {"duplicate_accept": True}, {"ping": "ignore"}, {"ping": "disconnect"}]
)
async def test_a_slow_a_stuttering_and_a_service_that_takes_no_pings_are_put_up_with(fault: dict[str, object]) -> None:
    async with site(limits=replace(QUICK, heartbeat=None if "ping" in fault else 1.5), proves=False) as here:
        for name, value in fault.items():
            setattr(here.connection.faults, name, value)
        assert await answers(here)
        assert here.listener.state.connections == 1


# --- tokens -----------------------------------------------------------------------------------------------------------


class BadSecond:
    """Tokens that live for three seconds, of which the second is signed with another key."""

    given = 0

    async def token(self, audience: str) -> Token:
        self.given += 1
        key = "another key" if self.given == 2 else "the key"
        return sign(audience, "site", key, expires_at=int(time.time() + 3))

    async def close(self) -> None:
        """Nothing is held."""


async def test_a_renewed_token_that_is_refused_costs_a_new_channel_at_once() -> None:
    async with site(limits=QUICK, tokens=BadSecond(), proves=False) as here:
        await until(lambda: here.listener.state.connections == 2)
        assert here.listener.state.last_error_code == "token_refused"
        assert (here.connection.counts["renew refused"], here.connection.counts["expired"]) == (1, 0)


@pytest.mark.parametrize("code", [1008, 1011])
async def test_a_token_that_ends_although_it_was_to_be_renewed_costs_a_new_channel_at_once(code: int) -> None:
    long = replace(TOKENS, lifetime=3600)
    async with namespace(expiry_code=code) as service:
        at = endpoint(service.namespace.base, "actions")
        listener = HybridListener(at, long, on_message=echo, limits=QUICK)
        async with running(listener):
            await until(lambda: listener.state.connected_since is not None)
            [registration] = service.namespace.connections["actions"].listeners
            registration.expires_at = time.time()  # the service's clock jumps
            registration.renewed.set()
            await until(lambda: listener.state.connections == 2)
            assert listener.state.last_error_code == "token_expired"


async def test_a_key_that_is_exchanged_on_both_sides_is_taken_without_a_lost_message() -> None:
    """The old key listens on until its token ends, and its successor is already there then."""
    async with namespace() as service:
        connection = service.namespace.connections["actions"]
        at = endpoint(service.namespace.base, "actions")
        old = HybridListener(at, TOKENS, on_message=echo, limits=QUICK)
        sender = HybridSender(at, SasTokens("next", "key two"), timeout=5)
        async with running(old):
            await until(lambda: old.state.connected_since is not None)
            del connection.keys["site"]
            connection.keys["next"] = Key("key two")
            assert json.loads(await sender.exchange("7"))["payload"] == 7
        await sender.close()
