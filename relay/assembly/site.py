"""Facts of this site from its settings: DICOM ports, holding findings, permitted DICOMweb changes, facts for pages.

Not here: proving a port (`relay.health.dicom_ports`), holding images (`relay.exams.holding`), pages (`relay.pages`).
"""

from collections.abc import Sequence

from gateway.audit.recorder import AuditRecorder
from gateway.dicom.admission import OWN_TITLE
from gateway.refusals import FILE_NAME
from gateway.remote_ae import Peer, reachable
from gateway.tls import CallFiles
from pacs import Archive, RetentionPolicy
from relay.access.middleware import AccessControl
from relay.assembly.clock import now
from relay.delivery.delivery import Delivery
from relay.dicomweb.routes import Changes
from relay.dicomweb.stow_store import StowStore
from relay.exams.holding import HOLDS
from relay.exams.quality import Quality
from relay.health.dicom_ports import DicomPort
from relay.health.site_health import SiteHealth
from relay.pages.site_facts import CircuitState, SiteFacts
from relay.settings import RelaySettings
from worklist import Worklist


def dicom_ports(settings: RelaySettings) -> tuple[DicomPort, ...]:
    """The DICOM ports of this site; one with number 0 is left out, because another process chooses it."""
    tls = CallFiles.of_own_listeners(settings)
    known = (
        ("worklist", "WORKLIST", settings.worklist_aet, settings.worklist_host, settings.worklist_port),
        ("archive", "PACS", settings.pacs_aet, settings.pacs_host, settings.pacs_port),
    )
    return tuple(
        DicomPort(
            f"{name}_port",
            Peer(aet, reachable(host), port, tls=tls is not None),
            remedy=_remedy(prefix),
            tls=tls,
        )
        for name, prefix, aet, host, port in known
        if port
    )


def _remedy(prefix: str) -> str:
    return (
        f"See that gateway-{prefix.lower()} runs, that it and gateway-relay have the same {prefix}_AET, {prefix}_HOST "
        f"and {prefix}_PORT, and that {OWN_TITLE} is in GATEWAY_CALLING_AETS if they run on different machines."
    )


def holds(settings: RelaySettings) -> frozenset[str]:
    """The findings of an exam that hold its images back from the cloud."""
    return HOLDS if settings.hold_mismatches else frozenset()


def changes(settings: RelaySettings) -> Changes:
    """What DICOMweb may change on this site."""
    stow_store = None
    if settings.largest_upload:
        tls = CallFiles.of_own_listeners(settings)
        archive = Peer(settings.pacs_aet, reachable(settings.pacs_host), settings.pacs_port, tls=tls is not None)
        # By C-STORE to the own archive, which stays the only process that stores images.
        stow_store = StowStore(archive, settings.upload_aet, tls)
    policy = RetentionPolicy(days=0, needs_commitment=settings.deletion_needs_commitment) if settings.delete else None
    return Changes(stow_store, settings.largest_upload, policy)


def site_facts(settings: RelaySettings, deliveries: Sequence[Delivery]) -> SiteFacts:
    """What pages show of this site beyond its databases; `deliveries` are the loops whose circuits they show."""
    days, needs_commitment = settings.retention_days, settings.deletion_needs_commitment
    return SiteFacts(
        refusals=settings.data_dir / FILE_NAME,
        backups=settings.pacs_db_path.parent,
        policy=RetentionPolicy(days, needs_commitment) if days else None,
        watermarks=settings.watermarks,
        circuits=lambda: {each.name: _circuit_state(each) for each in deliveries},
    )


def _circuit_state(delivery: Delivery) -> CircuitState:
    circuit = delivery.circuit
    return CircuitState(circuit.failures, circuit.knock_at, delivery.trouble, delivery.proven_at)


def site_health(
    settings: RelaySettings,
    worklist: Worklist,
    archive: Archive,
    *,
    deliveries: Sequence[Delivery],
    quality: Quality,
    access: AccessControl,
    recorder: AuditRecorder,
) -> SiteHealth:
    """What reports on this site; its `listener` is set once there is one."""
    return SiteHealth(
        site=settings.site,
        worklist=worklist,
        archive=archive,
        storage=settings.pacs_storage_path,
        watermarks=settings.watermarks,
        deliveries=deliveries,
        ports=dicom_ports(settings),
        quality=quality,
        http_audit=access.recorder,
        audit=recorder,
        trails=settings.audit_path,
        started_at=now(),
        clock=now,
    )
