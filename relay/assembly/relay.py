"""The relay put together: settings become a link, a destination, deliveries, pages, and one report on all of them.

Whatever is not configured is absent, and health says so. A task that dies ends the process: systemd starts a new one,
which carries on from the outboxes.

Not for: rules; each part has its own file.
"""

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

import structlog
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

import gateway
from gateway.audit.recorder import RELAY, Recording, silence
from gateway.errors import DatabaseNotReady, NotFound
from gateway.messages import LOCAL_ACTION, Envelope, HealthReport, Heartbeat, Image, Thumbnail
from gateway.outbox import Entry, Outbox
from gateway.process import until_stopped_async
from gateway.refusals import Note
from gateway.refusals.log import unnoted
from gateway.remote_ae import Peer, reachable
from gateway.sqlite import utc_text
from gateway.tls import CallFiles
from pacs import Archive, Policy, preview
from relay import web
from relay.access.users import CLOUD
from relay.assembly import cloud_link, http_access
from relay.assembly.destinations import MOST_BYTES, allowance, destination, image_api, sent_by
from relay.cloud import commands
from relay.cloud.audit import WorklistAudit
from relay.cloud.deferred import Fulfilment, Requests, request_event
from relay.cloud.dicomweb_proxy import RemoteWeb, own_url, public_url
from relay.cloud.full_images import Doors, FullImages
from relay.cloud.site_tasks import Chores
from relay.cloud.throttle import Pace
from relay.delivery.composer import Composer
from relay.delivery.delivery import Delivery, Event, kind_of_message, weight_of_message
from relay.delivery.https_api import kind_of_upload, weight_of_upload
from relay.delivery.quota import Allowance
from relay.dicomweb.routes import Changes
from relay.dicomweb.spool import Spool
from relay.dicomweb.stow_store import Deposit
from relay.exams.evidence import Evidence
from relay.exams.holding import HOLDS, Holding
from relay.exams.quality import Quality
from relay.health import metrics
from relay.health.dicom_ports import dicom_ports
from relay.health.facts import archive_queue, disk, images, last_image, last_step, queue
from relay.health.report import Facts, Hop, Port, report
from relay.hybrid.listener import HttpAnswer, HttpRequest, HybridListener, SelfEcho, endpoint
from relay.pages.site_facts import of_site
from relay.render_pool import WORKERS, Renderer, RenderingFailed
from relay.setting_types import DestinationName
from relay.settings import RelaySettings
from worklist import Worklist

log = structlog.get_logger()

T = TypeVar("T")

OWNERS_SECONDS = 60.0
"""How long the relay waits for the owners of the databases; both migrate within seconds, also after a power cut."""

GRACE_SECONDS = 5.0
"""How long events under way may take after the relay was told to stop; what is cut off is sent again."""


@retry(
    retry=retry_if_exception_type(DatabaseNotReady),
    stop=stop_after_delay(OWNERS_SECONDS),
    wait=wait_fixed(0.5),
    reraise=True,
)
def attached(attach: Callable[[], T]) -> T:
    """Open what another process owns, once that has made it ready. Raises DatabaseNotReady after a minute."""
    return attach()


