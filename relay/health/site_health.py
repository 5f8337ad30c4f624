"""Health of this site: the facts of all parts, made into the report and the metrics.

Not for: looking a fact up (`relay.health.facts`), judging facts (`relay.health.report`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import gateway
from gateway.audit.recorder import AuditRecorder, silence
from gateway.disk_space import Watermarks
from gateway.messages import HealthReport
from pacs import Archive
from relay.access.audit import Recorder
from relay.exams.quality import Quality
from relay.health import metrics
from relay.health.dicom_ports import DicomPort
from relay.health.facts import archive_queue, disk, images, last_image, last_step, link_hop, queue
from relay.health.report import Facts, HopFact, PortFact, report
from relay.hybrid.listener import HybridListener
from worklist import Worklist


class Proven(Protocol):
    """A loop with a destination: when that last confirmed an event, and why it has not since ('' when it has)."""

    name: str
    proven_at: datetime | None
    trouble: str


@dataclass(kw_only=True, slots=True)
class SiteHealth:
    """The report and the metrics of a running relay. Both read the databases: call them in a thread."""

    site: str
    worklist: Worklist
    archive: Archive
    storage: Path
    """The folder of the images; the disk is the one it is on."""
    watermarks: Watermarks
    deliveries: Sequence[Proven] = ()
    listener: HybridListener | None = None
    """Set once it is made: it answers the `health` action with this very report."""
    ports: Sequence[DicomPort]
    quality: Quality
    http_audit: Recorder
    audit: AuditRecorder
    trails: Path
    started_at: datetime
    clock: Callable[[], datetime]

    def report(self) -> HealthReport:
        """The health report of now."""
        return report(self._facts(), now=self.clock())

    def metrics(self) -> bytes:
        """The same with the counters, in Prometheus' text format."""
        listener = self.listener
        link = metrics.link(listener.state, listener.exchanges) if listener else None
        facts = self._facts()
        judged = report(facts, now=self.clock())
        return metrics.exposition(facts, judged, link=link, holds=self.archive.statistics(), site=self.site)

    def _facts(self) -> Facts:
        return Facts(
            version=gateway.__version__,
            started_at=self.started_at,
            hops=tuple(self._hops()),
            queues=(queue("worklist", self.worklist.outbox), archive_queue(self.archive)),
            disk=disk(self.storage, self.watermarks),
            images=images(self.archive),
            audit=self.http_audit.trouble
            or self.audit.trouble
            or silence(self.trails, since=self.started_at, now=self.clock()),
            exams=self.quality.trouble,
            ports=tuple(self._ports()),
        )

    def _hops(self) -> Iterator[HopFact]:
        if self.listener:
            yield link_hop(self.listener.state)
        several = len(self.deliveries) > 1
        for delivery in self.deliveries:
            name = f"delivery to {delivery.name}" if several else "delivery"
            yield HopFact(name, delivery.proven_at, delivery.trouble)

    def _ports(self) -> Iterator[PortFact]:
        last_spoken = {
            "worklist_port": partial(last_step, self.worklist),
            "archive_port": partial(last_image, self.archive),
        }
        for port in self.ports:
            yield PortFact(port.hop, last_spoken[port.name]())
