"""What Prometheus is told: numbers that a parser of its own reads back."""

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from gateway.disk_space import Volume
from relay.health.metrics import Link, exposition
from relay.health.report import Disk, Facts, HopFact, Images, QueueFact, report

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
FACTS = Facts(
    "0.1.0",
    NOW,
    (HopFact("hybrid_connection", NOW),),
    (
        QueueFact("worklist", open=3, parked=1, oldest="2026-11-22T07:00:00.000Z"),
        QueueFact("archive", trouble="Unreadable."),
    ),
    Disk(Volume(100, 60)),
    Images(damaged=2),
)
LINK = Link(listeners=2, busy=1, echoes=True, connections=5, deaf=1, renewed=2, attended=40, refused=3)


def told(link: Link | None) -> dict[str, float]:
    text = exposition(FACTS, report(FACTS, now=NOW), link=link, holds={"instances": 7}, site='Van "7"').decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {f"{each.name}{list(each.labels.values())}".replace("[]", ""): each.value for each in samples}


def test_the_numbers_of_a_site() -> None:
    assert told(LINK) == {
        "gateway_info['Van \"7\"', '0.1.0']": 1,
        "gateway_start_timestamp_seconds": NOW.timestamp(),
        "gateway_healthy": 0,
        "gateway_check_ok['hybrid_connection']": 1,
        "gateway_check_ok['worklist']": 1,
        "gateway_check_ok['archive']": 0,
        "gateway_check_ok['disk']": 1,
        "gateway_check_ok['images']": 0,
        "gateway_check_proven_timestamp_seconds['hybrid_connection']": NOW.timestamp(),
        "gateway_check_proven_timestamp_seconds['worklist']": NOW.timestamp(),
        "gateway_check_proven_timestamp_seconds['disk']": NOW.timestamp(),
        "gateway_check_proven_timestamp_seconds['images']": NOW.timestamp(),
        "gateway_queue_open['worklist']": 3,
        "gateway_queue_parked['worklist']": 1,
        "gateway_queue_oldest_timestamp_seconds['worklist']": NOW.timestamp() - 3600,
        "gateway_disk_bytes": 100,
        "gateway_disk_free_bytes": 60,
        "gateway_images_damaged": 2,
        "gateway_archive['instances']": 7,
        "gateway_link_listeners": 2,
        "gateway_link_exchanges": 1,
        "gateway_link_provable": 1,
        "gateway_link_connections_total": 5,
        "gateway_link_replaced_total['deaf']": 1,
        "gateway_link_replaced_total['planned']": 2,
        "gateway_link_attended_total": 40,
        "gateway_link_refused_total": 3,
    }


def test_without_a_link_there_is_none_to_count() -> None:
    assert not any("link" in name for name in told(None))
