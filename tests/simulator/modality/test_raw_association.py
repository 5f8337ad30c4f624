"""An association of a test SCU: how its bytes are written, and how its end is named."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind

from gateway.dicom.negotiation import (
    AcceptedContext,
    ProposedContext,
    Supported,
    encode_accept,
    encode_request,
    negotiate,
    parse_request,
)
from gateway.errors import PeerError
from gateway.remote_ae import Peer
from simulator.exam.encoding import encoded
from simulator.exam.steps import query
from simulator.modality.raw_association import Dialer, RawAssociation, Rejected
from simulator.site import wait_until

CONTEXT = AcceptedContext(1, "1.2", "1.2.840.10008.1.2")
KIND = (str(ModalityWorklistInformationFind), str(ExplicitVRLittleEndian))


QUERY = encoded(query({}), KIND[1])


class Recorder(socket.socket):
    """A socket that notes each write."""

    writes: list[bytes]

    def sendall(self, data: bytes) -> None:  # type: ignore[override]
        self.writes.append(data)


@contextmanager
def line(**behaviour: object) -> Iterator[tuple[RawAssociation, list[bytes]]]:
    with Recorder() as connection:
        connection.writes = []
        yield RawAssociation(connection, Peer("A", "h", 1), Dialer("B", **behaviour)), connection.writes  # type: ignore[arg-type]


def test_pdus_are_written_at_once() -> None:
    with line() as (each, writes):
        each.write(b"\x04\0\0\0\0\x02ab\x04\0\0\0\0\x01c")
    assert writes == [b"\x04\0\0\0\0\x02ab\x04\0\0\0\0\x01c"]


def test_a_torn_pdu_is_its_header_and_then_its_body() -> None:
    with line(split_writes=True) as (each, writes):
        each.write(b"\x04\0\0\0\0\x02ab\x04\0\0\0\0\x01c")
    assert writes == [b"\x04\0\0\0\0\x02", b"ab", b"\x04\0\0\0\0\x01", b"c"]


def test_pdus_are_as_short_as_the_machine_wants_them() -> None:
    with line(max_pdu_bytes=64) as (each, _):
        packed = each.packed(CONTEXT, bytes(100), is_command=False)
    assert [packed[0:6], packed[70:76]] == [b"\x04\0\0\0\0\x40", b"\x04\0\0\0\0\x30"]


def test_a_query_is_cancelled_after_so_many_answers() -> None:
    match = Dataset()
    match.PatientID = "9990000018"

    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for _ in range(5):
            yield 0xFF00, match
        wait_until(lambda: event.is_cancelled, what="The C-CANCEL", seconds=10)
        yield 0xFE00, None

    with served([(evt.EVT_C_FIND, answers)]) as peer, Dialer("MAMMO", seconds=10).opened(peer, [KIND]) as each:
        statuses = [answer.status for answer, _ in each.find(each.contexts[0], QUERY, cancel_after=3)]
    assert statuses == [0xFF00] * 5 + [0xFE00]


def test_a_rejection_is_told_with_its_reason() -> None:
    with served([]) as peer, pytest.raises(Rejected) as raised:
        Dialer("MAMMO", seconds=10).open(Peer("OTHER", peer.host, peer.port), [KIND])
    assert (raised.value.source, raised.value.reason) == (1, 7)
    assert str(raised.value).endswith("rejected the association: that is not its AE title.")


def test_what_was_not_accepted_is_told() -> None:
    with served([]) as peer, pytest.raises(PeerError, match="accepted the association but none of what was proposed"):
        Dialer("MAMMO", seconds=10).open(peer, [("1.2.3.4", KIND[1])])


@pytest.mark.parametrize(
    ("bytes_", "how"), [(b"\x07\0\0\0\0\x04\0\0\2\1", "aborted"), (b"", "closed"), (None, "silent")]
)
def test_the_end_of_an_association_has_a_name(bytes_: bytes | None, how: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.2)
        proposed = [ProposedContext(1, KIND[0], KIND[1:])]
        theirs.sendall(accepted(proposed))
        each = RawAssociation(ours, Peer("A", "h", 1), Dialer("B"))
        each.associate(proposed)
        if bytes_ is not None:
            theirs.sendall(bytes_)
            theirs.shutdown(socket.SHUT_WR)
        assert each.ending() == how


def accepted(proposed: list[ProposedContext]) -> bytes:
    """The A-ASSOCIATE-AC that a gateway would give."""
    body = encode_request(proposed, called_ae_title="A", calling_ae_title="B", max_length=0)[6:]
    request = parse_request(body)
    _, items = negotiate(request, Supported({KIND[0]: KIND[1:]}))
    return encode_accept(request, body, items, max_length=0)


@contextmanager
def served(handlers: list[evt.EventHandlerType]) -> Iterator[Peer]:
    ae = AE("SERVER")
    ae.require_called_aet = True
    ae.add_supported_context(*KIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield Peer("SERVER", "127.0.0.1", server.socket.getsockname()[1])
    finally:
        server.shutdown()
