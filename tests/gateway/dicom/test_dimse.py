"""Command sets and the order of fragments, with pynetdicom as the judge of the encoding."""

from dataclasses import fields
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from gateway.dicom import dimse
from gateway.dicom.dimse import Command, CommandReceived, DataReceived, Messages
from gateway.dicom.pdu import Fragment
from gateway.errors import ProtocolError

STORE = Command(
    command_field=0x0001,
    message_id=7,
    affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.1.2",
    affected_sop_instance_uid="1.2.3",
    priority=0,
    command_data_set_type=1,
)

NUMBER = st.integers(0, 0xFFFF)
TEXT = st.text("ABCDEF 0123", max_size=16).map(str.strip).filter(bool)
TAGS = st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=4).map(tuple)
VALUES = {
    "US": NUMBER,
    "UI": st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){1,5}", fullmatch=True),
    "AE": TEXT,
    "LO": TEXT,
    "AT": TAGS,
}


@st.composite
def commands(draw: st.DrawFn) -> Command:
    values = {"command_field": draw(NUMBER)}
    for name, vr in dimse._ELEMENTS.values():
        if name != "command_field" and draw(st.booleans()):
            values[name] = draw(VALUES[vr])
    return Command(**values)  # type: ignore[arg-type]


def fragments(data: bytes, *, is_command: bool, context_id: int = 1, size: int = 10) -> list[Fragment]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    return [
        Fragment(context_id, is_command, number == len(pieces) - 1, memoryview(piece))
        for number, piece in enumerate(pieces)
    ]


@settings(deadline=None)
@given(commands())
def test_a_command_that_is_packed_is_read_back(command: Command) -> None:
    assert dimse.parse_command(dimse.pack_command(command)) == command


@settings(deadline=None)
@given(commands())
def test_pydicom_reads_what_is_packed(command: Command) -> None:

    data_set = decode(BytesIO(dimse.pack_command(command)), True, True)
    length = data_set.CommandGroupLength
    assert length == len(dimse.pack_command(command)) - 12
    assert data_set.CommandField == command.command_field
    if command.affected_sop_class_uid is not None:
        assert data_set.AffectedSOPClassUID == UID(command.affected_sop_class_uid)
    if command.status is not None:
        assert data_set.Status == command.status


def test_every_field_of_a_command_has_its_element() -> None:
    assert {field.name for field in fields(Command)} == {name for name, _ in dimse._ELEMENTS.values()}


def test_a_message_comes_out_as_a_command_and_the_pieces_of_its_data_set() -> None:
    messages = Messages()
    out = [messages.feed(f) for f in fragments(dimse.pack_command(STORE), is_command=True)]
    assert [item for item in out if item] == [CommandReceived(1, STORE)]
    assert not messages.is_between_messages
    pieces = [messages.feed(f) for f in fragments(b"0123456789abc", is_command=False)]
    assert [(bytes(p.data), p.is_last) for p in pieces if isinstance(p, DataReceived)] == [
        (b"0123456789", False),
        (b"abc", True),
    ]
    assert messages.is_between_messages


def feed_all(*lists: list[Fragment]) -> None:
    messages = Messages()
    for fragment in (f for several in lists for f in several):
        messages.feed(fragment)


DATA = fragments(b"data", is_command=False)
COMMAND = fragments(dimse.pack_command(STORE), is_command=True)
ECHO = fragments(dimse.pack_command(Command(command_field=0x30, message_id=1)), is_command=True)
BROKEN = {
    "data without a command": (DATA,),
    "data after a command that has none": (ECHO, DATA),
    "data in another context": (COMMAND, fragments(b"data", is_command=False, context_id=3)),
    "a command inside a data set": (COMMAND, fragments(bytes(30), is_command=False)[:1], ECHO),
    "a command that changes its context": (
        COMMAND[:1],
        fragments(dimse.pack_command(STORE), is_command=True, context_id=3),
    ),
    "a command without end": (fragments(bytes(70_000), is_command=True, size=1000),),
    "a data set as a command": (fragments(b"\x08\x00\x05\x00\x00\x00\x00\x00", is_command=True),),
    "a command without its field": (fragments(b"", is_command=True),),
}


@pytest.mark.parametrize("order", BROKEN.values(), ids=BROKEN)
def test_fragments_in_an_order_that_does_not_exist_are_refused(order: tuple[list[Fragment], ...]) -> None:
    with pytest.raises(ProtocolError):
        feed_all(*order)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_and_nothing_else(data: bytes) -> None:
    try:
        assert isinstance(dimse.parse_command(data), Command)
    except ProtocolError as error:
        assert str(error).startswith("A command set cannot be read")
