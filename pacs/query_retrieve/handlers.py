"""The handlers of C-FIND, C-GET and C-MOVE over an archive.

Not for: the rules of identifiers (`query`), sending and counting objects (`retrieve`).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import structlog
from pydicom import Dataset

from gateway.dataset.dicom_json import DicomJson
from gateway.dicom.application import Match, Progress, Request
from gateway.dicom.dimse import CommandField
from gateway.dicom.requestor import calling, proposals
from gateway.dicom.store_suboperations import StoreSender
from gateway.errors import PeerError, UnknownDestination
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from pacs.archive.archive import Archive, Stored
from pacs.archive.index import Level
from pacs.audit import ArchiveAudit
from pacs.query_retrieve import query, retrieve

PENDING, PENDING_WITH_WARNING = 0xFF00, 0xFF01
"""More answers follow; with the warning that an optional key was not matched (PS3.4 C.4.1.1.4)."""

log = structlog.get_logger()


class QueryRetrieve:
    """Serves queries and retrievals of one archive.

    `peers` are the destinations of C-MOVE, those that want TLS are called with `tls`; `audit` writes the messages.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        ae_title: str,
        peers: Iterable[Peer] = (),
        tls: CallFiles | None = None,
        audit: ArchiveAudit,
    ) -> None:
        self._archive = archive
        self._ae_title = ae_title
        self._tls = tls
        self._audit = audit
        self._peers = {peer.ae_title: peer for peer in peers}

    def handle_find(self, request: Request) -> Iterator[Match]:
        """C-FIND (PS3.4 C.4.1)."""
        self._audit.queried(request)
        identifier = request.identifier()
        relational = request.context.extended[:1] == b"\x01"
        level = query.query_level(request.abstract_syntax, identifier, relational=relational)
        unmatched = self._archive.unmatched(level, identifier)
        status = PENDING_WITH_WARNING if unmatched else PENDING
        answers = 0
        for found in self._found(level, identifier):
            answer = query.answer(
                found, identifier, level, ae_title=self._ae_title, transfer_syntax=request.transfer_syntax
            )
            yield Match(answer, status)
            answers += 1
        log.info("query answered", query_level=level, answers=answers, unmatched_keys=unmatched)

    def handle_retrieve(self, request: Request, sender: StoreSender) -> Iterator[Progress]:
        """C-GET and C-MOVE (PS3.4 C.4.2, C.4.3)."""
        is_move = request.command.command_field == CommandField.C_MOVE
        destination = self._destination(request) if is_move else None
        instances = self._archive.select(query.wanted(request.abstract_syntax, request.identifier()))
        if destination is None or not instances:
            answers = retrieve.suboperations(instances, sender, request.is_cancelled)
        else:
            answers = self._moved(instances, destination, request)
        for progress in self._audited(request, instances, answers):
            yield progress
        log.info(
            "retrieval answered",
            destination=destination.ae_title if destination else request.association.calling_ae_title,
            instances=len(instances),
            failed=len(progress.failed_uids),
            status=f"{progress.status:04X}H",
        )

    def _audited(
        self, request: Request, instances: Sequence[Stored], answers: Iterable[Progress]
    ) -> Iterator[Progress]:
        """Write to the audit trail that objects begin to leave, and at the end, also of a lost peer, which did."""
        if not instances:
            yield from answers
            return
        self._audit.began(request, instances)
        last = None
        try:
            for progress in answers:
                last = progress
                yield progress
        finally:
            self._audit.transferred(request, instances, last)

    def _found(self, level: Level, identifier: Dataset) -> Iterator[DicomJson]:
        for offset in count(0, query.PAGE):
            page = self._archive.find(level, identifier, limit=query.PAGE, offset=offset)
            yield from page
            if len(page) < query.PAGE:
                return

    def _destination(self, request: Request) -> Peer:
        ae_title = request.command.move_destination or ""
        peer = self._peers.get(ae_title)
        if peer is None:
            raise UnknownDestination(f"Move destination {ae_title[:16]!r} is not in PACS_PEERS.")
        return peer

    def _moved(self, instances: Sequence[Stored], destination: Peer, request: Request) -> Iterator[Progress]:
        kinds = [(stored.sop_class_uid, stored.transfer_syntax_uid) for stored in instances]
        message_id = request.command.message_id or 0
        originator = (request.association.calling_ae_title, message_id)
        try:
            with calling(
                destination,
                proposals(kinds),
                ae_title=self._ae_title,
                tls=self._tls,
                originator=originator,
                look=request.is_cancelled,  # raises when the requester has gone
            ) as call:
                yield from retrieve.suboperations(instances, call, request.is_cancelled)
        except PeerError as error:
            log.warning("destination not reached", reason=str(error))
            yield retrieve.unreached(instances)
