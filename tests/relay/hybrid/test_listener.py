"""The listener and the sender against the stand-in of the service, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from gateway.errors import CloudError
from relay.hybrid.exchange import LinkLimits
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.liveness import Lifetimes
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender, SelfEcho
from relay.hybrid.tokens import SasTokens
from simulator.azure.hybrid_service import HybridService
from simulator.site import free_port
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, Site, echo, namespace, running, site
from tests.tools.waiting import PATIENCE_SECONDS, until

ECHO = {"action_type": "echo", "text": "é" * 100_000}  # long enough to come in several frames


async def speak(to: Site, payload: object = ECHO) -> object:
    return json.loads(await to.sender.exchange(json.dumps(payload)))


# --- an exchange ------------------------------------------------------------------------------------------------------


def test_an_action_comes_in_and_its_answer_goes_back() -> None:
    async def run() -> None:
        async with site() as here:
            assert await speak(here) == {"status": "echo", "payload": ECHO}

    asyncio.run(run())


def test_the_link_is_proven_by_the_gateways_own_echo() -> None:
    async def run() -> None:
        async with site() as here:
            await until(lambda: here.listener.state.last_proven is not None)
            state = here.listener.state
            assert (state.connections, state.replaced, state.last_error) == (1, 0, "")
            assert state.listener_ids == (here.connection.listeners[0].ident,)

    asyncio.run(run())


def test_many_exchanges_run_side_by_side() -> None:
    arrived = 0

    async def all_at_once(text: str) -> str:
        nonlocal arrived
        arrived += 1
        while arrived < 10:
            await asyncio.sleep(0.01)
        return text

    async def run() -> None:
        async with site(on_message=all_at_once) as here:
            answers = await asyncio.gather(*(speak(here, n) for n in range(10)))
            assert answers == list(range(10))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("message", "limits", "code"),
    [
        (b"binary", PATIENT, "invalid"),
        ("raise", PATIENT, "internal"),
        ("sleep", replace(PATIENT, answer=0.1), "timeout"),
        (None, replace(PATIENT, first_message=0.1), "timeout"),
    ],
)
def test_a_broken_exchange_is_answered_with_an_error(
    message: str | bytes | None, limits: LinkLimits, code: str
) -> None:
    async def trouble(text: str) -> str:
        if text == "raise":
            raise KeyError("Doe^Jane")
        await asyncio.sleep(PATIENCE_SECONDS)
        return ""

    async def run() -> None:
        async with site(on_message=trouble, limits=limits) as here:
            answer = await exchange(here, message)
            assert (answer["status"], answer["code"]) == ("error", code)
            assert "Doe" not in answer["message"]

    asyncio.run(run())


async def exchange(here: Site, message: str | bytes | None) -> dict[str, str]:
    """Connect as a sender, send `message` or nothing, and read the answer."""
    at = endpoint(here.service.namespace.base, "actions")
    headers = {"ServiceBusAuthorization": (await TOKENS.token(at.audience)).text}
    async with aiohttp.ClientSession() as http, http.ws_connect(at.connect_url(), headers=headers) as ws:
        if isinstance(message, str):
            await ws.send_str(message)
        elif message is not None:
            await ws.send_bytes(message)
        answer: dict[str, str] = json.loads((await ws.receive(timeout=PATIENCE_SECONDS)).data)
        return answer


def test_a_sender_that_says_nothing_keeps_nobody_waiting() -> None:
    async def run() -> None:
        async with site(limits=replace(PATIENT, first_message=3.0)) as here:
            silent = asyncio.create_task(exchange(here, None))
            await until(lambda: here.connection.counts["bridged"] >= 1)
            assert await speak(here, 1) == {"status": "echo", "payload": 1}
            assert (await silent)["code"] == "timeout"

    asyncio.run(run())


def test_more_exchanges_than_allowed_are_rejected_at_once() -> None:
    release = asyncio.Event()

    async def hold(text: str) -> str:
        await release.wait()
        return text

    async def run() -> None:
        async with site(on_message=hold, limits=replace(PATIENT, sessions=2), echo_timeout=PATIENCE_SECONDS) as here:
            await until(lambda: here.connection.counts["bridged"] == 1)  # the gateway's own echo holds one
            held = asyncio.create_task(speak(here, 1))
            await until(lambda: here.connection.counts["bridged"] == 2)
            with pytest.raises(CloudError, match="too busy"):
                await speak(here)
            release.set()
            assert await held == 1

    asyncio.run(run())


def test_an_address_that_comes_twice_is_used_once() -> None:
    async def run() -> None:
        async with site() as here:
            here.connection.faults.duplicate_accept = True
            assert await speak(here, 1) == {"status": "echo", "payload": 1}
            await until(lambda: here.listener.state.last_error_code == "not_allowed")

    asyncio.run(run())


def test_a_refused_rendezvous_is_reported_and_costs_nothing_else() -> None:
    async def run() -> None:
        async with site(rendezvous_timeout=2.0) as here:
            await until(lambda: here.listener.state.last_proven is not None)
            here.connection.faults.refuse_rendezvous.append((500, "internal"))
            with pytest.raises(CloudError, match="did not answer in time"):
                await speak(here, 1)
            assert here.listener.state.last_error_code == "service_trouble"
            assert await speak(here, 1) == {"status": "echo", "payload": 1}

    asyncio.run(run())


def test_garbage_on_the_control_channel_is_reported_and_skipped() -> None:
    async def run() -> None:
        async with site() as here:
            control = here.connection.listeners[0].ws
            for garbage in ("", "null", "[[", '{"accept": 1}', '{"accept": {"address": "ws://:0/", "id": "1"}}'):
                await control.send_str(garbage)
            await control.send_str('{"accept": {"address": "ws://127.0.0.1:99999/", "id": "1"}}')
            await control.send_str('{"request": {"address": "ws://127.0.0.1:1/"}}')
            await control.send_bytes(b"\xff")
            assert await speak(here, 1) == {"status": "echo", "payload": 1}
            assert (here.listener.state.last_error != "", here.listener.state.connections) == (True, 1)

    asyncio.run(run())


# --- tokens and refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "path", "code"),
    [
        (SasTokens("site", "another key"), "actions", "token_refused"),
        (SasTokens("nobody", "the key"), "actions", "token_refused"),
        (SasTokens("site", "the key", lifetime=-10), "actions", "token_refused"),
        (SasTokens("deaf", "k"), "actions", "token_refused"),
        (TOKENS, "unknown", "no_such_entity"),
    ],
)
def test_a_refused_listener_says_why_and_goes_on_trying(tokens: SasTokens, path: str, code: str) -> None:
    async def run() -> None:
        async with namespace() as service:
            listener = HybridListener(
                endpoint(service.namespace.base, path),
                tokens,
                on_message=echo,
                limits=LinkLimits(listeners=1, delays=(0, 0.05)),
            )
            async with running(listener):
                await until(lambda: listener.state.last_error_code == code)
                assert listener.state.connected_since is None

    asyncio.run(run())


def test_a_listener_gets_in_once_the_service_lets_it() -> None:
    async def run() -> None:
        async with namespace() as service:
            connection = service.namespace.connections["actions"]
            connection.faults.refuse_listen = [(404, "no"), (401, "no"), (429, "no"), (503, "no")]
            at = endpoint(service.namespace.base, "actions")
            listener = HybridListener(at, TOKENS, on_message=echo, limits=LinkLimits(listeners=1, delays=(0, 0.01)))
            async with running(listener):
                await until(lambda: listener.state.connected_since is not None)
                assert connection.faults.refuse_listen == []

    asyncio.run(run())


def test_a_service_that_is_not_there_is_named_unreachable() -> None:
    async def run() -> None:
        at = endpoint(f"ws://127.0.0.1:{free_port()}", "actions")
        listener = HybridListener(at, TOKENS, on_message=echo, limits=LinkLimits(listeners=1, delays=(0, 0.05)))
        async with running(listener):
            await until(lambda: listener.state.last_error_code == "unreachable")
        sender = HybridSender(at, TOKENS)
        with pytest.raises(CloudError, match="cannot be reached"):
            await sender.exchange("{}")
        await sender.close()

    asyncio.run(run())


def test_the_token_is_renewed_on_the_open_channel() -> None:
    async def run() -> None:
        async with site(tokens=SasTokens("site", "the key", lifetime=3)) as here:
            await until(lambda: here.connection.counts["renew"] >= 2)
            assert (here.connection.counts["expired"], here.listener.state.connections) == (0, 1)

    asyncio.run(run())


# --- a link that breaks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("close_code", "reason", "code"),
    [
        (1000, "", "closed"),
        (1001, "", "gone"),
        (1008, "bad token", "token_refused"),
        (1011, "", "service_trouble"),
        (1011, "ExpiredToken: The token is expired.", "token_expired"),
    ],
)
def test_a_closed_channel_is_opened_again(close_code: int, reason: str, code: str) -> None:
    async def run() -> None:
        async with site() as here:
            await here.service.close("actions", close_code, reason=reason)
            await until(lambda: here.listener.state.connections == 2)
            assert here.listener.state.last_error_code == code
            assert await speak(here, 1) == {"status": "echo", "payload": 1}

    asyncio.run(run())


def test_a_killed_channel_is_opened_again() -> None:
    async def run() -> None:
        async with site() as here:
            for count in range(2, 5):
                here.service.kill("actions")
                await until(lambda count=count: here.listener.state.connections == count)  # type: ignore[misc]
            assert here.listener.state.last_error_code == "cut"
            assert await speak(here, 1) == {"status": "echo", "payload": 1}

    asyncio.run(run())


def test_an_exchange_under_way_outlives_the_channel() -> None:
    release = asyncio.Event()

    async def hold(text: str) -> str:
        await release.wait()
        return text

    async def run() -> None:
        async with site(on_message=hold) as here:
            held = asyncio.create_task(speak(here, 1))
            await until(lambda: here.connection.counts["bridged"] >= 2)  # the echo and this
            here.service.kill("actions")
            await until(lambda: here.listener.state.connections == 2)
            release.set()
            assert await held == 1

    asyncio.run(run())


def test_a_half_open_channel_is_noticed_by_its_pings_and_opened_again() -> None:
    async def run() -> None:
        async with site(limits=replace(PATIENT, heartbeat=1.5)) as here:
            ghost = here.connection.listeners[0]
            here.service.freeze("actions")
            await until(lambda: here.listener.state.connections == 2)
            assert here.listener.state.last_error_code == "silent"
            here.connection.listeners.remove(ghost)  # the service would go on offering it senders for a while
            assert await speak(here, 1) == {"status": "echo", "payload": 1}
            here.connection.listeners.append(ghost)

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["mute", "unlist"])
def test_a_channel_that_answers_pings_but_is_given_nothing_is_replaced(fault: str) -> None:
    """And the second is open before the first is closed: at one moment the service sees both."""

    async def run() -> None:
        limits = replace(PATIENT, heartbeat=1.5, proof_every=0.2, lifetimes=Lifetimes(deaf_after=3))
        async with site(limits=limits, rendezvous_timeout=1.0, echo_timeout=1.5) as here:
            await until(lambda: here.listener.state.last_proven is not None)
            broken_since = here.listener.state.last_proven
            first = here.connection.listeners[0]
            getattr(here.service, fault)("actions")
            await until(lambda: here.listener.state.last_proven != broken_since)
            assert first not in here.connection.listeners
            assert here.connection.counts["most listeners"] == 2
            assert (here.listener.state.connections, here.listener.state.replaced) == (2, 1)

    asyncio.run(run())


def test_a_link_with_traffic_is_left_alone() -> None:
    async def run() -> None:
        async with site(limits=replace(PATIENT, proof_every=0.1, lifetimes=Lifetimes(deaf_after=2.0))) as here:
            await asyncio.sleep(3)
            assert (here.listener.state.connections, here.listener.state.replaced) == (1, 0)

    asyncio.run(run())


def test_a_key_that_may_not_send_is_said_to_be_unable_to_prove() -> None:
    async def run() -> None:
        async with namespace() as service:
            service.namespace.connections["actions"].keys["ear"] = replace(
                service.namespace.connections["actions"].keys["site"], rights=frozenset({"Listen"})
            )
            at, tokens = endpoint(service.namespace.base, "actions"), SasTokens("ear", "the key")
            sender = HybridSender(at, tokens)
            listener = HybridListener(at, tokens, on_message=echo, prove=SelfEcho(sender), limits=PATIENT)
            async with running(listener):
                await until(lambda: listener.state.last_error_code == "not_proven")
                assert "rights" in listener.state.last_error
            await sender.close()

    asyncio.run(run())


# --- HTTP mode --------------------------------------------------------------------------------------------------------


async def mirror(request: HttpRequest) -> HttpAnswer:
    """Answer with what came, and with as many bytes more as the target's query says."""
    more = int(request.target.partition("?")[2] or 0)
    heading = f"{request.method} {request.target} {request.headers.get('X-Test')}\n".encode()
    return HttpAnswer(201, headers={"X-Back": "yes"}, body=heading + await request.content() + b"z" * more)


