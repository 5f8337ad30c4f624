"""The type system of AMQP 1.0 (part 1 of the standard): values to bytes and back.

Decoding gives plain Python values; encoding takes them too, and one of the number classes below where the peer insists
on a width.

Not for: decimals, characters and arrays of compound values; the clients of the stand-in write none.
"""

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

Value = object


class Symbol(str):
    """A word of the protocol, in ASCII."""

    __slots__ = ()


class Array(list[Value]):
    """Values of one type, which is that of the first."""


@dataclass(frozen=True, slots=True)
class Described:
    """A value and the descriptor of its type: a code or a symbol."""

    descriptor: Value
    value: Value


class Number(int):
    """An integer of a certain width."""

    code: ClassVar[int]
    form: ClassVar[str]


class UByte(Number):
    code, form = 0x50, ">B"


class UShort(Number):
    code, form = 0x60, ">H"


class UInt(Number):
    code, form = 0x70, ">I"


class Int(Number):
    code, form = 0x71, ">i"


class ULong(Number):
    code, form = 0x80, ">Q"


class Long(Number):
    code, form = 0x81, ">q"


class Timestamp(Number):
    """Milliseconds since 1970."""

    code, form = 0x83, ">q"


_FIXED: dict[int, str] = {
    0x50: "B", 0x51: "b", 0x52: "B", 0x53: "B", 0x54: "b", 0x55: "b", 0x60: "H", 0x61: "h", 0x70: "I", 0x71: "i",
    0x72: "f", 0x80: "Q", 0x81: "q", 0x82: "d", 0x83: "q",
}  # fmt: skip
_CONSTANTS: dict[int, Callable[[], Value]] = {
    0x40: lambda: None, 0x41: lambda: True, 0x42: lambda: False, 0x43: lambda: 0, 0x44: lambda: 0, 0x45: list,
}  # fmt: skip


def decode(data: bytes, at: int = 0) -> tuple[Value, int]:
    """Read one value and say where it ends. Raises IndexError, ValueError or struct.error for what is none."""
    if data[at] == 0:  # a described type (AMQP 1.2)
        descriptor, at = decode(data, at + 1)
        value, at = decode(data, at)
        return Described(descriptor, value), at
    return _decode(data[at], data, at + 1)


def _decode(code: int, data: bytes, at: int) -> tuple[Value, int]:
    if code in _CONSTANTS:
        return _CONSTANTS[code](), at
    if code == 0x56:
        return bool(data[at]), at + 1
    if code in _FIXED:
        form = f">{_FIXED[code]}"
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if code == 0x98:
        return uuid.UUID(bytes=bytes(data[at : at + 16])), at + 16
    # The high half of a code is the category of its width (AMQP 1.2): A, B are variable, C, D compound, E, F arrays.
    if code >> 4 in (0xA, 0xB):
        size, at = _size(code, data, at)
        return _bytes(code, bytes(data[at : at + size])), at + size
    if code >> 4 in (0xC, 0xD, 0xE, 0xF):
        return _compound(code, data, at)
    raise ValueError(f"no type of AMQP that is known here has the code {code:#04x}")


def _size(code: int, data: bytes, at: int) -> tuple[int, int]:
    width = 4 if code >> 4 in (0xB, 0xD, 0xF) else 1
    return int.from_bytes(data[at : at + width], "big"), at + width


def _bytes(code: int, raw: bytes) -> Value:
    match code & 0xF:
        case 0:
            return raw
        case 1:
            return raw.decode()
        case _:
            return Symbol(raw.decode("ascii"))


def _compound(code: int, data: bytes, at: int) -> tuple[Value, int]:
    size, at = _size(code, data, at)
    end = at + size
    count, at = _size(code, data, at)
    items: list[Value] = []
    if code >> 4 in (0xE, 0xF):
        element, at = data[at], at + 1
        for _ in range(count):
            value, at = _decode(element, data, at)
            items.append(value)
        return Array(items), end
    for _ in range(count):
        value, at = decode(data, at)
        items.append(value)
    return (dict(zip(items[::2], items[1::2], strict=True)) if code & 0xF == 1 else items), end


def encode(value: Value) -> bytes:  # noqa: PLR0911 - one line for each type
    """Write one value. Raises TypeError for what AMQP has no type for."""
    match value:
        case None:
            return b"\x40"
        case bool():  # before int, of which it is a subclass
            return b"\x41" if value else b"\x42"
        case Described(descriptor, inner):
            return b"\0" + encode(descriptor) + encode(inner)
        case int():
            return _encode_number(value if isinstance(value, Number) else Long(value))
        case float():
            return b"\x82" + struct.pack(">d", value)
        case uuid.UUID():
            return b"\x98" + value.bytes
        case bytes():
            return _sized(0xA0, value)
        case str():
            return _sized(0xA3 if isinstance(value, Symbol) else 0xA1, value.encode())
        case Array():
            return _encode_array(value)
        case dict():
            return _sized(0xC1, b"".join(encode(key) + encode(each) for key, each in value.items()), 2 * len(value))
        case list() | tuple():
            return b"\x45" if not value else _sized(0xC0, b"".join(map(encode, value)), len(value))
    raise TypeError(type(value))


def _encode_number(number: Number) -> bytes:
    if isinstance(number, UInt | ULong) and number < 256:
        zero, small = (0x43, 0x52) if isinstance(number, UInt) else (0x44, 0x53)
        return bytes([zero]) if number == 0 else bytes([small, number])
    return bytes([number.code]) + struct.pack(number.form, number)


def _sized(small: int, body: bytes, count: int | None = None) -> bytes:
    """Put size and count before a body, in one byte each if they fit, else in four."""
    if len(body) + 1 < 256 and (count is None or count < 256):
        counted = b"" if count is None else bytes([count])
        return bytes([small, len(body) + len(counted)]) + counted + body
    counted = b"" if count is None else struct.pack(">I", count)
    return bytes([small | 0x10]) + struct.pack(">I", len(body) + len(counted)) + counted + body


def _encode_array(values: Array) -> bytes:
    # One constructor for all, always in the long form (AMQP 1.6.24).
    first = values[0] if values else Long(0)
    if isinstance(first, str):
        code = 0xB3 if isinstance(first, Symbol) else 0xB1
        body = b"".join(struct.pack(">I", len(raw)) + raw for raw in (str(each).encode() for each in values))
    elif isinstance(first, Number):
        code, form = first.code, first.form
        body = b"".join(struct.pack(form, each) for each in values)
    else:
        raise TypeError(type(first))
    inner = struct.pack(">I", len(values)) + bytes([code]) + body
    return b"\xf0" + struct.pack(">I", len(inner)) + inner
