"""Start the archive: `python -m pacs`."""

import sys
from contextlib import closing

from gateway.audit.recorder import AuditRecorder
from gateway.dicom.application import ListenerLimits
from gateway.dicom.listener import Listener
from gateway.log import configure
from gateway.process import run, until_stopped
from gateway.refusals import FILE_NAME, RefusalRecorder
from gateway.settings import load
from gateway.tls import CallFiles, calling_context
from gateway.tls_reload import ServerTls
from pacs.archive.archive import Archive
from pacs.archive.files import Files
from pacs.audit import ArchiveAudit
from pacs.commitment.reporter import Reporter
from pacs.forward.sender import ForwardSender
from pacs.maintenance.retention import RetentionPolicy
from pacs.maintenance.schedule import Maintenance, MaintenanceSchedule
from pacs.scp import application
from pacs.settings import PacsSettings


def main() -> None:
    """Receive images from modalities until the process gets a signal to stop."""
    settings = load(PacsSettings)
    configure(settings.log_level, process="pacs")
    tls, call_tls = ServerTls.of(settings), call_files(settings)
    # The listener is entered last and left first, because its handlers use everything above it.
    with (
        closing(Archive.open(settings.db_path, settings.storage_path, settings.watermarks)) as archive,
        AuditRecorder(settings.audit_path, "pacs", site=settings.site) as recorder,
        RefusalRecorder(settings.data_dir / FILE_NAME, process="pacs") as refusals,
        Maintenance(archive, Files(settings.storage_path), schedule(settings)),
        Reporter(archive, settings.peers, tls=call_tls) as reporting,
        ForwardSender(archive, settings.peers, settings.forward_to, ae_title=settings.aet, tls=call_tls) as forwarding,
    ):
        served = application(
            archive,
            reporting,
            ae_title=settings.aet,
            private_classes=settings.private_classes,
            peers=settings.peers,
            tls=call_tls,
            audit=ArchiveAudit(recorder, archive),
        )
        limits = ListenerLimits(settings.max_associations, settings.max_associations_per_peer)
        callers = settings.calling_aets
        with Listener(
            served, host=settings.host, port=settings.port, limits=limits, callers=callers, tls=tls, note=refusals.note
        ) as listener:
            until_stopped(lambda: still_working(listener, reporting, forwarding))


def still_working(*parts: Listener | Reporter | ForwardSender) -> None:
    """Raise when one of them has died."""
    for part in parts:
        part.still_working()


def call_files(settings: PacsSettings) -> CallFiles | None:
    """The TLS files for calling peers. Raises SettingsError when a peer wants TLS and they cannot be used."""
    files = CallFiles.of(settings)
    # Loaded once here, because a wrong file must end the start and not the first call days later.
    if files is not None and any(peer.tls for peer in settings.peers):
        calling_context(files)
    return files


def schedule(settings: PacsSettings) -> MaintenanceSchedule:
    """The nightly work by the settings."""
    policy = (
        RetentionPolicy(settings.retention_days, settings.retention_needs_commitment)
        if settings.retention_days
        else None
    )
    return MaintenanceSchedule(settings.night_hour, policy, settings.scrub_bytes_per_second)


if __name__ == "__main__":
    sys.exit(run(main))
