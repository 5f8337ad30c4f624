"""Transport of an accepted association: one TCP connection, plain or within TLS. Bytes in, bytes out, timeouts.

Not for: the meaning of the bytes (`pdu`), the TLS profile (`gateway.tls`).
"""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Protocol, cast

from gateway.errors import HandshakeFailed
from gateway.tls import failure, is_tls, not_tls

_SHORT_READ = 65_000
"""Bytes; a read that brought less has probably emptied the socket, so the peer may be waiting for our ACK."""

_RECEIVE_BYTES = 1 << 18
"""Bytes TLS takes from the socket at once; sixteen records of the largest size."""


class Transport(Protocol):
    """The connection of an association. Every method may raise OSError when the connection is broken."""

    def shake_hands(self) -> bool:
        """Take one step of the handshake, waiting for the peer at most once. True when it is done.

        Raises HandshakeFailed when it cannot succeed, BlockingIOError when the peer said nothing in time.
        """

    def described(self) -> dict[str, str]:
        """Facts about the protection of this connection, for the log."""

    def fileno(self) -> int:
        """The descriptor of the socket, for waiting for it and for something else at once."""

    def set_patience(self, seconds: float) -> None:
        """Limit how long one receive or send may wait; BlockingIOError is raised then."""

    def receive(self, space: memoryview, flags: int = 0) -> int:
        """Receive at least a byte; 0 at the end of the stream. With MSG_DONTWAIT it raises BlockingIOError at once."""

    def send(self, data: bytes | bytearray) -> None:
        """Send all of it."""

    def close_with(self, data: bytes, *, seconds: float) -> None:
        """Send the last bytes and wait up to `seconds` for the peer to close."""

    def shut(self, how: int) -> None:
        """End one or both directions; the one method that another thread may call. Never raises."""

    def close(self) -> None:
        """Close at once."""


class PlainWire:
    """TCP as it is."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # DCMTK-based peers send header and body of a PDU in two writes with Nagle's algorithm on, and would wait 40 ms
        # for each delayed ACK of ours. The same must not happen to our own answers.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def shake_hands(self) -> bool:
        return True

    def described(self) -> dict[str, str]:
        return {}

    def fileno(self) -> int:
        return self._connection.fileno()

    def set_patience(self, seconds: float) -> None:
        seconds = max(seconds, 0.001)  # the kernel takes 0 for "as long as you like"
        # The kernel's timeouts, which keep the socket blocking: one system call per read where Python's take two.
        timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)

    def receive(self, space: memoryview, flags: int = 0) -> int:
        count = self._connection.recv_into(space, 0, flags)
        if 0 < count < _SHORT_READ:  # each time, because the kernel forgets TCP_QUICKACK
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    def send(self, data: bytes | bytearray) -> None:
        self._connection.sendall(data)

    def close_with(self, data: bytes, *, seconds: float) -> None:
        self.set_patience(seconds)
        self.send(data)
        # Half closed and read until the peer closes, because a close with unread data would make the kernel send RST,
        # which may destroy the last PDU on its way.
        self._connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + seconds
        while self._connection.recv(1 << 16) and time.monotonic() < deadline:
            pass

    def shut(self, how: int) -> None:
        with suppress(OSError):  # it is closed already, which is what was wanted
            self._connection.shutdown(how)

    def close(self) -> None:
        self._connection.close()


class TlsTransport:
    """The same within TLS, as its server."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._plain = PlainWire(connection)
        # OpenSSL works on two buffers in memory and never sees the socket. A wrapped socket would read one record with
        # two system calls, ignore SO_RCVTIMEO, refuse MSG_DONTWAIT (which finds a C-CANCEL), and lose its state when
        # another thread shuts it down to stop the service.
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)  # with a buffer it counts
        self._is_closed = False
        self._space = memoryview(bytearray(_RECEIVE_BYTES))
        self._has_begun = False
        self.set_patience, self.shut, self.close = self._plain.set_patience, self._plain.shut, self._plain.close
        self.fileno = self._plain.fileno

    def shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            self._fill_in_handshake()
            return False
        except ssl.SSLError as error:
            raise failure(error) from error  # the alert for the peer is sent by `close_with`
        self._flush()
        return True

    def described(self) -> dict[str, str]:
        cipher = self._tls.cipher()
        facts = {"tls": f"{self._tls.version()} {cipher[0] if cipher else ''}"}
        certificate = self._tls.getpeercert(binary_form=True)
        return facts | ({"certificate": sha256(certificate).hexdigest()} if certificate else {})

    def receive(self, space: memoryview, flags: int = 0) -> int:
        while True:
            count = self._decrypted(space)
            self._flush()  # an answer of TLS itself, such as to an update of the keys
            if count:
                return count
            if self._is_closed or not self._fill(flags):
                return 0

    def send(self, data: bytes | bytearray) -> None:
        self._tls.write(data)
        self._flush()

    def close_with(self, data: bytes, *, seconds: float) -> None:
        with suppress(ssl.SSLError):  # the handshake failed, or the peer broke off
            if data:
                self._tls.write(data)
            self._tls.unwrap()
        self._plain.close_with(self._out.read(), seconds=seconds)

    def _decrypted(self, space: memoryview) -> int:
        count = 0
        try:
            while count < len(space) and not self._is_closed:
                count += self._read(len(space) - count, space[count:])
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._is_closed = True
        return count

    def _fill(self, flags: int = 0) -> int:
        count = self._plain.receive(self._space, flags)
        self._in.write(self._space[:count])
        return count

    def _fill_in_handshake(self) -> None:
        count = self._fill()
        if not count:
            raise HandshakeFailed("The peer closed the connection during the TLS handshake.")
        if not self._has_begun and not is_tls(self._space[0]):
            raise not_tls(bytes(self._space[:count]))
        self._has_begun = True

    def _flush(self) -> None:
        if self._out.pending:
            self._plain.send(self._out.read())
