"""The DICOM services of the worklist: its presentation contexts, and one handler for each operation.

A handler unpacks the request and calls one method of `Worklist`; refusals pass through to the listener. Not for:
sockets and failures (`gateway.dicom.listener`), matching (`gateway.query.matching`), the rules of items and steps
(`items`, `mpps`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import structlog
from pydicom.dataset import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
)

from gateway.audit.recorder import NoAudit
from gateway.dataset.character_sets import CharacterSet
from gateway.dicom.application import UNCOMPRESSED, Application, Match, Request
from gateway.errors import ClassMismatch, InvalidValue, MissingAttribute, Unsupported
from gateway.query import identifiers, matching
from worklist import answers
from worklist.audit import ModalityAudit
from worklist.item_rows import KEYS
from worklist.store import Worklist
from worklist.visibility import VisibilityRules

PENDING, PENDING_WITH_WARNING = 0xFF00, 0xFF01
"""More answers follow; with the warning that an optional key was not matched (PS3.4 Table K.4-1)."""

CONTEXTS = {
    str(uid): UNCOMPRESSED
    for uid in (
        ModalityWorklistInformationFind,
        ModalityPerformedProcedureStep,
        ModalityPerformedProcedureStepRetrieve,
    )
}

_UID = re.compile(r"[0-9.]{1,64}")

log = structlog.get_logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Scp:
    """The handlers over one worklist.

    `visibility` has the rule of each peer, `character_sets` the set in which a peer (by its calling AE title) is always
    answered. `clock` gives the time that is recorded. Without `audit` nothing is written to the audit trail.
    """

    def __init__(
        self,
        worklist: Worklist,
        *,
        visibility: VisibilityRules | None = None,
        character_sets: Mapping[str, CharacterSet] = MappingProxyType({}),
        clock: Callable[[], datetime] = _utc_now,
        audit: ModalityAudit | None = None,
    ) -> None:
        self.worklist = worklist
        self.visibility = visibility or VisibilityRules()
        self.character_sets = character_sets
        self.clock = clock
        self.audit = audit or ModalityAudit(NoAudit(), worklist)

    def application(self, ae_title: str) -> Application:
        """The application for the listener; `ae_title` is ours."""
        return Application(
            ae_title=ae_title,
            contexts=CONTEXTS,
            handle_find=self.handle_find,
            handle_create=self.handle_create,
            handle_set=self.handle_set,
            handle_get=self.handle_get,
            observer=self.audit,
        )

    def handle_find(self, request: Request) -> Iterator[Match]:
        """Modality Worklist C-FIND, PS3.4 K.4.1."""
        self.audit.queried(request)
        identifier = identifiers.read(request.data_set, request.transfer_syntax)
        caller = request.association.calling_ae_title
        form = answers.form(identifier, request.transfer_syntax, wanted=self.character_sets.get(caller))
        unmatched = matching.ignored_of(identifier.values, KEYS)
        status = PENDING_WITH_WARNING if unmatched else PENDING
        visible = self.visibility.for_peer(caller, now=self.clock())
        count = approximate = 0
        try:
            for found in self.worklist.find(identifier.values, calling_ae_title=caller, visibility=visible):
                answer = answers.packed(form, found.data_set, found.station)
                yield Match(answer.data, status)
                count += 1
                approximate += answer.is_approximate
        except GeneratorExit:  # C-CANCEL, or the peer has gone: the listener closes the generator
            log.info("worklist query broken off", answers=count)
            raise
        log.info("worklist answered", answers=count, unmatched_keys=unmatched, approximate=approximate)

    def handle_create(self, request: Request) -> Dataset | None:
        """MPPS N-CREATE, PS3.4 F.7.2.1."""
        uid = _step(request, request.command.affected_sop_class_uid, request.command.affected_sop_instance_uid)
        self.worklist.begin(uid, request.identifier(), now=self.clock())
        self.audit.step(request, uid, "C")
        log.info("step begun", mpps_instance_uid=uid)
        return None

    def handle_set(self, request: Request) -> Dataset | None:
        """MPPS N-SET, PS3.4 F.7.2.2."""
        uid = _step(request, request.command.requested_sop_class_uid, request.command.requested_sop_instance_uid)
        self.worklist.change(uid, request.identifier(), now=self.clock())
        self.audit.step(request, uid, "U")
        log.info("step changed", mpps_instance_uid=uid)
        return None

    def handle_get(self, request: Request) -> Dataset | None:
        """MPPS Retrieve N-GET, PS3.4 F.8.2.1; without a list of attributes, all of them."""
        uid = _step(
            request,
            request.command.requested_sop_class_uid,
            request.command.requested_sop_instance_uid,
            served_by=ModalityPerformedProcedureStepRetrieve,
        )
        step, wanted = self.worklist.step(uid), request.command.attribute_identifier_list
        self.audit.step(request, uid, "R")
        return step if wanted is None else _only(step, wanted)


def _step(
    request: Request,
    class_uid: str | None,
    instance_uid: str | None,
    *,
    served_by: str = ModalityPerformedProcedureStep,
) -> str:
    """The UID of the step a request is about, if the request may be made here.

    Raises Unsupported in the context of the other class (PS3.4 Tables F.7.1-1 and F.8.1-1), ClassMismatch when the
    command names another class than its context. All classes share the instance, so N-GET may name the one it was
    created under (F.8.2.1).
    """
    if request.abstract_syntax != served_by:
        raise Unsupported("This operation is not one of the presentation context's SOP class.")
    if class_uid not in (None, served_by, ModalityPerformedProcedureStep):
        raise ClassMismatch("The SOP class of the request is not that of its presentation context.")
    if not instance_uid:
        raise MissingAttribute("The SOP Instance UID of the performed procedure step is missing.")
    if not _UID.fullmatch(instance_uid):
        raise InvalidValue("The SOP Instance UID of the performed procedure step is not a UID.")
    return instance_uid


def _only(data_set: Dataset, tags: tuple[int, ...]) -> Dataset:
    kept = Dataset()
    # Specific Character Set is always returned, because the texts cannot be read without it (PS3.3 C.12.1.1.2).
    for tag in {0x00080005, *tags}:
        if tag in data_set:
            kept[tag] = data_set[tag]
    return kept
