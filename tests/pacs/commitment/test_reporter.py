"""Reports on a new association: what is told, what is said of a requester that cannot be told, and what is left."""

import socket
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from structlog.testing import capture_logs

from gateway.remote_ae import Peer
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.commitment.rows import CommitmentRows
from pacs.commitment.rules import Reference, Transaction
from tests.pacs.archive.test_archive import archive
from tests.tools.called_requester import CalledRequester, taking
from tests.tools.waiting import wait_until

__all__ = ["archive"]


def owing(archive: Archive, count: int = 1) -> CommitmentRows:
    """MAMMO has asked about so many transactions: 2.25.0, 2.25.1 and so on."""
    promises = CommitmentRows(archive)
    for number in range(count):
        transaction = Transaction(f"2.25.{number}", "MAMMO", "SCREENING_PACS", (Reference("1.2.3", "2.25.1"),))
        promises.take(transaction, now=datetime.now(UTC))
    return promises


def reported(archive: Archive, promises: CommitmentRows, peers: Sequence[Peer]) -> list[dict[str, object]]:
    """Try what is due once; what the log says of it."""
    with capture_logs() as logs, Reporter(archive, peers):
        wait_until(lambda: not promises.due(now=datetime.now(UTC), limit=10))
    return [dict(line) for line in logs if str(line["event"]).startswith("commitment ")]


def test_what_is_due_goes_over_one_association_whatever_is_answered(archive: Archive) -> None:
    promises = owing(archive, 3)
    requester = CalledRequester(lambda event: 0x0110 if event.event_information.TransactionUID == "2.25.1" else 0x0000)
    with requester.listening(taking()) as peer:
        logs = reported(archive, promises, [peer])
    assert (requester.transactions, requester.went) == (["2.25.0", "2.25.1", "2.25.2"], ["accepted", "released"])
    assert [(line["event"], line["transaction_uid"], line["status"]) for line in logs] == [
        ("commitment reported", "2.25.0", "0000H"),
        ("commitment reported", "2.25.1", "0110H"),
        ("commitment reported", "2.25.2", "0000H"),
    ]
    facts = promises.facts()
    assert facts["commitments to report"] == 1
    assert facts["it waits because"] == "MAMMO answered the report with status 0110H."


def test_what_was_confirmed_before_the_association_broke_is_not_told_again(archive: Archive) -> None:
    promises = owing(archive, 3)

    def answer(event: evt.Event) -> int:
        if event.event_information.TransactionUID == "2.25.1":
            event.assoc.abort()
        return 0x0000

    requester = CalledRequester(answer)
    with requester.listening(taking()) as peer:
        *_, last = reported(archive, promises, [peer])
    assert (requester.transactions, requester.went) == (["2.25.0", "2.25.1"], ["accepted", "aborted"])
    assert last == {
        "event": "commitment not reported",
        "log_level": "warning",
        "requester": "MAMMO",
        "transactions": 2,
        "reason": f"{peer} aborted the association.",
    }
    assert promises.facts()["commitments to report"] == 2


def test_a_requester_that_does_not_let_us_be_the_scp_is_left_in_order(archive: Archive) -> None:
    promises, requester = owing(archive), CalledRequester()
    with requester.listening(taking(scu=None, scp=None)) as peer:
        [line] = reported(archive, promises, [peer])
    sentence = "MAMMO does not let us be the SCP of storage commitment (role selection)."
    assert (line["reason"], promises.facts()["it waits because"]) == (sentence, sentence)
    assert (requester.heard, requester.went) == ([], ["accepted", "released"])


def echoing() -> AE:
    entity = AE("MAMMO")
    entity.add_supported_context(Verification)
    return entity


def choosy() -> AE:
    entity = taking()
    entity.require_calling_aet = ["OTHER_PACS"]
    return entity


@pytest.mark.parametrize(
    ("entity", "sentence"),
    [
        (echoing(), "{} accepted the association but none of what was proposed."),
        (choosy(), "{} rejected the association: it does not know our AE title; enter it there."),
    ],
    ids=["serves something else", "does not know us"],
)
def test_a_requester_that_does_not_take_our_association_says_why(archive: Archive, entity: AE, sentence: str) -> None:
    promises = owing(archive)
    with CalledRequester().listening(entity) as peer:
        [line] = reported(archive, promises, [peer])
    assert (line["event"], line["reason"]) == ("commitment not reported", sentence.format(peer))
    assert promises.facts()["it waits because"] == sentence.format(peer)


def test_a_requester_that_is_switched_off_is_told_later(archive: Archive) -> None:
    promises = owing(archive)
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer("MAMMO", "127.0.0.1", server.getsockname()[1])
    [line] = reported(archive, promises, [peer])
    assert line["reason"] == f"{peer} cannot be reached: Connection refused."
