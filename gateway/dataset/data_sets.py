"""Data sets of DIMSE messages: decoded from and encoded to bytes (PS3.5 Section 7).

Not for: instances, which are kept as they came; conversion to DICOM JSON (`gateway.dataset.dicom_json`).
"""

import struct
import zlib
from io import BytesIO

from pydicom import Dataset, config
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset import character_sets as _character_sets  # noqa: F401  completes the tables that pydicom decodes by
from gateway.errors import InvalidDataSet

_UNDEFINED_LENGTH = 0xFFFFFFFF
_CUT_OFF = "The data set ends in the middle of an element."

# pydicom warns about values that break a rule by quoting them, which would put patient data into the log. What has
# to be valid is checked where it is used; what a modality sends is kept as it is.
config.settings.reading_validation_mode = config.IGNORE
config.settings.writing_validation_mode = config.IGNORE


def decode(data: bytes, transfer_syntax: str) -> Dataset:
    """Read a data set that came in a message. Raises InvalidDataSet when it cannot be read."""
    try:
        if transfer_syntax == DeflatedExplicitVRLittleEndian:
            data = zlib.decompress(data, -zlib.MAX_WBITS)
        data_set = read_dataset(_Whole(data), transfer_syntax == ImplicitVRLittleEndian, True)
        if any(_lacks_value(element, len(data)) for element in data_set.values()):
            raise InvalidDataSet(_CUT_OFF)
        for _ in data_set.iterall():
            pass  # pydicom converts values when they are read, and only here may that fail
    except InvalidDataSet:
        raise
    except (EOFError, OSError, struct.error):  # pydicom, where a tag, a length or a delimiter is not whole
        raise InvalidDataSet(_CUT_OFF) from None
    except Exception as error:
        # A parser fed with garbage raises whatever it stumbles over.
        raise InvalidDataSet(f"The data set cannot be read ({type(error).__name__}).") from error
    return data_set


class _Whole(BytesIO):
    """Bytes that have to end where an element ends; zeros behind it are padding."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        # pydicom would take the part that is there of the last value, and half a name is another name.
        if len(data) < (size or 0) and any(data):
            raise InvalidDataSet(_CUT_OFF)
        return data


def _lacks_value(element: object, size: int) -> bool:
    """Is it the head of an element, whose value would be behind the end?"""
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
        return False
    return element.value_tell + element.length > size


def encode(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Write a data set for a message in one of the `UNCOMPRESSED` transfer syntaxes."""
    stream = DicomBytesIO()
    stream.is_little_endian = True
    stream.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    write_dataset(stream, data_set)
    return stream.getvalue()
