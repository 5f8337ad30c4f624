"""Start the worklist: `python -m worklist`."""

import sys
from contextlib import closing

from gateway.audit.recorder import AuditRecorder
from gateway.dicom.application import ListenerLimits
from gateway.dicom.listener import Listener
from gateway.log import configure
from gateway.process import run, until_stopped
from gateway.refusals import FILE_NAME, RefusalRecorder
from gateway.settings import load
from gateway.tls_reload import ServerTls
from worklist.audit import ModalityAudit
from worklist.expiry import Expiry
from worklist.scp import Scp
from worklist.settings import WorklistSettings
from worklist.store import Worklist


def main() -> None:
    """Serve modalities until the process gets a signal to stop."""
    settings = load(WorklistSettings)
    configure(settings.log_level, process="worklist")
    tls = ServerTls.of(settings)
    # The listener is entered last and left first, because its handlers use everything above it.
    with (
        closing(Worklist.open(settings.db_path)) as worklist,
        AuditRecorder(settings.audit_path, "worklist", site=settings.site) as recorder,
        RefusalRecorder(settings.data_dir / FILE_NAME, process="worklist") as refusals,
        Expiry(worklist, keep_days=settings.keep_days, hour=settings.night_hour),
    ):
        audit = ModalityAudit(recorder, worklist)
        scp = Scp(worklist, visibility=settings.visibility, character_sets=settings.character_sets, audit=audit)
        application = scp.application(settings.aet)
        limits = ListenerLimits(settings.max_associations, settings.max_associations_per_peer)
        callers = settings.calling_aets
        with Listener(
            application,
            host=settings.host,
            port=settings.port,
            limits=limits,
            callers=callers,
            tls=tls,
            note=refusals.note,
        ) as listener:
            until_stopped(listener.still_working)


if __name__ == "__main__":
    sys.exit(run(main))
