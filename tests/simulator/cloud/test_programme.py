"""The pretend cloud, by its HTTP doors, and as a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import endpoint
from relay.hybrid.tokens import SasTokens
from simulator.cloud.programme import API_TOKEN, KEY, KEY_NAME, Cloud

ENVELOPE = {"message_id": "1.2.3", "message_type": "mpps.completed", "sequence": 1}


@dataclass
class Doors:
    """Asks the doors of a cloud; gives status and JSON."""

    cloud: Cloud
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: object = None, *, token: str = API_TOKEN) -> tuple[int, object]:
        data = body if isinstance(body, aiohttp.FormData) else body if isinstance(body, str) else json.dumps(body)
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.cloud.addresses.control}{path}"
        async with self.http.request(method, url, data=data, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None


@asynccontextmanager
async def doors() -> AsyncIterator[Doors]:
    async with Cloud() as cloud, aiohttp.ClientSession() as http:
        yield Doors(cloud, http)


@asynccontextmanager
async def gateway(cloud: Cloud) -> AsyncIterator[HybridListener]:
    async def answer(text: str) -> str:
        return json.dumps({"status": "created", "length": len(text)})

    at = endpoint(cloud.addresses.namespace, "actions")
    listener = HybridListener(at, SasTokens(KEY_NAME, KEY), on_message=answer)
    task = asyncio.create_task(listener.run())
    while listener.state.connected_since is None:
        await asyncio.sleep(0.01)
    yield listener
    task.cancel()


def test_the_status_needs_the_token() -> None:
    async def run() -> None:
        async with doors() as door:
            assert await door.ask("GET", "/api/v1/status") == (200, {"status": "API is available"})
            assert (await door.ask("GET", "/api/v1/status", token="other"))[0] == 401
            assert (await door.ask("POST", "/api/v1/events", ENVELOPE, token=""))[0] == 401

    asyncio.run(run())


def test_a_fact_that_is_told_twice_is_listed_once() -> None:
    async def run() -> None:
        async with doors() as door:
            for _ in range(2):
                assert await door.ask("POST", "/api/v1/events", ENVELOPE) == (
                    200,
                    {"status": "processed", "message_id": "1.2.3"},
                )
            _, [event] = await door.ask("GET", "/events")  # type: ignore[misc]
            received_at = event.pop("received_at")  # type: ignore[has-type]
            assert event == {"via": "https", "told": 2, **ENVELOPE}  # type: ignore[has-type]
            assert received_at.startswith("20")
            assert await door.ask("GET", "/events?type=study.image_received") == (200, [])

    asyncio.run(run())


@pytest.mark.parametrize("body", ["", "nonsense", [], {"message_id": 1, "message_type": "a"}, {"message_id": "1"}])
def test_what_is_no_envelope_is_refused(body: object) -> None:
    async def run() -> None:
        async with doors() as door:
            status, answer = await door.ask("POST", "/api/v1/events", body)
            assert (status, answer["code"]) == (400, "invalid")  # type: ignore[index]

    asyncio.run(run())


def test_events_suffer_what_the_door_orders() -> None:
    async def run() -> None:
        async with doors() as door:
            await door.ask("POST", "/faults", {"what": "events", "value": ["busy", "invalid", "lost"]})
            statuses = [(await door.ask("POST", "/api/v1/events", ENVELOPE))[0] for _ in range(4)]
            assert (statuses, door.cloud.events.arrivals["1.2.3"]) == ([503, 400, 500, 200], 2)

    asyncio.run(run())


def test_an_action_reaches_the_gateway_and_so_does_nonsense() -> None:
    async def run() -> None:
        async with doors() as door, gateway(door.cloud):
            action = {"action_id": "a", "action_type": "no-op"}
            length = len(json.dumps(action))
            assert await door.ask("POST", "/actions", action) == (200, {"status": "created", "length": length})
            assert await door.ask("POST", "/actions", "not JSON") == (200, {"status": "created", "length": 8})
            assert door.cloud.actions == {"a": action}

    asyncio.run(run())


def test_without_a_gateway_an_action_is_answered_as_unreachable() -> None:
    async def run() -> None:
        async with doors() as door:
            status, answer = await door.ask("POST", "/actions", {"action_id": "a"})
            assert (status, answer["code"]) == (502, "unreachable")  # type: ignore[index]

    asyncio.run(run())


@pytest.mark.parametrize("what", ["freeze", "mute", "unlist", "kill", "close"])
def test_the_link_suffers_what_the_door_orders(what: str) -> None:
    async def run() -> None:
        async with doors() as door, gateway(door.cloud):
            order = {"what": what, "connection": "actions"}
            assert await door.ask("POST", "/faults", order) == (200, {"affected": 1})

    asyncio.run(run())


def test_a_standing_fault_is_set_by_its_name() -> None:
    async def run() -> None:
        async with doors() as door:
            order = {"what": "unavailable", "connection": "actions", "value": [503, "busy"]}
            assert await door.ask("POST", "/faults", order) == (200, {"affected": 0})
            assert (await door.ask("POST", "/actions", {}))[0] == 502
            assert (await door.ask("POST", "/faults", {"what": "rain", "connection": "actions"}))[0] == 400
            assert (await door.ask("POST", "/faults", {"what": "kill", "connection": "other"}))[0] == 400
            assert (await door.ask("POST", "/faults", {"what": "events", "value": "rain"}))[0] == 400

    asyncio.run(run())


def test_an_upload_is_judged_as_the_programme_does() -> None:
    async def run() -> None:
        async with doors() as door:
            door.cloud.actions["known"] = {}
            assert (await door.ask("PUT", "/api/v1/dicom/known"))[0] == 422
            assert (await door.ask("PUT", "/api/v1/dicom/known", form("other", b"x")))[0] == 422
            assert (await door.ask("PUT", "/api/v1/dicom/unknown", form("file", b"x")))[0] == 500
            assert (await door.ask("PUT", "/api/v1/dicom/known", form("file", b"not DICOM")))[0] == 400
            assert await door.ask("GET", "/images") == (200, [])

    asyncio.run(run())


def form(name: str, content: bytes) -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field(name, content, filename="a.dcm", content_type="application/dicom")
    return data


def test_a_failure_is_recorded_for_a_known_action() -> None:
    async def run() -> None:
        async with doors() as door:
            door.cloud.actions["known"] = {}
            path, body = "/api/v1/dicom/{}/failure", {"error": "no laterality"}
            assert await door.ask("PATCH", path.format("known"), body) == (200, {"status": "failure recorded"})
            assert (await door.ask("PATCH", path.format("unknown"), body))[0] == 404
            _, state = await door.ask("GET", "/state")
            assert state["failures"] == {"known": "no laterality"}  # type: ignore[index]

    asyncio.run(run())


def test_it_runs_by_itself_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "simulator.cloud", "--port", "0"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert facts["settings"] == {
        "AZURE_RELAY_NAMESPACE": facts["namespace"],
        "AZURE_RELAY_HYBRID_CONNECTION": "actions",
        "AZURE_RELAY_EVENTS_HYBRID_CONNECTION": "events",
        "AZURE_RELAY_KEY_NAME": "simulated-key",
        "AZURE_RELAY_SHARED_ACCESS_KEY": "not a secret",
        "RELAY_API_URL": f"{facts['control']}/api/v1",
        "RELAY_API_TOKEN": "not-a-secret-either",
    }
