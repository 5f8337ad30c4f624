"""The relay put together: which parts there are for which settings, and what it says of itself."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.messages import EVENTS, Check, HealthReport
from gateway.outbox import NewEntry
from gateway.remote_ae import Peer
from gateway.settings import load
from operations import worklist_file
from pacs import Archive, RetentionPolicy
from relay.assembly.destinations import allowance, destination
from relay.assembly.relay import Relay, attached, vital
from relay.assembly.site import changes, holds
from relay.delivery.composer import cloud_action_id
from relay.delivery.heartbeat import heartbeat
from relay.delivery.https_api import HttpsDestination, ManageDestination
from relay.delivery.hybrid import HybridDestination
from relay.delivery.servicebus import ServiceBusDestination
from relay.dicomweb.routes import Changes
from relay.dicomweb.stow_store import StowStore
from relay.exams.holding import HOLDS
from relay.health.facts import disk, link_hop
from relay.health.report import HopFact
from relay.hybrid.listener import LinkState
from relay.settings import RelaySettings
from simulator.cloud.programme import Cloud
from simulator.site import free_port
from tests.relay.test_settings import LINK
from tests.tools.dcmtk import is_open
from tests.tools.waiting import PATIENCE_SECONDS, until, wait_until
from worklist import Worklist

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
BEFORE = datetime(2026, 11, 22, 7, 59, tzinfo=UTC)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Worklist, Archive]]:
    worklist = Worklist.open(tmp_path / "data" / "worklist.db")
    archive = Archive.open(tmp_path / "data" / "pacs.db", tmp_path / "data" / "instances")
    yield worklist, archive
    worklist.close()
    archive.close()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RelaySettings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_HTTP_PORT", str(free_port()))
    monkeypatch.setenv("WORKLIST_PORT", "0")  # nobody serves them here
    monkeypatch.setenv("PACS_PORT", "0")
    return load(RelaySettings)


def test_only_the_clouds_own_actions_are_named_to_the_cloud(stores: tuple[Worklist, Archive], tmp_path: Path) -> None:
    worklist, _ = stores
    entry = {
        "accession_number": "A1",
        "participant": {"nhs_number": "9990000018", "name": "PHANTOM^JANE", "birth_date": "19700101", "sex": "F"},
        "scheduled": {"date": "20261122", "time": "093000"},
        "procedure": {"modality": "MG", "study_description": "Screening"},
    }
    sent = {"worklist_item": {**entry, "accession_number": "A2"}}
    action = {"action_type": "worklist.create_item", "action_id": "C1", "parameters": sent}
    (tmp_path / "day.json").write_text(json.dumps([entry, action]))
    for appointment in worklist_file.read(tmp_path / "day.json"):
        worklist.schedule(
            appointment.item, action_id=appointment.action_id, content_hash=appointment.content_hash, now=NOW
        )
    assert [cloud_action_id(worklist, number) for number in ("A1", "A2", "A3")] == [None, "C1", None]


async def test_without_a_cloud_it_serves_and_says_that_none_is_configured(
    settings: RelaySettings, stores: tuple[Worklist, Archive]
) -> None:
    running = asyncio.create_task(Relay.of(settings, *stores).run())
    report = await asyncio.to_thread(get_when_there, f"http://127.0.0.1:{settings.http_port}/healthz")
    metrics = await asyncio.to_thread(text_of, f"http://127.0.0.1:{settings.http_port}/metrics")
    await stopped(running)
    assert 'gateway_check_ok{check="cloud"} 1.0' in metrics.splitlines()
    checks = report["checks"]
    assert isinstance(checks, dict)
    assert report["healthy"] is True
    assert checks["cloud"] == {"ok": True, "detail": "No cloud is configured.", "proven_at": None}
    assert set(checks) == {"cloud", "worklist", "archive", "disk", "images"}


async def stopped(running: asyncio.Task[None]) -> None:
    """Ask the relay to stop once it takes signals, which is a moment after it serves; then wait for its end."""
    await until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "the relay's readiness")
    os.kill(os.getpid(), signal.SIGTERM)
    await running


def text_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        return str(answer.read().decode())


def get_when_there(url: str) -> dict[str, object]:
    wait_until(lambda: is_open(urlsplit(url).port or 0), url)
    content: dict[str, object] = json.loads(text_of(url))
    return content


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({**LINK, "RELAY_DESTINATION": "hybrid"}, HybridDestination),
        (
            {"RELAY_DESTINATION": "https", "RELAY_API_URL": "https://x.example/api/v1", "RELAY_API_TOKEN": "t"},
            HttpsDestination,
        ),
        (
            {"RELAY_DESTINATION": "manage", "RELAY_API_URL": "https://x.example/api/v1", "RELAY_API_TOKEN": "t"},
            ManageDestination,
        ),
        (
            {
                "RELAY_DESTINATION": "servicebus",
                "AZURE_SERVICEBUS_CONNECTION_STRING": "Endpoint=sb://x.example/;SharedAccessKeyName=n;SharedAccessKey=k",
                "AZURE_SERVICEBUS_QUEUE": "events",
            },
            ServiceBusDestination,
        ),
    ],
)
def test_the_settings_choose_the_destination(
    monkeypatch: pytest.MonkeyPatch, stores: tuple[Worklist, Archive], variables: dict[str, str], kind: type[object]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    chosen = load(RelaySettings)
    [name] = chosen.destinations
    assert type(destination(name, chosen, stores[1], allowance(chosen))) is kind


@pytest.mark.parametrize(("value", "holding"), [("", HOLDS), ("true", HOLDS), ("false", frozenset())])
def test_a_site_may_hold_nothing_back(
    monkeypatch: pytest.MonkeyPatch, settings: RelaySettings, value: str, holding: frozenset[str]
) -> None:
    if value:
        monkeypatch.setenv("RELAY_HOLD_MISMATCHES", value)
    assert holds(load(RelaySettings)) == holding


async def test_several_destinations_are_served_side_by_side_and_each_is_a_hop(
    monkeypatch: pytest.MonkeyPatch, settings: RelaySettings, stores: tuple[Worklist, Archive]
) -> None:
    async with Cloud() as cloud:
        for name, value in {**cloud.addresses.settings(), "RELAY_DESTINATION": "none, hybrid,https"}.items():
            monkeypatch.setenv(name, value)
        relay = Relay.of(load(RelaySettings), *stores)
        stores[0].outbox.enqueue(NewEntry("m1", "mpps.completed", "s", 1, {}), now=NOW)
        running = asyncio.create_task(relay.run())
        await until(lambda: stores[0].outbox.counts()["delivered"] > 0, "the delivery")
        checks = (await asyncio.to_thread(relay.health.report)).checks
        await stopped(running)
        assert cloud.events.arrivals["m1"] == 2
        assert {name for name in checks if "delivery" in name} == {"delivery to hybrid", "delivery to https"}


@pytest.mark.parametrize(
    ("state", "hop"),
    [
        (LinkState(), HopFact("hybrid_connection", None, "")),
        (LinkState(last_error="Refused.", last_error_at=NOW), HopFact("hybrid_connection", None, "Refused.")),
        (
            LinkState(last_proven=BEFORE, last_error="Cut.", last_error_at=NOW),
            HopFact("hybrid_connection", BEFORE, "Cut."),
        ),
        (LinkState(last_proven=NOW, last_error="Cut.", last_error_at=BEFORE), HopFact("hybrid_connection", NOW, "")),
    ],
)
def test_a_trouble_of_the_link_is_over_once_it_is_proven_again(state: LinkState, hop: HopFact) -> None:
    assert link_hop(state) == hop


def test_a_volume_that_is_not_mounted_is_a_fact_for_the_report(tmp_path: Path) -> None:
    assert disk(tmp_path).trouble == ""
    assert disk(tmp_path / "gone").trouble == "The folder of the images cannot be looked at: No such file or directory."


def test_a_heartbeat_carries_the_health_report() -> None:
    health = HealthReport(
        healthy=True, version="0.1.0", listener_uptime_seconds=1, checks={"disk": Check(ok=True, detail="Roomy.")}
    )
    beat = heartbeat(health, site="Van 1", now=NOW)
    assert (beat.message_type, beat.message_id) == ("gateway.heartbeat", "heartbeat/2026-11-22T08:00:00.000Z")
    assert beat.envelope.sequence == 1795334400
    assert EVENTS[beat.message_type].model_validate(beat.parameters).model_dump() == {
        **health.model_dump(),
        "sent_at": "2026-11-22T08:00:00.000Z",
    }


def test_the_relay_waits_for_the_owner_of_a_database(tmp_path: Path) -> None:
    attempts: list[int] = []

    def attach() -> Worklist:
        attempts.append(1)
        if len(attempts) == 2:
            Worklist.open(tmp_path / "worklist.db").close()
        return Worklist.attach(tmp_path / "worklist.db")

    attached(attach).close()
    assert len(attempts) == 2


def test_any_other_trouble_with_a_database_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        attached(tmp_path.read_bytes)


async def test_the_death_of_a_task_is_passed_on() -> None:
    async def dies() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await vital("link", dies())


def test_uploads_go_to_the_archive_of_this_site_and_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PACS_PORT": "11112", "PACS_AET": "SITE", "PACS_HOST": "::"}.items():
        monkeypatch.setenv(name, value)
    made = changes(load(RelaySettings))
    assert made == Changes(StowStore(Peer("SITE", "::1", 11112), "GATEWAY_UPLOAD"), 4_000_000_000, None)


def test_what_dicomweb_may_change_is_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RELAY_LARGEST_UPLOAD": "0", "RELAY_DELETE": "true"}.items():
        monkeypatch.setenv(name, value)
    assert changes(load(RelaySettings)) == Changes(None, 0, RetentionPolicy(days=0))
