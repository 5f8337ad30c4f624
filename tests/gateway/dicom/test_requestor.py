"""Calling other DICOM applications: what is proposed, answered and sent, and peers that are not well."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ

from gateway.dicom import negotiation
from gateway.dicom.negotiation import AcceptedContext, ProposedContext, Supported
from gateway.dicom.pdu import AssociationState, Fragment, Reader, pack_abort, pack_stream
from gateway.dicom.requestor import calling, verification
from gateway.errors import PeerError, ProtocolError
from gateway.remote_ae import Peer
from tests.pacs.archive.test_archive import image

MG, EXPLICIT, J2K = str(image().SOPClassUID), "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
PROPOSED = (ProposedContext(1, MG, (J2K,)), ProposedContext(3, "1.2.3", (EXPLICIT, J2K)))


def request() -> bytes:
    return negotiation.encode_request(
        PROPOSED, called_ae_title="SITE_PACS", calling_ae_title="SCREENING_PACS", max_length=131072
    )


def test_pynetdicom_reads_our_request_as_we_meant_it() -> None:
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(request())
    primitive = pdu.to_primitive()
    assert (primitive.called_ae_title, primitive.calling_ae_title) == ("SITE_PACS", "SCREENING_PACS")
    assert primitive.maximum_length_received == 131072
    contexts = primitive.presentation_context_definition_list
    assert [(c.context_id, c.abstract_syntax, tuple(c.transfer_syntax)) for c in contexts] == [
        (context.context_id, context.abstract_syntax, context.transfer_syntaxes) for context in PROPOSED
    ]


def test_our_own_answer_to_our_request_is_read() -> None:
    body = request()[6:]
    asked = negotiation.parse_request(body)
    _, items = negotiation.negotiate(asked, Supported({"1.2.3": (J2K,)}))
    answer = negotiation.encode_accept(asked, body, items, max_length=16384)
    accepted = (AcceptedContext(3, "1.2.3", J2K, peer_is_scp=True),)
    assert negotiation.parse_accept(answer[6:], PROPOSED) == (accepted, 16384)


def test_a_peer_that_accepts_what_was_not_proposed_breaks_the_protocol() -> None:
    body = request()[6:]
    asked = negotiation.parse_request(body)
    _, items = negotiation.negotiate(asked, Supported({"1.2.3": (J2K,)}))
    with pytest.raises(ProtocolError):
        negotiation.parse_accept(negotiation.encode_accept(asked, body, items, max_length=0)[6:], PROPOSED[:1])


@given(size=st.integers(0, 5000), max_length=st.sampled_from([0, 12, 13, 100, 1000, 16384]))
def test_a_data_set_of_any_length_arrives_in_pdus_of_the_peers_length(size: int, max_length: int) -> None:
    data = bytes(number % 251 for number in range(size))
    stream = b"".join(pack_stream(5, BytesIO(data), size, max_length=max_length))
    reader = Reader()
    reader.state = AssociationState.ESTABLISHED
    reader.space()[: len(stream)] = stream
    reader.received(len(stream))
    fragments = [(event.is_last, bytes(event.data)) for event in reader.events() if isinstance(event, Fragment)]
    assert b"".join(piece for _, piece in fragments) == data
    assert [is_last for is_last, _ in fragments] == [False] * (len(fragments) - 1) + [True]
    assert all(len(piece) + 6 <= max_length for _, piece in fragments) or not max_length


def test_a_data_set_larger_than_a_batch_is_whole_and_never_in_memory_at_once() -> None:
    size = 5_000_001
    batches = [len(pdus) for pdus in pack_stream(1, BytesIO(bytes(size)), size, max_length=16384)]
    assert sum(batches) == size + 12 * -(-size // 16378)
    assert max(batches) < 1_200_000


def test_a_file_that_ends_too_early_is_noticed() -> None:
    with pytest.raises(ProtocolError):
        list(pack_stream(1, BytesIO(bytes(10)), 11, max_length=0))


@contextmanager
def saying(answer: bytes) -> Iterator[Peer]:
    """A peer that takes one connection, reads the request, says something and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Peer("ODD", "127.0.0.1", server.getsockname()[1])
        thread.join()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request", "does not keep to the protocol"),
        (pack_abort(source=2, reason=0), "aborted the association"),
        (bytes.fromhex("03000000000400010107"), "rejected the association: that is not its AE title"),
        (bytes.fromhex("03000000000400010103"), "rejected the association: it does not know our AE title"),
        (b"\2\0\0\0\0\x44" + bytes(68), "none of what was proposed"),
    ],
)
def test_a_peer_that_is_not_well_is_described(answer: bytes, sentence: str) -> None:
    with (
        saying(answer) as peer,
        pytest.raises(PeerError, match=sentence),
        calling(peer, verification(), ae_title="US") as call,
    ):
        call.echo()


def test_a_peer_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer("DEAF", "127.0.0.1", server.getsockname()[1])
        with (
            pytest.raises(PeerError, match="did not answer in time"),
            calling(peer, verification(), ae_title="US", answer_seconds=0.2),
        ):
            pass
