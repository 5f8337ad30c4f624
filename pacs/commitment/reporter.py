"""Keeping the word of storage commitment: files are verified, requesters told, until they confirm (PS3.4 J.3.3).

One thread, so that a hundred requests never read a hundred files side by side. It verifies what was asked, at a bounded
rate, and reports: on the association that asked if that is still open, else on a new one to the address of the
requester's AE title in PACS_PEERS, all that is due for one requester at once. What could not be told stays in the
database and is tried again; so does everything that was open when the process ended, however it ended.

Not here: rules (`rules`), statements (`rows`).
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
"""How long a requester may take to connect, to negotiate and to answer a report."""

AT_ONCE = 100
"""Transactions that are held in memory together."""

LOOK_SECONDS = 5.0
"""How often it is looked whether a pause is over."""

OUTCOMES: Mapping[str, CommitmentOutcome] = {
    "": CommitmentOutcome.PROMISED,
    "missing_file": CommitmentOutcome.NO_SUCH_INSTANCE,
    "wrong_size": CommitmentOutcome.PROCESSING_FAILURE,
    "wrong_hash": CommitmentOutcome.PROCESSING_FAILURE,
    "unreadable_file": CommitmentOutcome.NO_RESOURCES,
}
"""What a file's trouble means to who asked for its safekeeping: send it again, or ask again."""

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
        """Raise RuntimeError when nobody is told any more, so that the process ends and is started again."""
        if not self._thread.is_alive():
            raise RuntimeError("The thread that reports on storage commitment has died.")

    def take(self, transaction: Transaction, report_channel: ReportChannel) -> None:
        """Owe the answer to a transaction; when this returns, that is on disk. Raises DuplicateTransaction."""
        with self._taking:  # what is due and came on an open association is never seen without its way back
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
                is_more = self._tell()
            except Stopped:
                return
            except (GatewayError, OSError) as error:  # a full disk, a database that is held: it will pass
                log.warning("commitment postponed", reason=str(error))
            if not is_more:
                self._wake.wait(LOOK_SECONDS)

    def _tell(self) -> bool:
        """Do what is due, as much as is done in one go. True when there was that much."""
        with self._taking:
            due = self._rows.due(now=self._clock(), limit=AT_ONCE)
        for (requester, addressed), commitments in groupby(due, key=_between):
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
        code = trouble(stored.path, size_bytes=stored.size_bytes, sha256=stored.sha256, after_read=self._take_time)
        if code == "missing_file" and not self._archive.is_mounted():
            return CommitmentOutcome.NO_RESOURCES  # the whole volume is away
        if code:
            self._report_damage(reference.sop_instance_uid, code)
        return OUTCOMES[code]

    def _report_damage(self, sop_instance_uid: str, code: str) -> None:
        """Remember it, so that the same object replaces the file when the machine sends it again."""
        kept = self._maintenance.kept(sop_instance_uid)
        if kept is not None and self._maintenance.report_damage(kept, code, now=self._clock()):
            log.error("instance damaged", sop_instance_uid=sop_instance_uid, code=code)

    def _take_time(self, count: int) -> None:
        if self._stop.wait(count / VERIFY_BYTES_PER_SECOND):
            raise Stopped

    # ---- reporting ---------------------------------------------------------------------------------------------------

    def _left_after_reporting_back(self, commitments: Sequence[OpenCommitment]) -> list[OpenCommitment]:
        """Tell on the associations that asked; give what could not be told there. None is waited for a second time."""
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
        """Tell a requester everything on one new association; what it does not confirm is left for later."""
        left = list(commitments)
        try:
            with self._association(requester, addressed) as call:
                while left:
                    told = report(left[0].transaction, left[0].outcomes)
                    self._note(left[0], call.report(told))
                    left.pop(0)
        except PeerError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  a fault of ours with one peer must not cost the others theirs
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
            refused=len(commitment.outcomes) - commitment.outcomes.count(CommitmentOutcome.PROMISED),
            status=f"{status:04X}H",
        )

    def _postpone(self, commitment: OpenCommitment, reason: str) -> None:
        due_at = self._clock() + pause(commitment.attempts + 1)
        self._rows.retry(commitment.id, reason=reason, due_at=due_at)

    @contextmanager
    def _association(self, requester: str, addressed: str) -> Iterator[Call]:
        """Call the requester as the SCP that it asked (PS3.4 J.3.3, roles by PS3.7 D.3.3.4). Raises PeerError."""
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


def _between(commitment: OpenCommitment) -> tuple[str, str]:
    return commitment.transaction.requester, commitment.transaction.addressed
