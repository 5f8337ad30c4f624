"""Performatives (part 2) and messages (part 3) of AMQP 1.0. Not for: values (`amqp_types`)."""

import uuid
from collections.abc import Mapping

from simulator.azure.amqp_types import Described, Int, Long, Symbol, Timestamp, UInt, ULong, Value, decode, encode

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
SASL_MECHANISMS, SASL_INIT, SASL_OUTCOME = 0x40, 0x41, 0x44
HEADER, ANNOTATIONS, PROPERTIES, APPLICATION, DATA, VALUE = 0x70, 0x72, 0x73, 0x74, 0x75, 0x77
ACCEPTED, REJECTED, RELEASED, MODIFIED = range(0x24, 0x28)
SOURCE, ERROR = 0x28, 0x1D
BATCH_FORMAT = 0x80013700  # Microsoft's message format of a batch: each data section is a message

# A descriptor may be a code or a symbol (AMQP 1.2); clients use both.
_SYMBOLS = {
    "amqp:accepted:list": ACCEPTED, "amqp:rejected:list": REJECTED, "amqp:released:list": RELEASED,
    "amqp:modified:list": MODIFIED, "amqp:data:binary": DATA, "amqp:amqp-value:*": VALUE,
}  # fmt: skip


class Refusal(Exception):
    """The bus refuses; `condition` is the error condition of AMQP, the message its description."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.condition = condition


def typed(code: int, *fields: Value) -> Described:
    """A performative, outcome or terminus: a described list without empty fields at its end."""
    kept = list(fields)
    while kept and kept[-1] is None:
        kept.pop()
    return Described(ULong(code), kept)


def error(condition: str, description: str = "") -> Described:
    # All three fields, always: azure-servicebus 7.15.0 reads the third unchecked, and hangs on a shorter list.
    return Described(ULong(ERROR), [Symbol(condition), description, None])


def code_of(value: Value) -> int:
    """Which performative or section a described value is."""
    descriptor = value.descriptor if isinstance(value, Described) else None
    if isinstance(descriptor, str):
        return _SYMBOLS[descriptor]
    if isinstance(descriptor, int):
        return descriptor
    raise ValueError("a described value was expected")


def fields_of(value: Value) -> list[Value]:
    """The fields of a described list; none for what is none."""
    return value.value if isinstance(value, Described) and isinstance(value.value, list) else []


def field(fields: list[Value], number: int, default: Value = None) -> Value:
    """A field by its number; `default` when it is left out or null."""
    value = fields[number] if number < len(fields) else None
    return default if value is None else value


def number(fields: list[Value], index: int, default: int = 0) -> int:
    """A field that is a number."""
    value = field(fields, index, default)
    if not isinstance(value, int):
        raise TypeError(f"field {index} has to be a number")
    return value


class Message:
    """A message on the bus. Sections stay the bytes that came; only those that a broker rewrites are decoded again."""

    def __init__(self, raw: bytes) -> None:
        self._sections: dict[int, list[tuple[bytes, Value]]] = {}
        at = 0
        while at < len(raw):
            began = at
            value, at = decode(raw, at)
            inner = value.value if isinstance(value, Described) else None
            self._sections.setdefault(code_of(value), []).append((raw[began:at], inner))
        self.annotations = self._mapping(ANNOTATIONS)
        self.delivery_count = 0
        self.sequence = 0
        self.enqueued_at = 0.0

    @property
    def message_id(self) -> Value:
        return field(self._list(PROPERTIES), 0)

    @property
    def session_id(self) -> Value:
        return field(self._list(PROPERTIES), 10)  # group-id

    @property
    def application(self) -> dict[str, Value]:
        """The application properties, by names as text: some clients write symbols, some bytes."""
        found = self._mapping(APPLICATION)
        return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}

    @property
    def value(self) -> Value:
        return self._first(VALUE)

    @property
    def body(self) -> bytes:
        """The data of an ordinary message."""
        return b"".join(each for _, each in self._sections.get(DATA, []) if isinstance(each, bytes))

    def parts(self) -> list["Message"]:
        """The messages of a batch."""
        return [Message(each) for _, each in self._sections.get(DATA, []) if isinstance(each, bytes)]

    def add_application(self, extra: Mapping[str, Value]) -> None:
        value = self._mapping(APPLICATION)
        value.update(dict(extra.items()))
        self._sections[APPLICATION] = [(encode(Described(ULong(APPLICATION), value)), value)]

    def give_id(self) -> None:
        """Give an id to a message that came without one."""
        # The JavaScript client fails on a message without an id.
        fields = [uuid.uuid4().hex, *self._list(PROPERTIES)[1:]]
        self._sections[PROPERTIES] = [(encode(Described(ULong(PROPERTIES), fields)), fields)]

    def copy(self) -> "Message":
        return Message(self.wire())

    def wire(self, *, locked_until: float | None = None) -> bytes:
        """The bytes for a receiver; times are seconds since 1970."""
        header = [*self._list(HEADER), None, None, None, None, None][:5]
        header[4] = UInt(self.delivery_count)
        notes = dict(self.annotations)
        if self.sequence:
            notes[Symbol("x-opt-sequence-number")] = Long(self.sequence)
            notes[Symbol("x-opt-enqueue-sequence-number")] = Long(self.sequence)
            notes[Symbol("x-opt-enqueued-time")] = Timestamp(self.enqueued_at * 1000)
            notes[Symbol("x-opt-message-state")] = Int(0)
        if locked_until is not None:
            notes[Symbol("x-opt-locked-until")] = Timestamp(locked_until * 1000)
        # Header and annotations are the broker's to change; all behind them goes out byte for byte (AMQP 3.2).
        out = [encode(Described(ULong(HEADER), header)), encode(Described(ULong(ANNOTATIONS), notes))]
        for code in sorted(self._sections):
            if code > ANNOTATIONS:
                out += [raw for raw, _ in self._sections[code]]
        return b"".join(out)

    def _first(self, code: int) -> Value:
        return self._sections[code][0][1] if code in self._sections else None

    def _list(self, code: int) -> list[Value]:
        found = self._first(code)
        return found if isinstance(found, list) else []

    def _mapping(self, code: int) -> dict[Value, Value]:
        found = self._first(code)
        return dict(found) if isinstance(found, dict) else {}


def reply(value: Value, correlation_id: Value, application: Mapping[str, Value]) -> bytes:
    """A response of a management node: the id of its request, its status in `application`, and its value."""
    return (
        encode(typed(PROPERTIES, None, None, None, None, None, correlation_id))
        + encode(Described(ULong(APPLICATION), dict(application)))
        + encode(Described(ULong(VALUE), value))
    )
