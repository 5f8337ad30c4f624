"""Storage commitment as its SCU (PS3.4 Annex J): what a machine requests before it deletes its own copies.

`question` makes the request. `Reports` takes the N-EVENT-REPORT, on the same association or on one of the archive.

Not for: associations to the archive (`modality`).
"""

import queue
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from simulator.exam.exam import reference


@dataclass(frozen=True)
class Answer:
    """The report of a transaction: the committed instances, and a Failure Reason for each other."""

    transaction_uid: str
    kept: frozenset[str]
    failed: dict[str, int]


def question(instances: Iterable[tuple[str, str]]) -> Dataset:
    """The action information for instances, each with its class and its UID (PS3.4 Table J.3.2-1)."""
    ds = Dataset()
    ds.TransactionUID = generate_uid()
    ds.ReferencedSOPSequence = [reference(sop_class, instance) for sop_class, instance in instances]
    return ds


class Reports:
    """Takes and confirms reports, in any thread; `wait` gives the one of a transaction."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Dataset] = queue.SimpleQueue()
        self._unconfirmed: dict[Association, Dataset] = {}
        # A report has arrived when its confirmation has left, because pynetdicom cannot send one on an association that
        # is being released, and the caller of `wait` releases it next.
        self.handlers: list[evt.EventHandlerType] = [
            (evt.EVT_N_EVENT_REPORT, self._take),
            (evt.EVT_PDU_SENT, self._confirmed),
        ]

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self._unconfirmed[event.assoc] = event.event_information
        return 0x0000, None

    def _confirmed(self, event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF) and (information := self._unconfirmed.pop(event.assoc, None)):
            self._arrived.put(information)

    def wait(self, transaction_uid: str, *, seconds: float) -> Answer | None:
        """The report of a transaction; None when none came in time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                information = self._arrived.get(timeout=left)
            except queue.Empty:
                return None
            # Another one is a late report of a transaction that was given up.
            if information.TransactionUID == transaction_uid:
                return answer_in(information)
        return None

    @contextmanager
    def listening(self, ae_title: str, port: int) -> Iterator[None]:
        """Accept associations of the archive at a port of this machine, with the roles reversed (PS3.7 D.3.3.4)."""
        ae = AE(ae_title)
        # The machine stays the SCU on an association that it did not open, so the archive proposes the role of SCP.
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=self.handlers)
        try:
            yield
        finally:
            if server is not None:
                server.shutdown()


def answer_in(information: Dataset) -> Answer:
    """Read the event information of a report (PS3.4 Tables J.3.3-1 and J.3.3-2)."""
    return Answer(
        transaction_uid=str(information.TransactionUID),
        kept=frozenset(str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", ())),
        failed={
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
            for item in information.get("FailedSOPSequence", ())
        },
    )


def shortfall(requested: Collection[str], answer: Answer | None) -> str:
    """A sentence about the requested instances that are not committed; empty when all are."""
    if answer is None:
        return "The archive did not report on storage commitment in time."
    wanted = set(requested)
    if answer.kept == wanted:
        return ""
    reasons = ", ".join(f"{uid}: {reason:04X}H" for uid, reason in sorted(answer.failed.items()))
    return f"{len(answer.kept & wanted)} of {len(wanted)} images were committed; not {reasons}."
