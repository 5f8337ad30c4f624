"""`gateway check`: proves by traffic, hop by hop, that a site works.

Each hop is a round trip made now: an association, a query, a request, an echo through the cloud. It leaves no trace in
the worklist or the archive.

Not for: repairing anything.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gateway.disk_space import Fullness, volume_of
from gateway.hops import Hops, Note, Nothing, Observed
from gateway.outbox import Outbox
from gateway.remote_ae import reachable
from operations import databases
from operations.checks import cloud_connection, link_echo, relay_request
from operations.checks.tls_handshake import in_use
from operations.site_settings import SiteSettings
from pacs.forward.queue_rows import ForwardQueue
from pacs.settings import PacsSettings
from relay.settings import RelaySettings
from simulator.modality.modality import Modality

Look = tuple[str, Callable[[Note], None], str]
"""The name of a hop, its function, and the remedy when it fails."""

OVERDUE = timedelta(minutes=10)
"""An event that the cloud has not confirmed for so long means that the connection is down, not that it is slow."""

_CERTIFICATE_REMEDY = "The services go on with the one they have; see: gateway tls check."


def check(settings: SiteSettings, hops: Hops, *, with_cloud: bool) -> None:
    """Look at every hop once and record what was seen; no hop keeps another from being looked at."""
    relay = settings.relay
    to_the_cloud: list[Look] = [
        ("echo through the cloud", lambda note: link_echo.echo_once(note, relay), "See OPERATIONS, cloud."),
        ("doors are reached", lambda note: cloud_connection.look(note, relay), "See: gateway link check."),
    ]
    looks: list[Look] = [
        (
            "worklist answers",
            lambda note: _echo(note, settings.modality().echo_worklist),
            "Is gateway-worklist running?",
        ),
        ("worklist is queried", lambda note: _query(note, settings.modality()), "See the worklist's log."),
        ("archive answers", lambda note: _echo(note, settings.modality().echo_pacs), "Is gateway-pacs running?"),
        ("certificate in use", lambda note: _certificate(note, settings.pacs), _CERTIFICATE_REMEDY),
        ("relay answers", lambda note: _health(note, settings), "Is gateway-relay running?"),
        ("DICOMweb is searched", lambda note: _search(note, settings), "See the relay's log."),
        *(to_the_cloud if with_cloud else ()),
        ("steps owed to the cloud", lambda note: _worklist_outbox(note, settings), "See: gateway outbox list."),
        ("images owed to the cloud", lambda note: _pacs_outbox(note, settings), "See: gateway outbox list."),
        ("images owed to site archives", lambda note: _forwarded(note, settings.pacs), "See: gateway forward list."),
        ("room on disk", lambda note: _disk(note, settings.pacs), "Make room, for example with: gateway prune."),
    ]
    # All of them, because a hop that fails is no reason for another one to fail.
    for name, look, remedy in looks:
        hops.look(name, look, remedy=remedy)


def _echo(note: Note, echo: Callable[[], None]) -> None:
    echo()
    note.detail = "C-ECHO was answered."


def _certificate(note: Note, pacs: PacsSettings) -> None:
    in_use(note, pacs, host=reachable(pacs.host), port=pacs.port)


def _query(note: Note, modality: Modality) -> None:
    found = modality.find(date=f"{datetime.now().astimezone():%Y%m%d}")
    note.detail = f"C-FIND was answered with {len(found)} items for today."


def _health(note: Note, settings: SiteSettings) -> None:
    report = json.loads(relay_request.get(settings.relay, "/healthz"))
    troubles = [f"{name}: {seen['detail']}" for name, seen in report["checks"].items() if not seen["ok"]]
    if troubles:
        raise Observed(f"The relay reports {'; '.join(troubles)}")
    note.detail = f"Version {report['version']} answers that all is well."


def _search(note: Note, settings: SiteSettings) -> None:
    body = relay_request.get(settings.relay, "/dicom-web/studies?limit=1")
    found = json.loads(body) if body else []
    note.detail = "QIDO-RS answered with a study." if found else "QIDO-RS answered that there is no study yet."


def _worklist_outbox(note: Note, settings: SiteSettings) -> None:
    with databases.worklist(settings.worklist) as worklist:
        _pending(note, worklist.outbox, settings.relay)


def _pacs_outbox(note: Note, settings: SiteSettings) -> None:
    with databases.archive(settings.pacs) as archive:
        _pending(note, archive.outbox, settings.relay)


def _pending(note: Note, outbox: Outbox, relay: RelaySettings) -> None:
    counts, oldest = outbox.counts(), outbox.oldest_open()
    note.detail = f"{counts['open']} open, {counts['delivered']} delivered, {counts['parked']} parked."
    if counts["parked"]:
        raise Observed(f"{note.detail} What is parked waits for a person.")
    if not relay.destinations:
        note.detail += " They wait for a destination (RELAY_DESTINATION)."
    elif oldest and _is_overdue(oldest):
        raise Observed(f"{note.detail} The oldest waits since {oldest}.")


def _forwarded(note: Note, pacs: PacsSettings) -> None:
    with databases.archive(pacs) as archive:
        targets = ForwardQueue(archive).targets()
    if not targets:
        raise Nothing("Nothing is forwarded (PACS_FORWARD_TO).")
    note.detail = "; ".join(f"{each.target}: {each.open} open, {each.parked} parked" for each in targets) + "."
    for each in targets:
        if each.parked or (each.oldest_open and _is_overdue(each.oldest_open)):
            since = f" The oldest for {each.target} waits since {each.oldest_open}." if each.oldest_open else ""
            raise Observed(f"{note.detail}{since} {each.reason}".rstrip())


def _is_overdue(since: str) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(since) > OVERDUE


def _disk(note: Note, pacs: PacsSettings) -> None:
    if not pacs.storage_path.exists():
        raise Observed(f"The folder of the images {pacs.storage_path} does not exist (PACS_STORAGE_PATH).")
    volume = volume_of(pacs.storage_path)
    fullness = volume.fullness(pacs.watermarks)
    note.detail = f"{volume.used_percent:.0f}% of {volume.total_bytes / 1e9:.0f} GB used: {fullness}."
    if fullness is Fullness.TOO_FULL:
        raise Observed(f"{note.detail} No images are taken.")