class Relay:
    """Everything the relay does with what it was given. `run` until the process is asked to stop."""

    def __init__(self, settings: RelaySettings, worklist: Worklist, archive: Archive, *, note: Note = unnoted) -> None:
        self._settings = settings
        self._note = note
        self._worklist = worklist
        self._archive = archive
        self._tls = http_access.require_safe(settings)
        self._door = http_access.door(settings, archive, clock=now)
        self._recording = Recording(settings.audit_path, RELAY, site=settings.site)
        self._worklist_audit = WorklistAudit(self._recording, worklist)
        self._started_at = now()
        self._ports = dicom_ports(settings)
        self._renderer = Renderer()
        self._holding = Holding(archive, worklist, holds=holds(settings))
        self._quality = Quality(worklist, archive, Evidence(archive, worklist, holding=self._holding), clock=now)
        self._echo = cloud_link.echo(settings) if settings.listens else None
        self._listener = self._listen(self._echo) if self._echo else None
        self._remote: RemoteWeb | None = None
        self._allowances = {name: allowance(settings) for name in settings.destinations}
        self._destinations = {n: destination(n, settings, archive, own) for n, own in self._allowances.items()}
        self._deliveries = [self._deliver_to(name, own) for name, own in self._allowances.items()]
        self._requests = Requests(archive.outbox)
        self._pace = Pace(settings.upload_bytes_per_second, received_last=archive.received_last)
        self._api = image_api(settings)
        doors = Doors(settings.hosts, self._api, cloud_link.way(settings))
        scratch, bundles = settings.data_dir / "uploads", settings.data_dir / "diagnostics"
        self._images = FullImages(
            archive,
            self._requests,
            doors,
            pace=self._pace,
            scratch=scratch,
            reason_to_hold=self._holding.reason_for,
        )
        self._chores = Chores(self._requests, doors, pace=self._pace, folder=bundles)
        self._fulfilling = self._fulfil()

    async def run(self) -> None:
        """Serve, listen and deliver. Raises when one of them dies."""
        settings = self._settings
        if reason := cloud_link.not_by_proxy(settings):
            log.warning("proxy not used", destination="servicebus", reason=reason)
        spool = Spool(settings.data_dir / "spool")
        spool.open()
        app = web.application(
            self._archive,
            self._worklist,
            self._renderer,
            spool=spool,
            changes=changes(settings),
            health=self.health,
            metrics=self.metrics,
            site=settings.site,
            door=self._door,
            peers=settings.peers,
            viewer=settings.viewer_path,
            surroundings=of_site(settings, [*self._deliveries, *self._fulfilling.values()]),
            holds=holds(settings),
        )
        serving = web.serving(app, host=settings.http_host, port=settings.http_port, tls=self._tls)
        await asyncio.to_thread(self._prepare_outboxes)
        self._door.own.write()
        with self._recording:
            async with self._renderer, serving as port:
                await asyncio.to_thread(self._images.sweep)
                self._remote = self._serve_the_cloud(port) if settings.listens else None
                log.info("relay serves", port=port, destinations=settings.destinations, listens=settings.listens)
                async with asyncio.TaskGroup() as tasks:
                    running = {name: tasks.create_task(vital(name, work)) for name, work in self._works().items()}
                    await until_stopped_async()
                    await self._end(running)

    async def answer(self, text: str) -> str:
        """Answer a message of the cloud."""
        zone = ZoneInfo(self._settings.cloud_timezone) if self._settings.cloud_timezone else None
        context = commands.Context(
            self._worklist,
            self._requests,
            self._images,
            self._chores,
            health=self.health,
            clock=now,
            cloud_zone=zone,
            note=self._note,
            told=self._worklist_audit,
        )
        return await commands.answer(text, context)

    async def answer_request(self, request: HttpRequest) -> HttpAnswer:
        """Answer an HTTP request of the cloud."""
        if self._remote is None:
            return HttpAnswer(503, body=b"The gateway is starting; ask again in a moment.\n")
        return await self._remote(request)

    def health(self) -> HealthReport:
        """How everything is. Looks into the databases: call it in a thread."""
        return report(self._facts(), now=now())

    def metrics(self) -> bytes:
        """The same and what was counted, for Prometheus. Looks into the databases: call it in a thread."""
        listener = self._listener
        link_facts = metrics.link(listener.state, listener.exchanges) if listener else None
        facts = self._facts()
        return metrics.exposition(
            facts, report(facts, now=now()), link=link_facts, holds=self._archive.statistics(), site=self._settings.site
        )

    # --- what runs ----------------------------------------------------------------------------------------------------

    def _works(self) -> dict[str, Coroutine[None, None, None]]:
        works = {
            "renderer": self._warm_up(),
            "quality": self._quality.run(),
            **{name: loop.run() for name, loop in self._fulfilling.items()},
            **{port.name: port.run() for port in self._ports},
        }
        if self._listener:
            works["listener"] = self._listener.run()
        for delivery in self._deliveries:
            works[f"delivery to {delivery.name}"] = delivery.run()
            works[f"heartbeat to {delivery.name}"] = self._beat(delivery)
        return works

    async def _end(self, running: dict[str, asyncio.Task[None]]) -> None:
        for loop in self._fulfilling.values():
            loop.stop()
        for delivery in self._deliveries:
            delivery.stop()
        if ending := {running[f"delivery to {delivery.name}"] for delivery in self._deliveries}:
            await asyncio.wait(ending, timeout=GRACE_SECONDS)
        for task in running.values():
            task.cancel()
        for door in (self._echo, *self._destinations.values(), self._api, self._remote):
            if door:
                await door.close()

    async def _warm_up(self) -> None:
        """Start the workers now: a second that the first image of the day would have to wait otherwise."""
        try:
            await asyncio.gather(*(self._renderer.run(os.getpid) for _ in range(WORKERS)))
        except RenderingFailed:  # pictures may fail for as long as they like; the worklist must not
            log.exception("workers not started")

    async def _beat(self, delivery: Delivery) -> None:
        """Tell the cloud how everything is, again and again; that the cloud confirms proves the way out."""
        while True:
            health = await asyncio.to_thread(self.health)
            await delivery.prove(heartbeat(health, site=self._settings.site, now=now()))
            await asyncio.sleep(self._settings.heartbeat_seconds)

    # --- what the parts are given -------------------------------------------------------------------------------------

    def _listen(self, echo: SelfEcho) -> HybridListener:
        return cloud_link.listener(self._settings, on_message=self.answer, on_request=self.answer_request, prove=echo)

    def _serve_the_cloud(self, port: int) -> RemoteWeb:
        """DICOMweb through the hybrid connection, from this relay's own port."""
        settings = self._settings
        return RemoteWeb(
            own_url(settings.http_host, port, scheme="https" if self._tls else "http"),
            connection=settings.hybrid_connection,
            public=public_url(endpoint(settings.namespace, settings.hybrid_connection)),
            bucket=self._pace.bucket,
            authorization=self._door.own.authorization(CLOUD),
            tls=http_access.own_tls(settings),
        )

    def _deliver_to(self, name: DestinationName, own: Allowance) -> Delivery:
        uploads = name == "manage"
        compose = Composer(
            self._settings.site,
            preview=None if uploads else partial(thumbnail, self._archive, self._renderer),
            action_id_of=self._action_id_of,
            most_bytes=MOST_BYTES.get(name),
            has_room=own.has_room,
            reason_to_hold=self._reason_to_hold,
        )
        return Delivery(
            self._outboxes(),
            self._destinations[name],
            compose=compose,
            clock=now,
            name=name,
            allowance=own,
            kind_of=kind_of_upload if uploads else kind_of_message,
            weigh=weight_of_upload if uploads else weight_of_message,
        )

    def _fulfil(self) -> dict[str, Delivery]:
        """The loops that carry out requests: beside the events', since a test must not wait for an hour's upload."""
        compose = request_event(self._settings.site)
        images = Fulfilment({"image.request": self._images})
        chores = Fulfilment(
            {
                "worklist.create_test_item": self._chores.perform,
                "gateway.selftest": self._chores.selftest,
                "gateway.diagnostics": self._chores.diagnose,
            }
        )
        ways = {"full images": images, "chores": chores}  # named as in the outbox (0004_requests.sql)
        outboxes = [self._archive.outbox]
        return {name: Delivery(outboxes, way, compose=compose, clock=now, name=name) for name, way in ways.items()}

    def _outboxes(self) -> list[Outbox]:
        return [self._worklist.outbox, self._archive.outbox]

    def _prepare_outboxes(self) -> None:
        """Tell the outboxes whom they owe to, and learn from them what these were sent today.

        Without any destination they go on owing to whom they did.
        """
        names, outboxes = self._settings.destinations, self._outboxes()
        for outbox in outboxes if names else ():
            outbox.serve(names, now=now())
        for name, own in self._allowances.items():
            own.remember(partial(sent_by, outboxes, name))

    async def _action_id_of(self, accession_number: str) -> str | None:
        return await asyncio.to_thread(cloud_action_id, self._worklist, accession_number)

    async def _reason_to_hold(self, entry: Entry) -> str:
        return await asyncio.to_thread(self._holding.reason, entry)

    def _facts(self) -> Facts:
        hops = [cloud_link.link_hop(self._listener.state)] if self._listener else []
        several = len(self._deliveries) > 1
        for delivery in self._deliveries:
            name = f"delivery to {delivery.name}" if several else "delivery"
            hops.append(Hop(name, delivery.proven_at, delivery.trouble))
        return Facts(
            version=gateway.__version__,
            started_at=self._started_at,
            hops=tuple(hops),
            queues=(queue("worklist", self._worklist.outbox), archive_queue(self._archive)),
            disk=disk(self._settings.pacs_storage_path, self._settings.watermarks),
            images=images(self._archive),
            audit=self._door.recorder.trouble
            or self._recording.trouble
            or silence(self._settings.audit_path, since=self._started_at, now=now()),
            exams=self._quality.trouble,
            ports=tuple(self._ports_spoken_to()),
        )

    def _ports_spoken_to(self) -> Iterator[Port]:
        spoke = {
            "worklist_port": partial(last_step, self._worklist),
            "archive_port": partial(last_image, self._archive),
        }
        for port in self._ports:
            yield Port(port.hop, spoke[port.name]())