async def call(service: HybridService, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    url = service.namespace.base.replace("ws://", "http://") + target
    token = await TOKENS.token(endpoint(service.namespace.base, "actions").audience)
    headers = {"ServiceBusAuthorization": token.text, "X-Test": "1"}
    async with aiohttp.ClientSession() as http, http.request(method, url, data=body, headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("more", [0, 200_000])
@pytest.mark.parametrize(("size", "kind"), [(0, "http inline"), (1000, "http inline"), (5_000_000, "http rendezvous")])
def test_an_http_request_comes_in_and_its_response_goes_back(size: int, kind: str, more: int) -> None:
    async def run() -> None:
        async with site(on_request=mirror) as here:
            status, body = await call(here.service, "POST", f"/actions/qido?{more}", b"b" * size)
            assert (status, here.connection.counts[kind]) == (201, 1)
            assert body == f"POST /actions/qido?{more} 1\n".encode() + b"b" * size + b"z" * more

    asyncio.run(run())


def test_an_answer_in_pieces_goes_out_as_one_body() -> None:
    async def stream(_request: HttpRequest) -> HttpAnswer:
        async def body() -> AsyncIterator[bytes]:
            for number in range(20):
                yield bytes([number]) * 100_000

        return HttpAnswer(200, body=body())

    async def run() -> None:
        async with site(on_request=stream) as here:
            expected = b"".join(bytes([number]) * 100_000 for number in range(20))
            assert await call(here.service, "GET", "/actions/wado") == (200, expected)

    asyncio.run(run())


def test_http_requests_are_refused_where_they_are_not_offered() -> None:
    async def run() -> None:
        async with site() as here:
            assert (await call(here.service, "GET", "/actions"))[0] == 501

    asyncio.run(run())


def test_an_http_request_that_fails_or_takes_too_long_is_answered() -> None:
    async def trouble(request: HttpRequest) -> HttpAnswer:
        if request.target.endswith("slow"):
            await asyncio.sleep(PATIENCE_SECONDS)
        raise ValueError("Doe^Jane")

    async def run() -> None:
        async with site(on_request=trouble, limits=replace(PATIENT, http_answer=2.0)) as here:
            failed = await call(here.service, "GET", "/actions/broken")
            assert (failed[0], b"Doe" in failed[1]) == (500, False)
            assert (await call(here.service, "GET", "/actions/slow"))[0] == 503

    asyncio.run(run())


def test_more_http_requests_than_allowed_are_told_to_come_back() -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def hold(_request: HttpRequest) -> HttpAnswer:
        begun.set()
        await release.wait()
        return HttpAnswer(204)

    async def run() -> None:
        async with site(on_request=hold, limits=replace(PATIENT, sessions=1)) as here:
            await until(lambda: here.listener.state.last_proven is not None)
            held = asyncio.create_task(call(here.service, "GET", "/actions"))
            await begun.wait()
            assert here.connection.counts["http inline"] == 1
            assert (await call(here.service, "GET", "/actions"))[0] == 503
            assert (await call(here.service, "POST", "/actions", b"b" * 100_000))[0] == 503
            release.set()
            assert (await held)[0] == 204

    asyncio.run(run())
