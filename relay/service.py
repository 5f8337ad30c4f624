"""The relay put together: settings become a link, a destination, deliveries, pages, and one report on all of them.

Whatever is not configured is absent, and health says so. A task that dies ends the process: systemd starts a new one,
which carries on from the outboxes.

Not for: rules; each part has its own file.
"""

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

import structlog
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

import gateway
from gateway.errors import DatabaseNotReady, NotFound
from gateway.messages import LOCAL_ACTION, Envelope, HealthReport, Heartbeat, Thumbnail
from gateway.outbox import Outbox
from gateway.process import until_stopped_async
from gateway.sqlite import utc_text
from gateway.volume import USUAL_WATERMARKS, Watermarks, volume_of
from pacs import Archive, preview
from relay import commands, web
from relay.composer import Composer
from relay.delivery import Delivery, Destination, Event
from relay.health import Disk, Facts, Hop, Images, Queue, report
from relay.hybrid import HybridDestination, HybridListener, HybridSender, LinkState, SasTokens, SelfEcho, endpoint
from relay.rendering import WORKERS, Renderer, RenderingFailed
from relay.settings import RelaySettings, revealed
from relay.uploads import HttpsDestination, ManageDestination, fixed_token
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

    def __init__(self, settings: RelaySettings, worklist: Worklist, archive: Archive) -> None:
        self._settings = settings
        self._worklist = worklist
        self._archive = archive
        self._started_at = now()
        self._renderer = Renderer()
        self._echo = sender(settings, settings.hybrid_connection) if settings.listens else None
        self._listener = self._listen(self._echo) if self._echo else None
        self._destination = destination(settings, archive)
        self._delivery = self._deliver_to(self._destination) if self._destination else None

    async def run(self) -> None:
        """Serve, listen and deliver. Raises when one of them dies."""
        app = web.application(
            self._archive,
            self._worklist,
            self._renderer,
            health=self.health,
            site=self._settings.site,
            viewer=self._settings.viewer_path,
        )
        serving = web.serving(app, host=self._settings.http_host, port=self._settings.http_port)
        async with self._renderer, serving as port:
            log.info("relay serves", port=port, destination=self._settings.destination, listens=self._settings.listens)
            async with asyncio.TaskGroup() as tasks:
                running = {name: tasks.create_task(vital(name, work)) for name, work in self._works().items()}
                await until_stopped_async()
                await self._end(running)

    async def answer(self, text: str) -> str:
        """Answer a message of the cloud."""
        zone = ZoneInfo(self._settings.cloud_timezone) if self._settings.cloud_timezone else None
        context = commands.Context(self._worklist, health=self.health, clock=now, cloud_zone=zone)
        return await commands.answer(text, context)

    def health(self) -> HealthReport:
        """How everything is. Looks into the databases: call it in a thread."""
        return report(self._facts(), now=now())

    # --- what runs ----------------------------------------------------------------------------------------------------

    def _works(self) -> dict[str, Coroutine[None, None, None]]:
        works = {"renderer": self._warm_up()}
        if self._listener:
            works["listener"] = self._listener.run()
        if self._delivery:
            works["delivery"] = self._delivery.run()
            works["heartbeat"] = self._beat(self._delivery)
        return works

    async def _end(self, running: dict[str, asyncio.Task[None]]) -> None:
        if self._delivery:
            self._delivery.stop()
            await asyncio.wait({running["delivery"]}, timeout=GRACE_SECONDS)
        for task in running.values():
            task.cancel()
        for door in (self._echo, self._destination):
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

    def _listen(self, echo: HybridSender) -> HybridListener:
        """The ear to the cloud, proving itself by an echo that takes the way of the cloud's messages."""
        at = endpoint(self._settings.namespace, self._settings.hybrid_connection)
        return HybridListener(at, tokens(self._settings), on_message=self.answer, prove=SelfEcho(echo))

    def _deliver_to(self, destination: Destination) -> Delivery:
        compose = Composer(self._settings.site, preview=self._thumbnail, action_id_of=self._action_id_of)
        outboxes = [self._worklist.outbox, self._archive.outbox]
        return Delivery(outboxes, destination, compose=compose, clock=now)

    async def _thumbnail(self, sop_instance_uid: str) -> Thumbnail:
        stored = await asyncio.to_thread(self._archive.instance, sop_instance_uid)
        picture = await self._renderer.run(preview, stored.path)
        data = base64.b64encode(picture.data).decode()
        return Thumbnail(data=data, width=picture.width, height=picture.height, note=picture.note)

    async def _action_id_of(self, accession_number: str) -> str | None:
        return await asyncio.to_thread(cloud_action_id, self._worklist, accession_number)

    def _facts(self) -> Facts:
        hops = [link_hop(self._listener.state)] if self._listener else []
        if self._delivery:
            hops.append(Hop("delivery", self._delivery.proven_at, self._delivery.trouble))
        return Facts(
            version=gateway.__version__,
            started_at=self._started_at,
            hops=tuple(hops),
            queues=(queue("worklist", self._worklist.outbox), queue("archive", self._archive.outbox)),
            disk=disk(self._settings.pacs_storage_path, self._settings.watermarks),
            images=images(self._archive),
        )


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


