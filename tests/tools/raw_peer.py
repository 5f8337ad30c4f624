"""A DICOM peer that says exactly what a test wants, also what no library would send."""

import socket
from types import TracebackType
from typing import Self

from gateway.dicom.dimse import Command, Messages, pack_command
from gateway.dicom.pdu import AssociationState, Fragment, Reader, pack_data
from tests.gateway.dicom.test_negotiation import build_context, request_pdu
from tests.tools.waiting import PATIENCE_SECONDS


class RawPeer:
    """One association with one presentation context, number 1. Called AE title SCREENING_PACS."""

    def __init__(self, port: int, abstract_syntax: str, transfer_syntax: str) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.settimeout(PATIENCE_SECONDS)
        try:
            self.connection.sendall(request_pdu([build_context(abstract_syntax, [transfer_syntax])]))
            head = self.connection.recv(6, socket.MSG_WAITALL)
            assert head[0] == 2, "the association was not accepted"
            self.connection.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.connection.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
            while self.connection.recv(65536):
                pass
        self.connection.close()

    def send(self, command: Command, data: bytes = b"") -> None:
        """Send a command set, and a data set if the command announces one."""
        stream = pack_data(1, pack_command(command), is_command=True, max_length=16384)
        if command.has_data_set:
            stream += pack_data(1, data, is_command=False, max_length=16384)
        self.connection.sendall(stream)

    def store(self, sop_class_uid: str, sop_instance_uid: str, data: bytes) -> Command:
        """C-STORE any bytes under any name; gives the response."""
        command = Command(
            command_field=0x0001,
            message_id=1,
            priority=0,
            command_data_set_type=1,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
        )
        self.send(command, data)
        return self.response()

    def response(self) -> Command:
        """The next command set the other side sends."""
        reader, messages = Reader(), Messages()
        reader.state = AssociationState.ESTABLISHED
        while True:
            for event in reader.events():
                assert isinstance(event, Fragment), f"expected a response, got {event}"
                received = messages.feed(event)
                if received is not None:
                    assert not isinstance(received, bytes)
                    return received.command  # type: ignore[union-attr]
            count = self.connection.recv_into(reader.space())
            assert count, "the other side closed the connection"
            reader.received(count)
