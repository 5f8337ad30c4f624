"""Converts a stored object to Explicit or Implicit VR Little Endian, for a peer that does not accept the stored form.

The stored object is never changed. Not for: whether it is needed (`pacs.query_retrieve.retrieve`), pictures
(`pacs.images.pictures`).
"""

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.data_sets import encode
from gateway.errors import NotAcceptable
from pacs.images.decoding import decode
from pacs.images.stored_frames import Layout, opened

LARGEST = 256 << 20
"""Bytes of an object that is converted: four times the largest mammogram. A tomosynthesis is sent as stored or not."""

PATIENCE_SECONDS = 60.0
MOST_MEMORY = 4 << 30
"""Bytes of address space of the process that decodes; what LARGEST needs, and the libraries."""

_PLAIN = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
# One conversion at a time, because each takes several times the object's size in memory, and associations are many.
_ONE_AT_A_TIME = Lock()


def converted(path: Path, transfer_syntax_uid: str, wanted: str) -> BinaryIO:
    """The data set of a file in a plain transfer syntax, as an open file at its beginning; the caller closes it.

    Raises NotAcceptable when that cannot be done.
    """
    if path.stat().st_size > LARGEST:
        raise NotAcceptable(f"The object is larger than {LARGEST >> 20} MB, too large to be converted for this peer.")
    file: BinaryIO = TemporaryFile()  # noqa: SIM115  it is the caller's
    try:
        with _ONE_AT_A_TIME:
            if transfer_syntax_uid in _PLAIN:
                file.write(encode(dcmread(path), wanted))
            else:
                _decoded_elsewhere(path, wanted, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _decoded_elsewhere(path: Path, wanted: str, file: BinaryIO) -> None:
    # A process of its own, because decoders are C code that a damaged object can crash or hang. Starting it takes half
    # a second, which is acceptable because objects are sent as stored whenever the peer accepts that.
    command = [sys.executable, "-m", "pacs.images.decompress", str(path), wanted]
    try:
        subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, timeout=PATIENCE_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        raise NotAcceptable("The object's pixels could not be decompressed for this peer.") from error


def decompressed(path: Path) -> Dataset:
    """The data set of a file with native pixels; all else as it is. Raises a Refusal for one damaged or too large."""
    with opened(path) as frames:
        layout = frames.layout
        if layout.frames * layout.frame_length > LARGEST:
            raise NotAcceptable(f"Decompressed, the object has more than {LARGEST >> 20} MB.")
        numbers = range(1, layout.frames + 1)
        pixels = [decode(frames.read(number), layout, frames.transfer_syntax_uid).tobytes() for number in numbers]
    data_set = dcmread(path)
    _describe(data_set, layout)
    value = b"".join(pixels)
    data_set.PixelData = value + b"\0" * (len(value) % 2)
    data_set["PixelData"].VR = "OB" if layout.bits_allocated == 8 else "OW"
    data_set["PixelData"].is_undefined_length = False
    return data_set


def _describe(data_set: Dataset, layout: Layout) -> None:
    """Describe the decoded pixels in the attributes."""
    # Decoders give colour as RGB, pixel by pixel.
    if layout.samples == 3:
        data_set.PhotometricInterpretation, data_set.PlanarConfiguration = "RGB", 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in data_set:
            del data_set[keyword]


def main() -> None:
    """Write the converted data set of a file to standard output: `python -m pacs.images.decompress FILE SYNTAX`."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    path, wanted = Path(sys.argv[1]), UID(sys.argv[2])
    sys.stdout.buffer.write(encode(decompressed(path), wanted))


if __name__ == "__main__":
    main()
