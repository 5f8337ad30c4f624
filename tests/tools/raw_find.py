"""A worklist client that adds nothing: queries in any bytes, answers as they came. Servers can be measured with it.

It packs and cuts PDUs itself, and not with the code that is measured.
"""

import re
import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dicom.dimse import Command, pack_command, parse_command
from tests.gateway.dicom.test_negotiation import build_context, request_pdu

MWL = "1.2.840.10008.5.1.4.31"
_LONG = ("OB", "SQ", "UN", "UT")
_STATUS = b"\x00\x00\x00\x09\x02\x00\x00\x00"
_PENDING = re.compile(_STATUS + b"[\x00\x01]\xff")


def element(tag: int, vr: str, value: bytes, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """One element of explicit length, padded with a space."""
    value += b" " if len(value) % 2 else b""
    if transfer_syntax == ImplicitVRLittleEndian:
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr in _LONG:
        return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def item(*elements: bytes) -> bytes:
    """One item of a sequence."""
    data = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


class RawFinder:
    """One association for Modality Worklist, presentation context 1."""

    def __init__(
        self,
        port: int,
        transfer_syntax: str,
        *,
        calling_ae_title: str = "MAMMO1",
        called_ae_title: str = "SCREENING_MWL",
        receive_bytes: int = 0,
    ) -> None:
        """`receive_bytes` limits what the system takes in while nobody reads."""
        self.connection = socket.socket()
        if receive_bytes:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.connection.settimeout(60)
        self.connection.connect(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = bytearray(request_pdu([build_context(MWL, [transfer_syntax])]))
        request[10:42] = called_ae_title.ljust(16).encode() + calling_ae_title.ljust(16).encode()
        self.connection.sendall(request)
        self.room = bytearray(1 << 20)
        kind, body = self._pdu()
        assert kind == 2 and b"\x21\x00\x00" in body, "the association was not accepted"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.connection.close()

    def ask(self, identifier: bytes, *, message_id: int = 1) -> None:
        """Send a C-FIND and do not wait for what comes of it."""
        command = Command(
            command_field=0x0020,
            message_id=message_id,
            priority=0,
            command_data_set_type=1,
            affected_sop_class_uid=MWL,
        )
        self._send(pack_command(command), identifier)

    def cancel(self, *, message_id: int = 1) -> None:
        """Send a C-CANCEL."""
        self._send(pack_command(Command(command_field=0x0FFF, message_id_being_responded_to=message_id)))

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Command sets and data sets of the responses, up to the one that is not pending."""
        command, data, is_announced = bytearray(), bytearray(), False
        while True:
            for control, value in self._values():
                (command if control & 1 else data).extend(value)
                if not control & 2:
                    continue
                if control & 1:
                    is_announced = bool(_PENDING.search(command))
                    if is_announced:
                        continue
                yield bytes(command), bytes(data)
                if not is_announced:
                    return
                command, data = bytearray(), bytearray()

    def find(self, identifier: bytes) -> tuple[Command, list[bytes]]:
        """Ask; the last response, and the answers."""
        self.ask(identifier)
        *answers, (end, _) = self.messages()
        return parse_command(end), [data for _, data in answers]

    def count(self, identifier: bytes) -> int:
        """Ask, and count the answers without looking at them: a measuring client must not take longer than servers do.

        Expects what every server sends, one value in a PDU.
        """
        self.ask(identifier)
        answers, start, end = 0, 0, 0
        room = memoryview(self.room)
        while True:
            while end - start < 6 or end - start < 6 + int.from_bytes(room[start + 2 : start + 6], "big"):
                if len(room) - end < 1 << 18:
                    room[: end - start] = bytes(room[start:end])
                    start, end = 0, end - start
                count = self.connection.recv_into(room[end:])
                assert count, "the other side closed the connection"
                end += count
            length = int.from_bytes(room[start + 2 : start + 6], "big")
            control = room[start + 11]
            if control == 2:
                answers += 1
            elif control == 3 and not _PENDING.search(room, start, start + 6 + length):
                return answers
            start += 6 + length

    def _send(self, command: bytes, data: bytes | None = None) -> None:
        pdu: Callable[[int, bytes], bytes] = lambda control, value: (  # noqa: E731
            struct.pack(">BxIIBB", 4, len(value) + 6, len(value) + 2, 1, control) + value
        )
        self.connection.sendall(pdu(3, command) + (b"" if data is None else pdu(2, data)))

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            received = self.connection.recv(count - len(data))
            assert received, "the other side closed the connection"
            data += received
        return bytes(data)

    def _values(self) -> Iterator[tuple[int, bytes]]:
        """Message control header and value of each presentation data value in the next PDU."""
        kind, body = self._pdu()
        assert kind == 4, f"expected data, got a PDU of type {kind}"
        start = 0
        while start < len(body):
            length, control = struct.unpack_from(">IxB", body, start)
            yield control, body[start + 6 : start + 4 + length]
            start += 4 + length
