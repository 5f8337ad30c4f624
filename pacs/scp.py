"""The DICOM services of the archive: its presentation contexts, and the handlers of storage and storage commitment.

Not for: query and retrieve (`pacs.query_retrieve.handlers`), sockets and failures (`gateway.dicom.listener`).
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from pydicom import Dataset, uid
from pynetdicom import AllStoragePresentationContexts

from gateway.audit.recorder import NoAudit
from gateway.dicom.application import UNCOMPRESSED, Application, Incoming, Request
from gateway.errors import ClassMismatch
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from pacs.archive.archive import Archive
from pacs.archive.receiving import ObjectOrigin
from pacs.audit import ArchiveAudit
from pacs.commitment import rules
from pacs.commitment.reporter import Reporter
from pacs.query_retrieve import query
from pacs.query_retrieve.handlers import QueryRetrieve

TRANSFER_SYNTAXES = tuple(
    str(syntax)
    for syntax in (
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGLosslessSV1,
        uid.JPEGLossless,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
        uid.RLELossless,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
    )
)
"""Each object is kept as sent. Big Endian was retired in 2006; it is not accepted, so peers send Little Endian."""

STORAGE_CLASSES = tuple(sorted({str(context.abstract_syntax) for context in AllStoragePresentationContexts}))


def application(
    archive: Archive,
    reporting: Reporter,
    *,
    ae_title: str,
    private_classes: Iterable[str] = (),
    peers: Iterable[Peer] = (),
    tls: CallFiles | None = None,
    audit: ArchiveAudit | None = None,
) -> Application:
    """The application for the listener. `reporting` takes the transactions of storage commitment.

    `peers` are the destinations of C-MOVE; those that want TLS are called with `tls`. Without `audit` nothing is
    written to the audit trail.
    """
    audit = audit or ArchiveAudit(NoAudit(), archive)
    storage = (*STORAGE_CLASSES, *private_classes)
    query_retrieve = QueryRetrieve(archive, ae_title=ae_title, peers=peers, tls=tls, audit=audit)
    return Application(
        ae_title=ae_title,
        contexts={
            **dict.fromkeys(storage, TRANSFER_SYNTAXES),
            **dict.fromkeys((rules.SOP_CLASS_UID, *query.SOP_CLASSES), UNCOMPRESSED),
        },
        handle_store=lambda request: handle_store(archive, request, audit),
        handle_action=lambda request: handle_action(reporting, request, audit),
        handle_find=query_retrieve.handle_find,
        handle_retrieve=query_retrieve.handle_retrieve,
        # In a C-GET the requestor is the SCP of storage, by role selection (PS3.7 D.3.3.4).
        reversible=dict.fromkeys(query.GET, frozenset(storage)),
        extended=query.EXTENDED,
        observer=audit,
    )


def handle_store(archive: Archive, request: Request, audit: ArchiveAudit) -> Incoming:
    """C-STORE (PS3.4 Annex B): the class has to be the one the context was negotiated for."""
    command = request.command
    if command.affected_sop_class_uid != request.abstract_syntax:
        raise ClassMismatch("The C-STORE request's SOP class is not that of its presentation context.")
    origin = ObjectOrigin(
        sop_class_uid=request.abstract_syntax,
        sop_instance_uid=command.affected_sop_instance_uid or "",
        transfer_syntax_uid=request.transfer_syntax,
        calling_ae_title=request.association.calling_ae_title,
        association_id=request.association.id,
    )
    receiving = archive.receive(origin, now=datetime.now(UTC))
    return audit.watched(receiving, request.association)


def handle_action(reporting: Reporter, request: Request, audit: ArchiveAudit) -> Dataset | None:
    """N-ACTION: request storage commitment (PS3.4 J.3.2)."""
    rules.expect_request(request.command, request.abstract_syntax)
    transaction = rules.requested(
        request.identifier(),
        requester=request.association.calling_ae_title,
        addressed=request.association.called_ae_title,
    )
    reporting.take(transaction, request.report_channel())
    audit.committed(request, [each.sop_instance_uid for each in transaction.references])
    return None
