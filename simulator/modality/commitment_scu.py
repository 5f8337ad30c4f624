"""What a machine asks of an archive before it deletes its own copies: storage commitment (PS3.4 Annex J), as its SCU.

`question` asks, `Reports` takes the answers, which come on the association that asked or on one that the archive opens.

Not for: associations to the archive; that is `modality`.
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
    """What the archive said about a transaction: the instances it keeps, and a Failure Reason for each other."""

    transaction_uid: str
    kept: frozenset[str]
    failed: dict[str, int]


def question(instances: Iterable[tuple[str, str]]) -> Dataset:
    """The action information that asks about instances, each with its class and its UID (PS3.4 Table J.3.2-1)."""
    ds = Dataset()
    ds.TransactionUID = generate_uid()
    ds.ReferencedSOPSequence = [reference(sop_class, instance) for sop_class, instance in instances]
    return ds


class Reports:
    """Takes and confirms reports, from whatever thread they come, and lets one wait for the answer it wants.

    A report has arrived when its confirmation has left: pynetdicom cannot send one on an association that is being
    released, and who waits releases it next.
    """

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Dataset] = queue.SimpleQueue()
        self._unconfirmed: dict[Association, Dataset] = {}
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
        """The answer to a transaction; None when none came in time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                information = self._arrived.get(timeout=left)
            except queue.Empty:
                return None
            if information.TransactionUID == transaction_uid:
                return answer_in(information)
        return None

    @contextmanager
    def listening(self, ae_title: str, port: int) -> Iterator[None]:
        """Let the archive call at a port of this machine, as the SCP that it is (PS3.7 D.3.3.4)."""
        ae = AE(ae_title)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=self.handlers)
        try:
            yield
        finally:
            if server is not None:
                server.shutdown()


def answer_in(information: Dataset) -> Answer:
    """What a report says (PS3.4 Tables J.3.3-1 and J.3.3-2)."""
    return Answer(
        transaction_uid=str(information.TransactionUID),
        kept=frozenset(str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", ())),
        failed={
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
            for item in information.get("FailedSOPSequence", ())
        },
    )


def shortfall(asked: Collection[str], answer: Answer | None) -> str:
    """What is missing for everything that was asked about to be promised, in a sentence; nothing if nothing is."""
    if answer is None:
        return "The archive did not report on storage commitment in time."
    wanted = set(asked)
    if answer.kept == wanted:
        return ""
    reasons = ", ".join(f"{uid}: {reason:04X}H" for uid, reason in sorted(answer.failed.items()))
    return f"{len(answer.kept & wanted)} of {len(wanted)} images were committed; not {reasons}."
