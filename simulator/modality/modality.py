"""A mammography machine that does everything right: worklist query, MPPS, C-STORE, storage commitment.

Used by the demonstration, the check and the journeys. Every method opens an association of its own and returns only
what the gateway confirmed; anything else raises a ModalityError with the answer.

Not for: load (one exam at a time), oddities of real machines (`scripted_machine`), the images (`phantom`).
"""

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from gateway.dicom.requestor import PENDING
from gateway.errors import GatewayError
from gateway.remote_ae import Peer
from simulator.exam import phantom, steps
from simulator.exam.exam import SCREENING_VIEWS, Exam
from simulator.exam.steps import Sent, sent_of
from simulator.modality.commitment_scu import Answer, Reports, question, shortfall
from simulator.modality.pynetdicom_rejection import requested
from simulator.modality.pynetdicom_responses import LEAVE_RESPONSES

__all__ = ["Modality", "ModalityError", "Peer", "Sent", "Step", "data_set_bytes", "standard_views"]


class ModalityError(GatewayError):
    """A request of the machine was not fulfilled; the message says what was answered instead."""


@dataclass(frozen=True)
class Step:
    """A performed procedure step in progress, and the exam that its images belong to."""

    mpps_instance_uid: str
    exam: Exam


class Modality:
    """One machine with its AE title, and the two peers it is configured with."""

    def __init__(
        self,
        ae_title: str,
        *,
        worklist: Peer,
        pacs: Peer,
        timeout_seconds: float = 30,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Both peers are called within `tls`, or both without."""
        self.ae_title = ae_title
        self._worklist = worklist
        self._pacs = pacs
        self._timeout = timeout_seconds
        self._tls = tls

    def echo_worklist(self) -> None:
        """C-ECHO to the worklist."""
        self._echo(self._worklist)

    def echo_pacs(self) -> None:
        """C-ECHO to the archive."""
        self._echo(self._pacs)

    def find(self, *, accession_number: str = "", date: str = "") -> list[Dataset]:
        """Query the worklist with a C-FIND (PS3.4 Annex K); empty keys match everything. `date` is DA, or a range."""
        identifier = steps.query({"AccessionNumber": accession_number, "ScheduledProcedureStepStartDate": date})
        with self._association(self._worklist, [ModalityWorklistInformationFind]) as assoc:
            return list(_answers(assoc.send_c_find(identifier, ModalityWorklistInformationFind)))

    def begin(self, item: Dataset, *, now: datetime) -> Step:
        """Report with an N-CREATE that the scheduled step was begun. `now` is the machine's wall time."""
        uid, [sps] = str(generate_uid()), item.ScheduledProcedureStepSequence
        step = Step(uid, steps.exam_of(item, station=self.ae_title, now=now, mpps_instance_uid=uid))
        created = steps.created([item], step_id=str(sps.ScheduledProcedureStepID), station=self.ae_title, now=now)
        with self._association(self._worklist, [ModalityPerformedProcedureStep]) as assoc:
            status, _ = assoc.send_n_create(created, ModalityPerformedProcedureStep, uid)
        _expect_success("N-CREATE of the performed procedure step", status)
        return step

    def store(self, images: Iterable[Dataset]) -> Iterator[Sent]:
        """Send images over one association, yielding each as soon as the gateway confirmed it."""
        with self._association(self._pacs, STORED_CLASSES, STORED_SYNTAXES) as assoc:
            for image in images:
                status = assoc.send_c_store(image)
                _expect_success(f"C-STORE of {image.SOPInstanceUID}", status)
                yield sent_of(image, data_set_bytes(image))

    def commit(self, images: Sequence[Sent]) -> None:
        """Request storage commitment of images (PS3.4 Annex J), and wait for the report on the same association."""
        reports = Reports()
        with self._association(self._pacs, [StorageCommitmentPushModel], handlers=reports.handlers) as assoc:
            transaction_uid = _ask_for_commitment(assoc, images)
            answer = reports.wait(transaction_uid, seconds=self._timeout)
        _expect_all_kept(images, answer)

    def commit_and_be_called(self, images: Sequence[Sent], *, port: int) -> None:
        """The same, but release the association, and wait for one of the archive at a port of this machine."""
        reports = Reports()
        with reports.listening(self.ae_title, port):
            with self._association(self._pacs, [StorageCommitmentPushModel]) as assoc:
                transaction_uid = _ask_for_commitment(assoc, images)
            answer = reports.wait(transaction_uid, seconds=self._timeout)
        _expect_all_kept(images, answer)

    def complete(self, step: Step, images: Sequence[Sent], *, now: datetime) -> None:
        """Report with an N-SET that the step is completed and which images it made."""
        self._finish(step, steps.finished("COMPLETED", images, now=now, operator=self.ae_title))

    def discontinue(self, step: Step, images: Sequence[Sent] = (), *, now: datetime) -> None:
        """Report with an N-SET that the step was discontinued; CID 9300, 110513: for unspecified reason."""
        final = steps.finished("DISCONTINUED", images, now=now, operator=self.ae_title, reason="110513")
        self._finish(step, final)

    def _finish(self, step: Step, final: Dataset) -> None:
        with self._association(self._worklist, [ModalityPerformedProcedureStep]) as assoc:
            status, _ = assoc.send_n_set(final, ModalityPerformedProcedureStep, step.mpps_instance_uid)
        _expect_success(f"N-SET {final.PerformedProcedureStepStatus}", status)

    def _echo(self, peer: Peer) -> None:
        with self._association(peer, [Verification]) as assoc:
            _expect_success("C-ECHO", assoc.send_c_echo())

    @contextmanager
    def _association(
        self,
        peer: Peer,
        classes: Sequence[str],
        syntaxes: Sequence[str] = DEFAULT_TRANSFER_SYNTAXES,
        *,
        handlers: Sequence[evt.EventHandlerType] = (),
    ) -> Iterator[Association]:
        # pynetdicom and not our requestor: what shares no line with our listener cannot confirm our misunderstandings.
        ae = AE(self.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = self._timeout
        ae.network_timeout = 2 * self._timeout  # silence while a report is waited for must not end the association
        for sop_class in classes:
            ae.add_requested_context(sop_class, list(syntaxes))
        tls = (self._tls, peer.host) if self._tls else None
        bound = [LEAVE_RESPONSES, *handlers]
        assoc = requested(ae.associate, peer.host, peer.port, ae_title=peer.ae_title, tls_args=tls, evt_handlers=bound)
        if not assoc.is_established:
            raise ModalityError(f"No association with {peer}: {_why_not(assoc)}.")
        try:
            yield assoc
        except BaseException:
            # Not released, because a release says that both sides are done (PS3.8 7.2).
            assoc.abort()
            raise
        assoc.release()


STORED_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1.2",  # Digital Mammography X-Ray, For Presentation
    "1.2.840.10008.5.1.4.1.1.1.2.1",  # and For Processing
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis
)
STORED_SYNTAXES = (ExplicitVRLittleEndian,)
"""The syntax of the phantom. Nothing else is proposed, so that images arrive byte for byte as they were made."""


def standard_views(
    step: Step, *, views: Sequence[str] = SCREENING_VIEWS, rows: int = phantom.ROWS, columns: int = phantom.COLUMNS
) -> Iterator[Dataset]:
    """Make the images of a step one at a time; the default is the real size."""
    return (phantom.mammogram(view, step.exam, rows=rows, columns=columns) for view in views)


def data_set_bytes(image: Dataset) -> bytes:
    """The data set of an image as it travels, in the transfer syntax its file meta names."""
    syntax = image.file_meta.TransferSyntaxUID
    encoded = encode(image, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    if encoded is None:
        raise ModalityError(f"{image.SOPInstanceUID} cannot be encoded as {syntax.name}.")
    return encoded


def _answers(responses: Iterable[tuple[Dataset, Dataset | None]]) -> Iterator[Dataset]:
    for status, identifier in responses:
        if getattr(status, "Status", None) in PENDING and identifier is not None:
            yield identifier
        else:
            _expect_success("C-FIND on the worklist", status)


def _ask_for_commitment(assoc: Association, images: Sequence[Sent]) -> str:
    """Send the N-ACTION and give the UID of its transaction."""
    requested = question((image.sop_class_uid, image.sop_instance_uid) for image in images)
    status, _ = assoc.send_n_action(requested, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    _expect_success("N-ACTION for storage commitment", status)
    return str(requested.TransactionUID)


def _expect_all_kept(images: Sequence[Sent], answer: Answer | None) -> None:
    if missing := shortfall([image.sop_instance_uid for image in images], answer):
        raise ModalityError(missing)


def _expect_success(what: str, status: Dataset) -> None:
    """Raise ModalityError unless the response says 0000; an empty status is pynetdicom's word for no response."""
    if "Status" not in status:
        raise ModalityError(f"{what} got no answer; the association was lost.")
    if status.Status != 0x0000:
        comment = status.get("ErrorComment") or "no comment"
        raise ModalityError(f"{what} was answered with status {status.Status:04X}: {comment}.")


def _why_not(assoc: Association) -> str:
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        return f"rejected, {answer.reason_str}" if answer is not None else "rejected"
    return "aborted during negotiation" if assoc.is_aborted and assoc.acceptor.primitive else "nobody answers there"
