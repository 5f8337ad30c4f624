"""An HTTP request that came over the hybrid connection, and the answer to it. Values only.

The seam between link and handler: `HybridListener(..., on_request=...)` calls it with an `HttpRequest` and gets an
`HttpAnswer`. Both bodies may be larger than memory; small ones can be read and given as bytes.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from gateway.errors import TooLarge

CONTENT_LIMIT = 16 * 1024 * 1024
"""Most bytes of a request's body that `HttpRequest.content` reads into memory by default."""


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A streamed body of bytes that are in memory."""
    for part in parts:
        yield part


@dataclass(frozen=True)
class HttpRequest:
    """A sender's request; `target` is path and query as it sent them, below the name of the hybrid connection.

    Hop-by-hop headers are removed, `Via` names the service. `body` can be read once, and raises an error of the link
    when the rest of it does not come; what a handler leaves unread is dropped.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: AsyncIterator[bytes] = field(default_factory=pieces, repr=False)

    def header(self, name: str) -> str:
        """The value of a header, whatever its capitals; empty when there is none."""
        return next((value for known, value in self.headers.items() if known.lower() == name.lower()), "")

    async def content(self, *, limit: int = CONTENT_LIMIT) -> bytes:
        """Read the whole body. Raises TooLarge when it has more than `limit` bytes."""
        content = bytearray()
        async for piece in self.body:
            content += piece
            if len(content) > limit:
                raise TooLarge(f"The body of the request has more than the {limit} bytes that are read here.")
        return bytes(content)


@dataclass(frozen=True)
class HttpAnswer:
    """The answer to a request.

    A `body` of bytes is sent as it is. An iterator is sent piece by piece, as fast as the other side takes it, with a
    few hundred kB in memory; if it raises after its first piece, or pauses for longer than the service allows, the
    answer is cut off, so that it is not taken for complete. Statuses 502 and 504 are sent as 503, because the service
    uses them for "no listener answered".
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = field(default=b"", repr=False)
