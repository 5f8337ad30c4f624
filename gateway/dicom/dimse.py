"""DIMSE messages (PS3.7): command sets parsed and packed, fragments put together to messages. Pure.

`Messages` checks the order: the fragments of one command set, then, if the command announces it, those of one data set
in the same presentation context. Data sets are passed on fragment by fragment. Not for: their content.
"""

import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import NamedTuple

from gateway.dicom.pdu import AbortReason, Fragment
from gateway.errors import ProtocolError

LARGEST_COMMAND = 1 << 16
"""Bytes; the largest command of PS3.7 has a handful of UIDs, and only a long Attribute Identifier List comes near."""

NO_DATA_SET = 0x0101
"""Command Data Set Type (0000,0800) of a message without one; any other value means that one follows."""

_ELEMENT = struct.Struct("<HHI")


class CommandField(IntEnum):
    """PS3.7 Table E.1-1. A response is its request with bit 8000H."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150
    C_CANCEL = 0x0FFF


RESPONSE = 0x8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command set; an absent element is None. Names are the keywords of PS3.7 Table E.1-1 in snake case."""

    command_field: int
    affected_sop_class_uid: str | None = None
    requested_sop_class_uid: str | None = None
    message_id: int | None = None
    message_id_being_responded_to: int | None = None
    move_destination: str | None = None
    priority: int | None = None
    command_data_set_type: int = NO_DATA_SET
    status: int | None = None
    offending_element: tuple[int, ...] | None = None
    error_comment: str | None = None
    error_id: int | None = None
    affected_sop_instance_uid: str | None = None
    requested_sop_instance_uid: str | None = None
    event_type_id: int | None = None
    attribute_identifier_list: tuple[int, ...] | None = None
    action_type_id: int | None = None
    number_of_remaining_suboperations: int | None = None
    number_of_completed_suboperations: int | None = None
    number_of_failed_suboperations: int | None = None
    number_of_warning_suboperations: int | None = None
    move_originator_application_entity_title: str | None = None
    move_originator_message_id: int | None = None

    @property
    def has_data_set(self) -> bool:
        """Does a data set follow the command set?"""
        return self.command_data_set_type != NO_DATA_SET


# A command set is always Implicit VR Little Endian with group 0000 only (PS3.7 6.3.1), so one table replaces a data set
# library on the path of every message.
_ELEMENTS: dict[int, tuple[str, str]] = {
    0x0002: ("affected_sop_class_uid", "UI"),
    0x0003: ("requested_sop_class_uid", "UI"),
    0x0100: ("command_field", "US"),
    0x0110: ("message_id", "US"),
    0x0120: ("message_id_being_responded_to", "US"),
    0x0600: ("move_destination", "AE"),
    0x0700: ("priority", "US"),
    0x0800: ("command_data_set_type", "US"),
    0x0900: ("status", "US"),
    0x0901: ("offending_element", "AT"),
    0x0902: ("error_comment", "LO"),
    0x0903: ("error_id", "US"),
    0x1000: ("affected_sop_instance_uid", "UI"),
    0x1001: ("requested_sop_instance_uid", "UI"),
    0x1002: ("event_type_id", "US"),
    0x1005: ("attribute_identifier_list", "AT"),
    0x1008: ("action_type_id", "US"),
    0x1020: ("number_of_remaining_suboperations", "US"),
    0x1021: ("number_of_completed_suboperations", "US"),
    0x1022: ("number_of_failed_suboperations", "US"),
    0x1023: ("number_of_warning_suboperations", "US"),
    0x1030: ("move_originator_application_entity_title", "AE"),
    0x1031: ("move_originator_message_id", "US"),
}
"""Element number in group 0000, field of `Command`, VR (PS3.7 Table E.1-1)."""

_NUMBERS = {name: (element, vr) for element, (name, vr) in _ELEMENTS.items()}
_PACKED_FIELDS = tuple((field.name, *_NUMBERS[field.name]) for field in fields(Command))
_PACK_ORDER = tuple(sorted(_PACKED_FIELDS, key=lambda row: row[1]))


