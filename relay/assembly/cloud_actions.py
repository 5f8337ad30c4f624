"""Makes the parts that carry out the cloud's actions: their context, and the loops for deferred ones.

Not here: what an action does (`relay.cloud.commands`), the connection it comes over (`relay.assembly.cloud_link`).
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from gateway.audit.recorder import AuditRecorder
from gateway.refusals import NoteRefusal
from pacs import Archive
from relay.assembly import cloud_link
from relay.assembly.clock import now
from relay.assembly.destinations import image_api
from relay.cloud.audit import WorklistAudit
from relay.cloud.commands import Context
from relay.cloud.deferred import ActionRunner, DeferredActions, request_event
from relay.cloud.full_images import FullImages, UploadTargets
from relay.cloud.site_tasks import SiteTasks
from relay.cloud.throttle import Throttle
from relay.delivery.delivery import Delivery
from relay.delivery.https_api import Api
from relay.exams.holding import HoldRules
from relay.health.site_health import SiteHealth
from relay.settings import RelaySettings
from worklist import Worklist


@dataclass(frozen=True, slots=True)
class CloudActions:
    """The parts for actions. `loops` carry out deferred ones, by their names in the outbox."""

    context: Context
    loops: dict[str, Delivery]
    images: FullImages
    throttle: Throttle
    api: Api | None


def cloud_actions(
    settings: RelaySettings,
    worklist: Worklist,
    archive: Archive,
    *,
    holding: HoldRules,
    recorder: AuditRecorder,
    health: SiteHealth,
    note: NoteRefusal,
) -> CloudActions:
    """Make them, without running a loop. `note` keeps refused actions for people on site."""
    requests, api = DeferredActions(archive.outbox), image_api(settings)
    throttle = Throttle(settings.upload_bytes_per_second, received_last=archive.received_last)
    upload_targets = UploadTargets(settings.hosts, api, cloud_link.egress(settings))
    images = FullImages(
        archive,
        requests,
        upload_targets,
        throttle=throttle,
        scratch=settings.data_dir / "uploads",
        reason_to_hold=holding.reason_for,
    )
    site_tasks = SiteTasks(requests, upload_targets, throttle=throttle, folder=settings.data_dir / "diagnostics")
    context = Context(
        worklist,
        requests,
        images,
        site_tasks,
        health=health.report,
        clock=now,
        cloud_zone=ZoneInfo(settings.cloud_timezone) if settings.cloud_timezone else None,
        note=note,
        notify=WorklistAudit(recorder, worklist),
    )
    return CloudActions(context, _loops(settings, archive, images, site_tasks), images, throttle, api)


def _loops(settings: RelaySettings, archive: Archive, images: FullImages, site_tasks: SiteTasks) -> dict[str, Delivery]:
    # Apart from the loops for events, which must not wait for a gigabyte; and two, because a self-test must not wait
    # for an hour's upload. The names are destinations in the database (0004_requests.sql).
    runners = {
        "full images": ActionRunner({"image.request": images}),
        "chores": ActionRunner(
            {
                "worklist.create_test_item": site_tasks.perform,
                "gateway.selftest": site_tasks.selftest,
                "gateway.diagnostics": site_tasks.diagnose,
            }
        ),
    }
    compose = request_event(settings.site)
    return {
        name: Delivery([archive.outbox], runner, compose=compose, clock=now, name=name)
        for name, runner in runners.items()
    }
