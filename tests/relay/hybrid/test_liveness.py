"""When a channel is replaced that nobody complained about: the rule, and the rule at work on real sockets."""

import asyncio
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.hybrid.exchange import LinkLimits
from relay.hybrid.listener import HybridListener
from relay.hybrid.liveness import Due, Lifetimes, due
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender, SelfEcho
from relay.hybrid.tokens import SasTokens
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, echo, namespace, running, site
from tests.tools.waiting import until

LIVES = Lifetimes(deaf_after=75, quiet_after=100, old_after=1000)
TWO = replace(PATIENT, listeners=2, stagger=0.05)


@pytest.mark.parametrize(
    ("opened_at", "heard_at", "echoes", "expected"),
    [
        (0, 0, True, Due(75, "deaf")),
        (0, 500, True, Due(575, "deaf")),
        (0, 0, False, Due(100, "quiet")),
        (0, 950, True, Due(1000, "old")),
        (0, 950, False, Due(1000, "old")),
        (-500, 0, True, Due(75, "deaf")),
    ],
)
def test_a_channel_is_due(opened_at: float, heard_at: float, echoes: bool, expected: Due) -> None:
    assert due(opened_at=opened_at, heard_at=heard_at, echoes=echoes, lifetimes=LIVES) == expected


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_no_channel_is_trusted_for_two_minutes_after_it_last_heard_something(
    opened_at: float, heard_at: float, echoes: bool
) -> None:
    assert due(opened_at=opened_at, heard_at=heard_at, echoes=echoes, lifetimes=Lifetimes()).at <= heard_at + 120


def listening_only(base: str, limits: LinkLimits) -> tuple[HybridListener, HybridSender]:
    at, tokens = endpoint(base, "actions"), SasTokens("ear", "the key")
    sender = HybridSender(at, tokens)
    return HybridListener(at, tokens, on_message=echo, prove=SelfEcho(sender), limits=limits), sender


async def test_a_key_that_may_only_listen_is_found_out_and_its_quiet_channel_renewed_without_alarm() -> None:
    async with namespace() as service:
        connection = service.namespace.connections["actions"]
        connection.keys["ear"] = replace(connection.keys["site"], rights=frozenset({"Listen"}))
        limits = replace(PATIENT, proof_every=0.1, lifetimes=Lifetimes(deaf_after=60, quiet_after=0.3))
        listener, sender = listening_only(service.namespace.base, limits)
        async with running(listener):
            await until(lambda: listener.state.renewed >= 2)
            state = listener.state
            assert (state.echoes, state.replaced, state.last_proven) == (False, 0, None)
            assert (state.last_error_code, "rights" in state.last_error) == ("not_proven", True)
            assert connection.counts["most listeners"] == 2
        await sender.close()


async def test_no_message_is_lost_while_channels_are_replaced_again_and_again() -> None:
    limits = replace(TWO, lifetimes=Lifetimes(old_after=0.1))
    async with site(limits=limits, rendezvous_timeout=3) as here:
        told = 0
        while here.listener.state.renewed < 6 or told < 150:
            answer = json.loads(await here.sender.exchange(json.dumps(told)))
            assert answer == {"status": "echo", "payload": told}
            told += 1


async def test_no_http_request_under_way_is_lost_when_its_channel_is_replaced() -> None:
    from relay.hybrid.http import HttpAnswer, HttpRequest
    from tests.relay.hybrid.test_listener import call

    async def slow(_request: HttpRequest) -> HttpAnswer:
        await until(lambda: here.listener.state.renewed > 1)
        return HttpAnswer(200, body=b"whole")

    limits = replace(PATIENT, lifetimes=Lifetimes(old_after=0.2))
    async with site(on_request=slow, limits=limits) as here:
        answers = await asyncio.gather(*(call(here.service, "GET", "/actions/x") for _ in range(10)))
        assert answers == [(200, b"whole")] * 10


@pytest.mark.parametrize("pins", [True, False])
@pytest.mark.parametrize("fault", ["mute", "unlist", "freeze"])
async def test_one_zombie_of_two_is_found_and_replaced_while_the_other_serves(fault: str, pins: bool) -> None:
    limits = replace(TWO, heartbeat=1.5, proof_every=0.1, lifetimes=Lifetimes(deaf_after=3))
    async with site(limits=limits, rendezvous_timeout=1.0, echo_timeout=1.5) as here:
        here.connection.pins = pins
        await until(lambda: len(here.connection.listeners) == 2)
        ghost = here.connection.listeners[0]
        getattr(here.service, fault)("actions", ghost.ident)
        await until(lambda: ghost.ident not in here.listener.state.listener_ids)
        if fault == "freeze":  # the service goes on offering it senders for a while
            here.connection.listeners.remove(ghost)
        await until(lambda: len(here.listener.state.listener_ids) == 2)
        assert json.loads(await here.sender.exchange("1")) == {"status": "echo", "payload": 1}
        if fault == "freeze":
            here.connection.listeners.append(ghost)


async def test_a_site_listens_on_two_channels_and_each_is_proven() -> None:
    async with site(limits=replace(TWO, proof_every=0.1, lifetimes=Lifetimes(deaf_after=2.0))) as here:
        await until(lambda: len(here.listener.state.listener_ids) == 2)
        first = here.listener.state.listener_ids
        await asyncio.sleep(3)
        assert (here.listener.state.listener_ids, here.listener.state.replaced) == (first, 0)


async def test_the_limit_of_exchanges_is_one_for_both_channels() -> None:
    release = asyncio.Event()

    async def hold(text: str) -> str:
        await release.wait()
        return text

    async with namespace() as service:
        at = endpoint(service.namespace.base, "actions")
        sender = HybridSender(at, TOKENS, timeout=5)
        listener = HybridListener(at, TOKENS, on_message=hold, limits=replace(TWO, sessions=4))
        async with running(listener):
            await until(lambda: len(listener.state.listener_ids) == 2)
            held = [asyncio.create_task(sender.exchange("1")) for _ in range(6)]
            done = await asyncio.wait(held, return_when=asyncio.FIRST_EXCEPTION)
            release.set()
            outcomes = await asyncio.gather(*held, return_exceptions=True)
            assert (len(done[0]) > 0, outcomes.count("1"), listener.exchanges.refused) == (True, 4, 2)
        await sender.close()
