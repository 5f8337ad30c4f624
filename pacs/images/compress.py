"""Compresses a stored object without loss into JPEG 2000 or JPEG-LS, for a slow or expensive line to the cloud.

Every frame is decoded again and compared. Refused are colour, pixels that were compressed with loss before, values that
do not fit the header, and attributes behind the pixels. The stored object is never changed.

Not for: decompressing for a peer (`decompress`), transcoding for a client (`transcode`), pictures (`pictures`).
"""

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jpeg_ls import encode_array as encode_jpeg_ls
from openjpeg.utils import encode_array as encode_jpeg_2000
from pydicom import dcmread
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from gateway.errors import NotAcceptable, Refusal
from pacs.images.decoding import Cells, decode
from pacs.images.stored_frames import NATIVE, Layout, PixelError, StoredFrames, opened

MOST_MEMORY = 4 << 30
"""Bytes of address space of the process that encodes: the largest frame several times, and the libraries."""

PATIENCE_SECONDS = 3600.0
"""A tomosynthesis of a hundred slices takes two minutes on a slow box."""

CANNOT = 3
"""Exit code of the process when the object cannot be converted; the sentence is on its standard error."""

_WITHOUT_LOSS = NATIVE | {
    JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless,
}  # fmt: skip
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = b"\xff\xff\xff\xff"
_TRAILING = (0xFFFCFFFC, 0xFFFAFFFA)
"""Padding, and signatures, which are void when anything is encoded anew (PS3.5 Annex A, PS3.15 Annex C)."""


def _jpeg_2000(cells: Cells, layout: Layout) -> bytes:
    values = cells.view(f"<i{cells.dtype.itemsize}") if layout.signed else cells
    return bytes(encode_jpeg_2000(values, photometric_interpretation=2, bits_stored=layout.bits_stored, use_mct=False))


def _jpeg_ls(cells: Cells, _layout: Layout) -> bytes:
    return bytes(encode_jpeg_ls(cells))  # it knows no signs: the bits are the same (PS3.5 8.2.3)


_ENCODERS: Mapping[str, Callable[[Cells, Layout], bytes]] = MappingProxyType(
    {JPEG2000Lossless: _jpeg_2000, JPEGLSLossless: _jpeg_ls}
)

COMPRESSIONS = frozenset(map(str, _ENCODERS))
"""Transfer syntaxes that an object can be converted to on its way."""


def compress(path: Path, wanted: str, target: Path) -> None:
    """Write the object of a Part 10 file to another one in a lossless transfer syntax, in another process.

    The same object always gives the same file. Raises NotAcceptable with the reason when it cannot be done; then, and
    when this process is killed, there is no `target`, or the one that was there before.
    """
    # A process of its own with bounded memory, because encoders are C code.
    part = target.with_suffix(".part")
    quiet = ("-W", "ignore")  # the package has imported this module already, of which Python warns
    command = [sys.executable, *quiet, "-m", "pacs.images.compress", str(path), wanted, str(part)]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS, check=False)
        if done.returncode == CANNOT:
            raise NotAcceptable(done.stderr.decode(errors="replace").strip())
        if done.returncode:
            raise NotAcceptable("The object could not be compressed: the process that did it failed.")
        part.replace(target)
    except subprocess.TimeoutExpired as error:
        raise NotAcceptable("The object could not be compressed in time.") from error
    finally:
        part.unlink(missing_ok=True)


def write_compressed(path: Path, wanted: str, target: Path) -> None:
    """As `compress`, in this process; decoders and encoders may raise anything on damage."""
    with opened(path) as stored, target.open("wb") as file:
        _check(stored)
        data_set = dcmread(path, stop_before_pixels=True)
        data_set.file_meta.TransferSyntaxUID = UID(wanted)
        data_set.save_as(file, implicit_vr=False, little_endian=True, enforce_file_format=True)
        file.write(b"\xe0\x7f\x10\x00OB\0\0" + _UNDEFINED + _ITEM + b"\0\0\0\0")  # an empty Basic Offset Table
        for frame in _frames(stored, wanted):
            file.write(_ITEM + struct.pack("<I", len(frame)) + frame)
        file.write(_DELIMITER + b"\0\0\0\0")


def _frames(stored: StoredFrames, wanted: str) -> Iterator[bytes]:
    layout = stored.layout
    # Frame by frame, so that a tomosynthesis of a gigabyte takes the memory of one frame.
    for number in range(1, layout.frames + 1):
        cells = decode(stored.read(number), layout, stored.transfer_syntax_uid)
        frame = _encoded(np.ascontiguousarray(cells), layout, wanted)
        frame += b"\0" * (len(frame) % 2)
        # Compared, because the pixels that arrive must be the very pixels that are stored, whatever the encoder does.
        if not np.array_equal(decode(frame, layout, wanted), cells):
            raise PixelError("The pixels hold more than the header says, so that compressing them would change them.")
        yield frame


def _encoded(cells: Cells, layout: Layout, wanted: str) -> bytes:
    try:
        return _ENCODERS[wanted](cells, layout)
    except (ValueError, RuntimeError) as error:  # the libraries' words are not ours to pass on
        raise PixelError("The encoder refuses these pixels; ask for the object as it is stored.") from error


def _check(stored: StoredFrames) -> None:
    if stored.layout.samples != 1:
        raise PixelError("Only grey images are compressed on the way.")
    # Compressed with loss before, they would only grow.
    if stored.transfer_syntax_uid not in _WITHOUT_LOSS:
        raise PixelError("The object is stored compressed with loss already; ask for it as it is stored.")
    if stored.transfer_syntax_uid in NATIVE:
        _check_the_end(stored)


def _check_the_end(stored: StoredFrames) -> None:
    """Refuse an object with attributes behind the pixels, because they would be left out."""
    length = stored.layout.frames * stored.layout.frame_length
    stored.file.seek(stored.begin + length + length % 2)
    rest = stored.file.read(4)
    tag = int.from_bytes(rest[:2], "little") << 16 | int.from_bytes(rest[2:], "little")
    if rest and tag not in _TRAILING:
        raise PixelError("Attributes follow the pixels, which would be lost; ask for the object as it is stored.")


def main() -> None:
    """Compress one file: `python -m pacs.images.compress FILE SYNTAX TARGET`."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    with suppress(PermissionError):  # a unit may forbid it; clinic traffic comes first where it can
        os.nice(10)
    path, wanted, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    try:
        write_compressed(path, wanted, target)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(CANNOT) from refusal


if __name__ == "__main__":
    main()
