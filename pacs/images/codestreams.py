"""Reads and checks the headers of a compressed frame, before a decoder gets it.

Not for: damage inside the entropy-coded data, which decoders survive.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from pacs.images.stored_frames import PixelError

MOST_TILES = 16_384
"""Most tiles of a JPEG 2000 image: decoders keep several kilobytes for each."""

_SOF_LOSSLESS, _DHT, _SOS, _DRI, _SOF_JPEG_LS = 0xC3, 0xC4, 0xDA, 0xDD, 0xF7
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), _SOF_JPEG_LS}) - {_DHT, 0xC8, 0xCC}
_HEADER_MARKERS = _FRAME_HEADERS | {_DHT, _SOS, 0xDB, _DRI, *range(0xE0, 0xF0), 0xF8, 0xFE}
"""Frame headers, DHT, SOS, DQT, DRI, APPn, LSE (JPEG-LS) and COM: nothing else may stand before the scan."""

_CODESTREAM = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class Said:
    """The size and depth that a compressed frame states."""

    rows: int
    columns: int
    samples: int
    bits: int


def jpeg(frame: bytes) -> Said:
    """Read the frame header of a JPEG or JPEG-LS image (ITU T.81 B.2.2). Raises PixelError if there is not just one."""
    headers = [body for marker, body in _segments(frame) if marker in _FRAME_HEADERS]
    if len(headers) != 1 or len(headers[0]) < 6:
        raise PixelError("The compressed frame is not a JPEG image.")
    bits, rows, columns, samples = struct.unpack_from(">BHHB", headers[0])
    return Said(rows, columns, samples, bits)


def jpeg_lossless(frame: bytes) -> Said:
    """Read the frame header of a JPEG Lossless image (ITU T.81 H), after checking all that its scan refers to."""
    # Checked here, because GDCM ends the whole process on some malformed frames (found by fuzzing: a Huffman table that
    # is used and not defined).
    said = jpeg(frame)
    tables: set[int] = set()
    for marker, body in _segments(frame):
        if marker == _DHT:
            tables |= _huffman_tables(body)
        elif marker in _FRAME_HEADERS and not (marker == _SOF_LOSSLESS and _is_frame_header(body, said)):
            raise PixelError("The compressed frame is not a JPEG Lossless image.")
        elif marker == _DRI and (len(body) != 2 or int.from_bytes(body, "big") % said.columns):
            raise PixelError("The restart interval of the compressed frame is not a number of rows.")
        elif marker == _SOS and not _is_scan_header(body, said, tables):
            raise PixelError("The scan header of the compressed frame is damaged.")
    return said


def jpeg_2000(frame: bytes) -> Said:
    """Read the SIZ marker of a JPEG 2000 codestream, alone or in a JP2 file (ITU T.800 A.5.1)."""
    start = frame.find(_CODESTREAM, 0, 65_536)
    if start < 0 or start + 43 > len(frame):
        raise PixelError("The compressed frame is not a JPEG 2000 image.")
    right, bottom, left, top, wide, high, tile_left, tile_top, samples, depth = struct.unpack_from(
        ">8IHB", frame, start + 8
    )
    if not wide or not high or -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high) > MOST_TILES:
        raise PixelError(f"The compressed frame has more than {MOST_TILES} tiles.")
    return Said(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the marker segments of a JPEG image up to and including the first scan header (ITU T.81 B.1.1.4)."""
    if frame[:2] != b"\xff\xd8":
        raise PixelError("The compressed frame is not a JPEG image.")
    position, marker = 2, 0
    while marker != _SOS:
        while frame[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        head = frame[position : position + 4]
        length = int.from_bytes(head[2:], "big")
        if len(head) < 4 or head[0] != 0xFF or head[1] not in _HEADER_MARKERS or length < 2:
            raise PixelError("The headers of the compressed frame are damaged.")
        marker, position = head[1], position + 2 + length
        if position > len(frame):
            raise PixelError("The compressed frame is cut off.")
        yield marker, frame[position - length + 2 : position]


def _huffman_tables(body: bytes) -> set[int]:
    """Return which tables a DHT segment defines; each is a prefix code of difference categories (B.2.4.2, H.1.2)."""
    tables = set()
    while body:
        counts = body[1:17]
        symbols, body, kind = body[17 : 17 + sum(counts)], body[17 + sum(counts) :], body[0]
        used = list(accumulate(counts, lambda codes, count: 2 * codes + count, initial=0))[1:]
        complete = len(counts) == 16 and 0 < len(symbols) == sum(counts)
        if kind > 3 or not complete or max(symbols) > 16 or any(n > 1 << i for i, n in enumerate(used, 1)):
            raise PixelError("A Huffman table of the compressed frame is damaged.")
        tables.add(kind)
    return tables


def _is_frame_header(body: bytes, said: Said) -> bool:
    """Whether all components are there and none is subsampled."""
    # A single component cannot be subsampled, whatever its factors are.
    sampling = set(body[7 : 6 + 3 * said.samples : 3])
    whole = sampling == {0x11} or (said.samples == 1 and sampling <= {0x12, 0x21, 0x22})
    return len(body) == 6 + 3 * said.samples and 2 <= said.bits <= 16 and whole and said.columns > 0


def _is_scan_header(body: bytes, said: Said, tables: set[int]) -> bool:
    """Whether one scan has all components, each with a defined table, a predictor 1 to 7, and a valid transform."""
    if len(body) != 4 + 2 * said.samples or body[0] != said.samples:
        return False
    chosen, predictor, last, transform = set(body[2:-3:2]), body[-3], body[-2], body[-1]
    return {table >> 4 for table in chosen} <= tables and 1 <= predictor <= 7 and last == 0 and transform < said.bits