def tokens(settings: RelaySettings) -> SasTokens:
    return SasTokens(settings.key_name, revealed(settings.shared_access_key))


def sender(settings: RelaySettings, hybrid_connection: str) -> HybridSender:
    return HybridSender(endpoint(settings.namespace, hybrid_connection), tokens(settings))


def destination(settings: RelaySettings, archive: Archive) -> Destination | None:
    """The door events leave by; None when there is none."""
    match settings.destination:
        case "hybrid":
            return HybridDestination(sender(settings, settings.events_hybrid_connection))
        case "https":
            return HttpsDestination(settings.api_url, fixed_token(revealed(settings.api_token)))
        case "manage":
            token = fixed_token(revealed(settings.api_token))
            return ManageDestination(settings.api_url, token, locate=lambda uid: archive.instance(uid).path)
        case "servicebus":
            from relay.servicebus import ServiceBusDestination  # noqa: PLC0415 - the client library is large

            connection_string = revealed(settings.servicebus_connection_string)
            return ServiceBusDestination(connection_string, queue=settings.servicebus_queue)
        case _:
            return None


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


def link_hop(state: LinkState) -> Hop:
    """What the health report says of the link; an older trouble than the last proof is over."""
    over = state.last_error_at is None or (state.last_proven is not None and state.last_proven > state.last_error_at)
    return Hop("hybrid_connection", state.last_proven, "" if over else state.last_error)


def queue(name: str, outbox: Outbox) -> Queue:
    """What is owed from one database, or that it cannot be read."""
    try:
        counts, oldest, parked = outbox.counts(), outbox.oldest_open(), outbox.entries("parked", limit=1)
    except Exception:  # whatever it is, the report has to be made
        log.exception("database not readable", database=name)
        return Queue(name, trouble="The database cannot be read; the log says why.")
    because = parked[0].reason if parked else ""
    return Queue(name, open=counts["open"], parked=counts["parked"], oldest=oldest, parked_because=because)


def disk(folder: Path, watermarks: Watermarks = USUAL_WATERMARKS) -> Disk:
    """How full the data volume is, or that it is not there."""
    try:
        return Disk(volume_of(folder), watermarks)
    except OSError as error:
        return Disk(trouble=f"The folder of the images cannot be looked at: {error.strerror}.")


def images(archive: Archive) -> Images | None:
    """What is known of damage; None when the database cannot be read, which its queue says."""
    try:
        scrubbed = archive.upkeep.scrubbed()
        return Images(archive.upkeep.damaged(), scrubbed.began_at, scrubbed.ended_at)
    except Exception:  # whatever it is, the report has to be made
        log.exception("database not readable", database="archive")
        return None
