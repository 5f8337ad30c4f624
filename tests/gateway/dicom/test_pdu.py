"""The upper layer by itself: byte streams in every chunking, broken streams, packing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dicom.pdu import (
    RELEASE_RESPONSE,
    Aborted,
    AbortReason,
    AssociateRequested,
    AssociationState,
    Fragment,
    Reader,
    ReleaseRequested,
    pack_abort,
    pack_data,
)
from gateway.errors import ProtocolError

RELEASE = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
ASSOCIATE = b"\x01\x00\x00\x00\x00\x44" + bytes(68)


def established(**options: int) -> Reader:
    reader = Reader(**options)
    reader.state = AssociationState.ESTABLISHED
    return reader


def feed(reader: Reader, stream: bytes, chunk: int = 1 << 20) -> list[object]:
    """Everything the reader makes of a stream; the bytes of fragments are copied out of its buffer."""
    events: list[object] = []
    while stream:
        space = reader.space()
        count = min(len(space), len(stream), chunk)
        space[:count] = stream[:count]
        stream = stream[count:]
        reader.received(count)
        for event in reader.events():
            events.append(event._replace(data=bytes(event.data)) if isinstance(event, Fragment) else event)
    return events


def joined(events: list[object]) -> list[tuple[int, bool, bytes]]:
    """The command sets and data sets that fragments make."""
    messages, current = [], b""
    for event in events:
        assert isinstance(event, Fragment)
        current += event.data
        if event.is_last:
            messages.append((event.context_id, event.is_command, current))
            current = b""
    assert current == b""
    return messages


def test_a_request_a_release_and_an_abort_are_told_apart() -> None:
    reader = Reader()
    assert feed(reader, ASSOCIATE) == [AssociateRequested(bytes(68))]
    reader.state = AssociationState.ESTABLISHED
    assert feed(reader, RELEASE + pack_abort(source=0, reason=0)) == [ReleaseRequested(), Aborted(0, 0)]


@settings(deadline=None)
@given(
    messages=st.lists(st.tuples(st.integers(0, 127), st.booleans(), st.binary(max_size=3000)), min_size=1, max_size=6),
    max_length=st.sampled_from([0, 12, 13, 64, 1000]),
    chunk=st.integers(1, 5000),
)
def test_what_is_packed_is_read_back_however_the_bytes_arrive(
    messages: list[tuple[int, bool, bytes]], max_length: int, chunk: int
) -> None:
    messages = [(2 * number + 1, is_command, data) for number, is_command, data in messages]
    stream = b"".join(
        pack_data(number, data, is_command=is_command, max_length=max_length) for number, is_command, data in messages
    )
    assert joined(feed(established(buffer_bytes=8192), stream, chunk)) == messages


def test_no_packed_pdu_is_longer_than_the_peer_takes() -> None:
    stream = pack_data(1, bytes(100), is_command=False, max_length=20)
    lengths = []
    while stream:
        length = int.from_bytes(stream[2:6], "big")
        lengths.append(length)
        stream = stream[6 + length :]
    assert lengths == [20] * 7 + [8]


def test_several_values_in_one_pdu_are_several_fragments() -> None:
    values = b"\0\0\0\x05\x01\x03abc" + b"\0\0\0\x04\x01\x02de"
    stream = b"\x04\x00" + len(values).to_bytes(4, "big") + values
    assert joined(feed(established(), stream)) == [(1, True, b"abc"), (1, False, b"de")]


BROKEN = {
    "a type that does not exist": (
        AssociationState.ESTABLISHED,
        b"\x09\x00\x00\x00\x00\x04",
        AbortReason.UNRECOGNIZED_PDU,
    ),
    "data before an association": (
        AssociationState.AWAITING_REQUEST,
        b"\x04\x00\x00\x00\x00\x08",
        AbortReason.UNEXPECTED_PDU,
    ),
    "a second request": (AssociationState.ESTABLISHED, ASSOCIATE[:6], AbortReason.UNEXPECTED_PDU),
    "an accept to an acceptor": (AssociationState.ESTABLISHED, b"\x02\x00\x00\x00\x00\x44", AbortReason.UNEXPECTED_PDU),
    "a huge request": (AssociationState.AWAITING_REQUEST, b"\x01\x00\xff\xff\xff\xff", AbortReason.INVALID_PARAMETER),
    "a short request": (AssociationState.AWAITING_REQUEST, b"\x01\x00\x00\x00\x00\x10", AbortReason.INVALID_PARAMETER),
    "a long release": (AssociationState.ESTABLISHED, b"\x05\x00\x00\x00\x00\x08", AbortReason.INVALID_PARAMETER),
    "an empty data PDU": (AssociationState.ESTABLISHED, b"\x04\x00\x00\x00\x00\x00", AbortReason.INVALID_PARAMETER),
    "a value without its header": (
        AssociationState.ESTABLISHED,
        b"\x04\x00\x00\x00\x00\x06\0\0\0\x01\x01\x00",
        AbortReason.INVALID_PARAMETER,
    ),
    "a value longer than its PDU": (
        AssociationState.ESTABLISHED,
        b"\x04\x00\x00\x00\x00\x08\0\0\0\x09\x01\x00",
        AbortReason.INVALID_PARAMETER,
    ),
    "a rest too short for a value": (
        AssociationState.ESTABLISHED,
        b"\x04\x00\x00\x00\x00\x0a\0\0\0\x02\x01\x00",
        AbortReason.INVALID_PARAMETER,
    ),
}


@pytest.mark.parametrize(("state", "stream", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_is_named_before_anything_is_allocated(
    state: AssociationState, stream: bytes, reason: int
) -> None:
    reader = Reader()
    reader.state = state
    with pytest.raises(ProtocolError) as caught:
        feed(reader, stream)
    assert caught.value.reason == reason


@settings(deadline=None, max_examples=300)
@given(stream=st.binary(max_size=400), state=st.sampled_from(AssociationState), chunk=st.integers(1, 100))
def test_garbage_gives_events_or_a_protocol_error_and_nothing_else(
    stream: bytes, state: AssociationState, chunk: int
) -> None:
    reader = Reader()
    reader.state = state
    try:
        feed(reader, stream, chunk)
    except ProtocolError as error:
        assert error.reason in set(AbortReason)


def test_the_release_response_is_that_of_the_standard() -> None:
    assert bytes.fromhex("06000000000400000000") == RELEASE_RESPONSE
