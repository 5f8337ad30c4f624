"""The metrics for Prometheus: the health report as numbers, and the counters since the start.

No name, label or value is about a participant. Times are Unix seconds, so that an alert can be written on the age of a
proof: `time() - gateway_check_proven_timestamp_seconds > 180`. Not for: judging (`relay.health.report`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.messages import HealthReport
from relay.health.report import Facts
from relay.hybrid.exchange import Exchanges
from relay.hybrid.listener import LinkState


@dataclass(frozen=True)
class Link:
    """The counters of the link since the start, and its present channels and exchanges."""

    listeners: int
    busy: int
    echoes: bool
    connections: int
    deaf: int
    renewed: int
    attended: int
    refused: int


def link(state: LinkState, exchanges: Exchanges) -> Link:
    """Take the numbers of a listener."""
    return Link(
        listeners=len(state.listener_ids),
        busy=exchanges.busy,
        echoes=state.echoes,
        connections=state.connections,
        deaf=state.replaced,
        renewed=state.renewed,
        attended=exchanges.attended,
        refused=exchanges.refused,
    )


def exposition(facts: Facts, report: HealthReport, *, link: Link | None, holds: Mapping[str, int], site: str) -> bytes:
    """Write everything in Prometheus' text format. `holds` counts what the archive has."""
    # A registry per answer, because the values are read from the databases and not counted by the library.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once([*_checks(facts, report, site), *_queues(facts), *_storage(facts, holds), *_link(link)]))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _gauge(name: str, text: str, values: Mapping[str, float], *, label: str = "") -> GaugeMetricFamily:
    """A gauge with a value for each value of `label`, or the one value under the empty name."""
    family = GaugeMetricFamily(f"gateway_{name}", text, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


def _counter(name: str, text: str, values: Mapping[str, int], *, label: str = "") -> CounterMetricFamily:
    family = CounterMetricFamily(f"gateway_{name}", text, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


def _checks(facts: Facts, report: HealthReport, site: str) -> Iterator[Metric]:
    info = GaugeMetricFamily("gateway_info", "Version and site, always 1.", labels=["version", "site"])
    info.add_metric([facts.version, site], 1)
    yield info
    proven = {name: _unix(check.proven_at) for name, check in report.checks.items() if check.proven_at}
    well = {name: float(check.ok) for name, check in report.checks.items()}
    yield _gauge("start_timestamp_seconds", "When the relay started.", {"": facts.started_at.timestamp()})
    yield _gauge("healthy", "1 while every check is well.", {"": float(report.healthy)})
    yield _gauge("check_ok", "1 while this check is well.", well, label="check")
    yield _gauge("check_proven_timestamp_seconds", "When it was last proven.", proven, label="check")


def _queues(facts: Facts) -> Iterator[Metric]:
    # A queue that cannot be read is left out, because 0 would say that nothing is pending.
    readable = [queue for queue in facts.queues if not queue.trouble]
    oldest = {queue.name: _unix(queue.oldest) for queue in readable if queue.oldest}
    opened = {queue.name: float(queue.open) for queue in readable}
    parked = {queue.name: float(queue.parked) for queue in readable}
    yield _gauge("queue_open", "Events that the cloud has not confirmed.", opened, label="queue")
    yield _gauge("queue_parked", "Events that wait for a person.", parked, label="queue")
    yield _gauge("queue_oldest_timestamp_seconds", "Since when the oldest is open.", oldest, label="queue")


def _storage(facts: Facts, holds: Mapping[str, int]) -> Iterator[Metric]:
    if volume := facts.disk.volume:
        yield _gauge("disk_bytes", "Size of the images' volume.", {"": volume.total_bytes})
        yield _gauge("disk_free_bytes", "Room on the images' volume.", {"": volume.free_bytes})
    if facts.images is not None:
        yield _gauge("images_damaged", "Stored files that are not what was received.", {"": facts.images.damaged})
    yield _gauge("archive", "What the archive holds.", {name: float(n) for name, n in holds.items()}, label="of")


def _link(link: Link | None) -> Iterator[Metric]:
    if link is None:
        return
    replaced = {"deaf": link.deaf, "planned": link.renewed}
    yield _gauge("link_listeners", "Connections that listen now.", {"": link.listeners})
    yield _gauge("link_exchanges", "Exchanges under way.", {"": link.busy})
    yield _gauge("link_provable", "0 when the key may not send, so that no echo proves it.", {"": float(link.echoes)})
    yield _counter("link_connections", "Connections opened.", {"": link.connections})
    yield _counter("link_replaced", "Connections replaced while they were open.", replaced, label="reason")
    yield _counter("link_attended", "Senders and requests that were announced.", {"": link.attended})
    yield _counter("link_refused", "Those told to come back, as too many were under way.", {"": link.refused})


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