def parse_command(data: bytes) -> Command:
    """Read a command set. Raises ProtocolError when it is not one."""
    values: dict[str, object] = {}
    start = 0
    while start < len(data):
        if start + _ELEMENT.size > len(data):
            raise _broken("it ends inside an element")
        group, element, length = _ELEMENT.unpack_from(data, start)
        start += _ELEMENT.size
        if group != 0 or start + length > len(data):
            raise _broken(f"element ({group:04X},{element:04X}) of {length} bytes does not belong there")
        known = _ELEMENTS.get(element)  # retired elements and a peer's own are skipped
        if known is not None and length:
            values[known[0]] = _value(known[1], data[start : start + length], element)
        start += length
    if "command_field" not in values:
        raise _broken("it has no Command Field (0000,0100)")
    return Command(**values)  # type: ignore[arg-type]  # the table has the types of the class


def pack_command(command: Command) -> bytes:
    """Write a command set, with its group length in front."""
    parts = []
    for name, element, vr in _PACK_ORDER:
        value = getattr(command, name)
        if value is not None:
            encoded = _encoded(vr, value)
            parts.append(_ELEMENT.pack(0, element, len(encoded)) + encoded)
    body = b"".join(parts)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


class CommandReceived(NamedTuple):
    """A command set is complete. If it `has_data_set`, `DataReceived` follows."""

    context_id: int
    command: Command


class DataReceived(NamedTuple):
    """A piece of the data set that belongs to the last command; `data` is valid until the next event."""

    data: memoryview
    is_last: bool


class Messages:
    """Puts fragments together to commands and the pieces of their data sets."""

    def __init__(self) -> None:
        self._command = bytearray()
        self._command_context = 0
        self._data_context: int | None = None

    def feed(self, fragment: Fragment) -> CommandReceived | DataReceived | None:
        """Take the next fragment; None until a command set is complete.

        Raises ProtocolError when fragments come in an order PS3.7 does not know.
        """
        if fragment.is_command:
            return self._feed_command(fragment)
        if self._data_context != fragment.context_id:
            raise ProtocolError(
                "A data set fragment came without a command that announces it in its presentation context.",
                reason=AbortReason.UNEXPECTED_PARAMETER,
            )
        if fragment.is_last:
            self._data_context = None
        return DataReceived(fragment.data, fragment.is_last)

    @property
    def is_between_messages(self) -> bool:
        """Is nothing of a message missing at this moment?"""
        return self._data_context is None and not self._command

    def _feed_command(self, fragment: Fragment) -> CommandReceived | None:
        if self._data_context is not None:
            raise ProtocolError("A command came before the data set of the one before was complete.")
        if self._command and fragment.context_id != self._command_context:
            raise ProtocolError("A command set changes its presentation context half-way.")
        if len(self._command) + len(fragment.data) > LARGEST_COMMAND:
            raise ProtocolError(f"A command set is longer than {LARGEST_COMMAND} bytes.")
        self._command_context = fragment.context_id
        self._command += fragment.data
        if not fragment.is_last:
            return None
        command = parse_command(bytes(self._command))
        self._command.clear()
        # A data set may be announced by any value but 0101H; what follows must then be its fragments.
        if command.has_data_set:
            self._data_context = fragment.context_id
        return CommandReceived(fragment.context_id, command)


def _value(vr: str, raw: bytes, element: int) -> object:
    if vr == "US":
        if len(raw) != 2:
            raise _broken(f"element (0000,{element:04X}) has {len(raw)} bytes where 2 are expected")
        return int.from_bytes(raw, "little")
    if vr == "AT":
        if len(raw) % 4:
            raise _broken(f"element (0000,{element:04X}) is not a list of tags")
        words = struct.unpack(f"<{len(raw) // 2}H", raw)
        return tuple(words[i] << 16 | words[i + 1] for i in range(0, len(words), 2))
    # Padding varies among peers: UIDs with NUL (right) or space, titles with spaces on either side.
    return raw.decode("ascii", "replace").strip(" \0")


def _encoded(vr: str, value: object) -> bytes:
    if vr == "US":
        assert isinstance(value, int)
        return struct.pack("<H", value)
    if vr == "AT":
        assert isinstance(value, tuple)
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)
    raw = str(value).encode("ascii", "replace")
    return raw + (b"\0" if vr == "UI" else b" ") if len(raw) % 2 else raw


def _broken(what: str) -> ProtocolError:
    return ProtocolError(f"A command set cannot be read: {what}.", reason=AbortReason.INVALID_PARAMETER)