async def thumbnail(archive: Archive, renderer: Renderer, image: Image, size: int) -> Thumbnail:
    """Picture the image that an event tells of. Raises Conflict when another took its place, and other Refusals."""
    stored = await asyncio.to_thread(archive.unchanged, image.sop_instance_uid, image.sha256)
    picture = await renderer.run(preview, stored.path, size=size)
    await asyncio.to_thread(archive.unchanged, image.sop_instance_uid, image.sha256)
    data = base64.b64encode(picture.data).decode()
    return Thumbnail(data=data, width=picture.width, height=picture.height, note=picture.note)


async def vital(name: str, work: Coroutine[None, None, None]) -> None:
    """Do work without which the relay is of no use; its death is logged here and ends the process."""
    try:
        await work
    except Exception:
        log.exception("task died", task=name)
        raise


def cloud_action_id(worklist: Worklist, accession_number: str) -> str | None:
    """The cloud's own id of the action that scheduled an exam; None for what was never scheduled, or on site only."""
    try:
        item = worklist.item(accession_number)
    except NotFound:
        return None
    return None if item.action_id.startswith(LOCAL_ACTION) else item.action_id or None


def now() -> datetime:
    return datetime.now(UTC)


def holds(settings: RelaySettings) -> frozenset[str]:
    """The findings of an exam that hold its images back from the cloud."""
    return HOLDS if settings.hold_mismatches else frozenset()


def changes(settings: RelaySettings) -> Changes:
    """What DICOMweb may change on this site."""
    deposit = None
    if settings.largest_upload:
        tls = CallFiles.of_own_listeners(settings)
        archive = Peer(settings.pacs_aet, reachable(settings.pacs_host), settings.pacs_port, tls=tls is not None)
        deposit = Deposit(archive, settings.upload_aet, tls)
    policy = Policy(days=0, needs_commitment=settings.deletion_needs_commitment) if settings.delete else None
    return Changes(deposit, settings.largest_upload, policy)


def heartbeat(health: HealthReport, *, site: str, now: datetime) -> Event:
    """The event that says how everything is. Its sequence is the second it is sent in, which outgrows a restart."""
    beat = Heartbeat(**dict(health), sent_at=utc_text(now))
    envelope = Envelope(
        message_id=beat.message_id,
        message_type=beat.message_type,
        timestamp=beat.sent_at,
        site=site,
        sequence=int(now.timestamp()),
        parameters=beat.model_dump(mode="json"),
    )
    return Event(envelope, beat.subject, beat.priority)
