"""Start the archive: `python -m pacs`."""

import sys
from contextlib import closing

from gateway.audit.recorder import Recording
from gateway.dicom.application import Limits
from gateway.dicom.listener import Listener
from gateway.log import configure
from gateway.process import run, until_stopped
from gateway.refusals import FILE_NAME, Noting
from gateway.settings import load
from gateway.tls import CallFiles, calling_context
from gateway.tls_reload import ServerTls
from pacs.archive.archive import Archive
from pacs.archive.files import Files
from pacs.audit import Accounts
from pacs.commitment.reporter import Reporting
from pacs.forward.sender import Forwarding
from pacs.maintenance.retention import Policy
from pacs.maintenance.schedule import Care, Rounds
from pacs.scp import application
from pacs.settings import PacsSettings


def main() -> None:
    """Take images from modalities until asked to stop."""
    settings = load(PacsSettings)
    configure(settings.log_level, process="pacs")
    tls, call_tls = ServerTls.of(settings), call_files(settings)
    with (
        closing(Archive.open(settings.db_path, settings.storage_path, settings.watermarks)) as archive,
        Recording(settings.audit_path, "pacs", site=settings.site) as recording,
        Noting(settings.data_dir / FILE_NAME, process="pacs") as noting,
        Care(archive, Files(settings.storage_path), rounds(settings)),
        Reporting(archive, settings.peers, tls=call_tls) as reporting,
        Forwarding(archive, settings.peers, settings.forward_to, ae_title=settings.aet, tls=call_tls) as forwarding,
    ):
        served = application(
            archive,
            reporting,
            ae_title=settings.aet,
            private_classes=settings.private_classes,
            peers=settings.peers,
            tls=call_tls,
            accounts=Accounts(recording, archive),
        )
        limits = Limits(settings.max_associations, settings.max_associations_per_peer)
        callers = settings.calling_aets
        with Listener(
            served, host=settings.host, port=settings.port, limits=limits, callers=callers, tls=tls, note=noting.note
        ) as listener:
            until_stopped(lambda: still_working(listener, reporting, forwarding))


def still_working(*parts: Listener | Reporting | Forwarding) -> None:
    """Raise when one of them has died."""
    for part in parts:
        part.still_working()


def call_files(settings: PacsSettings) -> CallFiles | None:
    """What peers are called with within TLS. Raises SettingsError when it does not serve and one wants that."""
    files = CallFiles.of(settings)
    if files is not None and any(peer.tls for peer in settings.peers):
        calling_context(files)
    return files


def rounds(settings: PacsSettings) -> Rounds:
    """What is to be done every night."""
    policy = Policy(settings.retention_days, settings.retention_needs_commitment) if settings.retention_days else None
    return Rounds(settings.night_hour, policy, settings.scrub_bytes_per_second)


if __name__ == "__main__":
    sys.exit(run(main))
