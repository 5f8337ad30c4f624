"""The relay put together from its settings, and run.

What is not configured is absent, and health says so. A task that dies ends the process: systemd starts a new one, which
carries on from the outboxes.

Not for: rules; each part has its own file.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

import structlog
from aiohttp.web import Application
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from gateway.audit.recorder import RELAY, AuditRecorder
from gateway.errors import DatabaseNotReady
from gateway.process import until_stopped_async
from gateway.refusals import NoteRefusal
from gateway.refusals.log import unnoted
from gateway.tls_reload import ServerTls
from pacs import Archive
from relay import web
from relay.access.middleware import AccessControl
from relay.access.users import CLOUD
from relay.assembly import cloud_link, http_access
from relay.assembly.clock import now
from relay.assembly.cloud_actions import CloudActions, cloud_actions
from relay.assembly.deliveries import Deliveries, deliveries
from relay.assembly.site import changes, holds, site_facts, site_health
from relay.cloud import commands
from relay.cloud.dicomweb_proxy import DicomWebProxy, own_url, public_url
from relay.dicomweb.spool import Spool
from relay.exams.evidence import Evidence
from relay.exams.holding import HoldRules
from relay.exams.quality import Quality
from relay.health.site_health import SiteHealth
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import SelfEcho
from relay.render_pool import WORKERS, Renderer, RenderingFailed
from relay.settings import RelaySettings
from worklist import Worklist

log = structlog.get_logger()

T = TypeVar("T")

OWNERS_SECONDS = 60.0
"""How long the relay waits for the owners of the databases; both migrate within seconds, also after a power cut."""

GRACE_SECONDS = 5.0
"""How long events under way may take after the relay was stopped; an event that is cut off is sent again."""


@retry(
    retry=retry_if_exception_type(DatabaseNotReady),
    stop=stop_after_delay(OWNERS_SECONDS),
    wait=wait_fixed(0.5),
    reraise=True,
)
def attached(attach: Callable[[], T]) -> T:
    """Open a database of another process, once that has migrated it. Raises DatabaseNotReady after a minute."""
    return attach()


@dataclass
class Relay:
    """Everything the relay does, made by `of`. `run` until the process is stopped."""

    settings: RelaySettings
    app: Application
    spool: Spool
    tls: ServerTls | None
    access: AccessControl
    recorder: AuditRecorder
    renderer: Renderer
    quality: Quality
    health: SiteHealth
    deliveries: Deliveries
    actions: CloudActions
    echo: SelfEcho | None = None
    listener: HybridListener | None = None
    remote: DicomWebProxy | None = None
    """DICOMweb for the cloud; None until the relay's own port is known."""

    @classmethod
    def of(cls, settings: RelaySettings, worklist: Worklist, archive: Archive, *, note: NoteRefusal = unnoted) -> Self:
        """Make every part that the settings name. Raises SettingsError when they do not permit the relay to run."""
        tls, access = http_access.require_safe(settings), http_access.access(settings, archive, clock=now)
        recorder = AuditRecorder(settings.audit_path, RELAY, site=settings.site)
        renderer, spool = Renderer(), Spool(settings.data_dir / "spool")
        holding = HoldRules(archive, worklist, holds=holds(settings))
        evidence = Evidence(archive, worklist, holding=holding)
        quality = Quality(worklist, archive, evidence, clock=now)
        sending = deliveries(settings, worklist, archive, renderer=renderer, holding=holding)
        health = site_health(
            settings, worklist, archive, deliveries=sending.loops, quality=quality, access=access, recorder=recorder
        )
        actions = cloud_actions(
            settings, worklist, archive, holding=holding, recorder=recorder, health=health, note=note
        )
        loops = [*sending.loops, *actions.loops.values()]
        app = web.application(
            archive,
            worklist,
            renderer,
            spool=spool,
            changes=changes(settings),
            health=health.report,
            metrics=health.metrics,
            site=settings.site,
            access=access,
            peers=settings.peers,
            viewer=settings.viewer_path,
            site_facts=site_facts(settings, loops),
            evidence=evidence,
        )
        relay = cls(settings, app, spool, tls, access, recorder, renderer, quality, health, sending, actions)
        if settings.listens:
            relay.listen()
        return relay

    def listen(self) -> None:
        """Make the listener for the cloud's messages, and the echo that proves it."""
        self.echo = cloud_link.echo(self.settings)
        self.listener = cloud_link.listener(
            self.settings,
            on_message=partial(commands.answer, context=self.actions.context),
            on_request=self.answer_request,
            prove=self.echo,
        )
        self.health.listener = self.listener

    async def run(self) -> None:
        """Serve, listen and deliver. Raises when one of them dies."""
        settings = self.settings
        if reason := cloud_link.not_by_proxy(settings):
            log.warning("proxy not used", destination="servicebus", reason=reason)
        self.spool.open()
        serving = web.serving(self.app, host=settings.http_host, port=settings.http_port, tls=self.tls)
        # Before any loop runs: the loops read the delivery rows of the destinations that are served from here on.
        await asyncio.to_thread(self.deliveries.prepare)
        self.access.own.write()
        with self.recorder:  # outermost, because requests and actions record until they have ended
            async with self.renderer, serving as port:
                await asyncio.to_thread(self.actions.images.sweep)
                self.remote = self._serve_the_cloud(port) if self.listener else None
                log.info(
                    "relay serves", port=port, destinations=settings.destinations, listens=self.listener is not None
                )
                async with asyncio.TaskGroup() as tasks:
                    running = {name: tasks.create_task(vital(name, work)) for name, work in self._works().items()}
                    await until_stopped_async()
                    await self._end(running)

    async def answer_request(self, request: HttpRequest) -> HttpAnswer:
        """Answer an HTTP request of the cloud."""
        if self.remote is None:
            return HttpAnswer(503, body=b"The gateway is starting; ask again in a moment.\n")
        return await self.remote(request)

    def _works(self) -> dict[str, Coroutine[None, None, None]]:
        works = {
            "renderer": self._warm_up(),
            "quality": self.quality.run(),
            **{name: loop.run() for name, loop in self.actions.loops.items()},
            **{port.name: port.run() for port in self.health.ports},
        }
        if self.listener:
            works["listener"] = self.listener.run()
        for loop in self.deliveries.loops:
            works[f"delivery to {loop.name}"] = loop.run()
            works[f"heartbeat to {loop.name}"] = self.deliveries.beat(loop, self.health.report)
        return works

    async def _end(self, running: dict[str, asyncio.Task[None]]) -> None:
        loops = self.deliveries.loops
        for loop in (*self.actions.loops.values(), *loops):
            loop.stop()
        # Only events get a grace period: a full image takes longer than any, and resumes from its staged blocks.
        if ending := {running[f"delivery to {loop.name}"] for loop in loops}:
            await asyncio.wait(ending, timeout=GRACE_SECONDS)
        for task in running.values():
            task.cancel()
        for connection in (self.echo, *self.deliveries.destinations.values(), self.actions.api, self.remote):
            if connection:
                await connection.close()

    async def _warm_up(self) -> None:
        # Else the first image of the day would wait a second for the workers.
        try:
            await asyncio.gather(*(self.renderer.run(os.getpid) for _ in range(WORKERS)))
        except RenderingFailed:  # pictures may fail for as long as they like; the worklist must not
            log.exception("workers not started")

    def _serve_the_cloud(self, port: int) -> DicomWebProxy:
        """DICOMweb for the cloud, from this relay's own port."""
        settings = self.settings
        return DicomWebProxy(
            own_url(settings.http_host, port, scheme="https" if self.tls else "http"),
            connection=settings.hybrid_connection,
            public=public_url(endpoint(settings.namespace, settings.hybrid_connection)),
            bucket=self.actions.throttle.bucket,
            authorization=self.access.own.authorization(CLOUD),
            tls=http_access.own_tls(settings),
        )


async def vital(name: str, work: Coroutine[None, None, None]) -> None:
    """Do work without which the relay is of no use; its death is logged here and ends the process."""
    try:
        await work
    except Exception:
        log.exception("task died", task=name)
        raise
