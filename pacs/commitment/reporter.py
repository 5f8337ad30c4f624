"""The thread of storage commitment: it verifies files and reports to requesters until they confirm (PS3.4 J.3.3).

A report goes over the association of its request if that is still open, else over a new one to the requester's address
in PACS_PEERS, with all reports that are due for it. A report that is not confirmed stays in the database and is tried
again, also after a restart.

Not for: rules (`rules`), statements (`rows`).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from types import TracebackType
from typing import Self

import structlog

from gateway.dicom.application import UNCOMPRESSED
from gateway.dicom.event_reports import NotReported, ReportChannel
from gateway.dicom.negotiation import ProposedContext
from gateway.dicom.requestor import Call, calling
from gateway.errors import GatewayError, NotFound, PeerError, place
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from pacs.archive.archive import Archive
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.archive.verify import Stopped, trouble
from pacs.commitment.rows import CommitmentRows, OpenCommitment
from pacs.commitment.rules import SOP_CLASS_UID, CommitmentOutcome, Reference, Transaction, pause, report

VERIFY_BYTES_PER_SECOND = 200_000_000
"""An exam of 70 MB is verified within a second, and a fast disk has time for the images that come in."""

ANSWER_SECONDS = 10.0
"""Time limit of a requester for each of connecting, negotiating and answering a report."""

AT_ONCE = 100
"""Transactions that are read at once."""

LOOK_SECONDS = 5.0
"""Interval at which the rows are searched for a pause that is over."""

OUTCOMES: Mapping[str, CommitmentOutcome] = {
    "": CommitmentOutcome.COMMITTED,
    "missing_file": CommitmentOutcome.NO_SUCH_INSTANCE,
    "wrong_size": CommitmentOutcome.PROCESSING_FAILURE,
    "wrong_hash": CommitmentOutcome.PROCESSING_FAILURE,
    "unreadable_file": CommitmentOutcome.NO_RESOURCES,
}
"""The outcome for each result of verification: the requester has to send the object again, or to request again."""

log = structlog.get_logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Reporter:
    """Verifies and reports from entering to leaving the block.

    `peers` are the applications whose address is known; those that want TLS are called with `tls`.
    """

    def __init__(
        self,
        archive: Archive,
        peers: Iterable[Peer],
        *,
        tls: CallFiles | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._archive = archive
        self._rows = CommitmentRows(archive)
        self._maintenance = MaintenanceRows(archive)
        self._peers = {peer.ae_title: peer for peer in peers}
        self._tls = tls
        self._clock = clock
        self._channels: dict[str, ReportChannel] = {}
        self._taking = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        # One thread, because a hundred requests must not read a hundred files side by side.
        self._thread = threading.Thread(target=self._run, name="commitment", daemon=True)

    def __enter__(self) -> Self:
        self._rows.hasten(now=self._clock())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def still_working(self) -> None:
        """Raise RuntimeError when the thread has died, so that the process ends and is started again."""
        if not self._thread.is_alive():
            raise RuntimeError("The thread that reports on storage commitment has died.")

    def take(self, transaction: Transaction, report_channel: ReportChannel) -> None:
        """Enter a transaction to be reported; it is on disk when this returns. Raises DuplicateTransaction."""
        with self._taking:  # the reporting thread must never see the row without its report channel
            if self._rows.take(transaction, now=self._clock()):
                self._channels[transaction.transaction_uid] = report_channel
        self._wake.set()
        log.info(
            "commitment requested",
            transaction_uid=transaction.transaction_uid,
            requester=transaction.requester,
            instances=len(transaction.references),
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            is_more = False
            try:
                is_more = self._report_due()
            except Stopped:
                return
            except (GatewayError, OSError) as error:  # a full disk or a locked database will pass
                log.warning("commitment postponed", reason=str(error))
            if not is_more:
                self._wake.wait(LOOK_SECONDS)

    def _report_due(self) -> bool:
        """Verify and report up to `AT_ONCE` transactions that are due; True when there were as many."""
        with self._taking:
            due = self._rows.due(now=self._clock(), limit=AT_ONCE)
        for (requester, addressed), commitments in groupby(due, key=_parties):
            verified = [commitment if commitment.outcomes else self._verified(commitment) for commitment in commitments]
            left = self._left_after_reporting_back(verified)
            if left:
                self._report_anew(requester, addressed, left)
        return len(due) == AT_ONCE

    # ---- verifying ---------------------------------------------------------------------------------------------------

    def _verified(self, commitment: OpenCommitment) -> OpenCommitment:
        outcomes = tuple(self._outcome(reference) for reference in commitment.transaction.references)
        self._rows.verified(commitment.id, outcomes, now=self._clock())
        return replace(commitment, outcomes=outcomes)

    def _outcome(self, reference: Reference) -> CommitmentOutcome:
        try:
            stored = self._archive.instance(reference.sop_instance_uid)
        except NotFound:
            return CommitmentOutcome.NO_SUCH_INSTANCE
        if stored.sop_class_uid != reference.sop_class_uid:
            return CommitmentOutcome.CLASS_CONFLICT
        # Read from the disk and not taken from the index, because the requester may delete its own copy after this.
        code = trouble(stored.path, size_bytes=stored.size_bytes, sha256=stored.sha256, after_read=self._take_time)
        if code == "missing_file" and not self._archive.is_mounted():
            return CommitmentOutcome.NO_RESOURCES  # the whole volume is away
        if code:
            self._report_damage(reference.sop_instance_uid, code)
        return OUTCOMES[code]

    def _report_damage(self, sop_instance_uid: str, code: str) -> None:
        # Remembered, because a resend of the same object replaces the file only if it is known as damaged.
        kept = self._maintenance.kept(sop_instance_uid)
        if kept is not None and self._maintenance.report_damage(kept, code, now=self._clock()):
            log.error("instance damaged", sop_instance_uid=sop_instance_uid, code=code)

    def _take_time(self, count: int) -> None:
        if self._stop.wait(count / VERIFY_BYTES_PER_SECOND):
            raise Stopped

    # ---- reporting ---------------------------------------------------------------------------------------------------

    def _left_after_reporting_back(self, commitments: Sequence[OpenCommitment]) -> list[OpenCommitment]:
        """Report over the associations of the requests; return what could not be reported there."""
        # A channel that was silent once is not waited for again in this pass, because every wait is ANSWER_SECONDS.
        left: list[OpenCommitment] = []
        silent: set[ReportChannel] = set()
        for commitment in commitments:
            channel = self._channels.pop(commitment.transaction.transaction_uid, None)
            if channel is not None and channel not in silent and self._reported_back(commitment, channel):
                continue
            left.append(commitment)
            if channel is not None and channel.is_open:
                silent.add(channel)
                self._channels[commitment.transaction.transaction_uid] = channel
        return left

    def _reported_back(self, commitment: OpenCommitment, channel: ReportChannel) -> bool:
        try:
            status = channel.report(report(commitment.transaction, commitment.outcomes), timeout_seconds=ANSWER_SECONDS)
        except NotReported:
            return False
        self._note(commitment, status)
        return True

    def _report_anew(self, requester: str, addressed: str, commitments: Sequence[OpenCommitment]) -> None:
        """Report to a requester over one new association; unconfirmed reports are postponed."""
        left = list(commitments)
        try:
            with self._association(requester, addressed) as call:
                while left:
                    event_report = report(left[0].transaction, left[0].outcomes)
                    self._note(left[0], call.report(event_report))
                    left.pop(0)
        except PeerError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  a fault of ours with one peer must not stop the reports to others
            reason = f"The call failed in our own code: {type(error).__name__}, {place(error)}."
        for commitment in left:
            self._postpone(commitment, reason)
        if left:
            log.warning("commitment not reported", requester=requester, transactions=len(left), reason=reason)

    def _note(self, commitment: OpenCommitment, status: int) -> None:
        if status == 0x0000:
            self._rows.acknowledged(commitment.id, now=self._clock())
        else:
            self._postpone(
                commitment, f"{commitment.transaction.requester} answered the report with status {status:04X}H."
            )
        log.info(
            "commitment reported",
            transaction_uid=commitment.transaction.transaction_uid,
            requester=commitment.transaction.requester,
            instances=len(commitment.outcomes),
            refused=len(commitment.outcomes) - commitment.outcomes.count(CommitmentOutcome.COMMITTED),
            status=f"{status:04X}H",
        )

    def _postpone(self, commitment: OpenCommitment, reason: str) -> None:
        due_at = self._clock() + pause(commitment.attempts + 1)
        self._rows.retry(commitment.id, reason=reason, due_at=due_at)

    @contextmanager
    def _association(self, requester: str, addressed: str) -> Iterator[Call]:
        """Call the requester in the role of SCP (PS3.4 J.3.3, PS3.7 D.3.3.4). Raises PeerError."""
        peer = self._peers.get(requester)
        if peer is None:
            raise PeerError(f"The address of {requester} is not known: add {requester}=host:port to PACS_PEERS.")
        with calling(
            peer,
            [ProposedContext(1, SOP_CLASS_UID, UNCOMPRESSED)],
            ae_title=addressed,
            scp_of=(SOP_CLASS_UID,),
            tls=self._tls,
            answer_seconds=ANSWER_SECONDS,
        ) as call:
            if call.is_scp_of(SOP_CLASS_UID):
                yield call
                return
        # Raised out here, because an association on which nothing went wrong is released and not aborted.
        raise PeerError(f"{requester} does not let us be the SCP of storage commitment (role selection).")


def _parties(commitment: OpenCommitment) -> tuple[str, str]:
    return commitment.transaction.requester, commitment.transaction.addressed
