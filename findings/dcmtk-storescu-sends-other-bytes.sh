#!/bin/sh
# Guess: storescu sends the data set of a file in the transfer syntax of the file, byte for byte.
# Seen:  it writes the data set anew: sequences and items of undefined length get a length. Every attribute is the same
#        and the bytes are not. A file that DCMTK has written is sent as it is.
# With:  DCMTK 3.6.7-9~deb12u4 of Debian 12.
# Means: a digest of the file is no proof of what arrived, and the same file sent by two clients arrives as two
#        contents: whether an object is "the same again" cannot be asked of the sender's bytes.
# Here:  the archive keeps and digests what it received. An instance that comes again with other bytes is set aside,
#        and a person is shown which attributes differ (pacs/images/compare.py). Tests that compare bytes let DCMTK
#        write the file first (`dcmconv`).
. "$(dirname "$0")/setup"
packages pydicom==3.0.2 pynetdicom==3.0.4
needs storescu dcmtk

python <<'PYTHON'
import io
import subprocess
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage

received: list[bytes] = []


def keep(event: evt.Event) -> int:
    received.append(event.request.DataSet.getvalue())
    return 0x0000


def data_set(path: str) -> bytes:
    """What follows the group 2 elements of a Part 10 file."""
    content = Path(path).read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def values(written: bytes) -> Dataset:
    return read_dataset(io.BytesIO(written), is_implicit_VR=False, is_little_endian=True)


code = Dataset()
code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399162004", "SCT", "cranio-caudal"
code.is_undefined_length_sequence_item = True
ds = Dataset()
ds.file_meta = FileMetaDataset()
ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.10"
ds.Modality, ds.ConversionType = "OT", "WSD"
ds.AnatomicRegionSequence = [code]
ds["AnatomicRegionSequence"].is_undefined_length = True
ds.save_as("by pydicom.dcm", enforce_file_format=True)
subprocess.run(["dcmconv", "by pydicom.dcm", "by DCMTK.dcm"], check=True)

ae = AE()
ae.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
peer = ["127.0.0.1", str(server.server_address[1])]

seen = {}
for path in ("by pydicom.dcm", "by DCMTK.dcm"):
    subprocess.run(["storescu", *peer, path], timeout=30, check=True)
    stored, sent = data_set(path), received[-1]
    seen[path] = (sent == stored, values(sent) == values(stored))
    bytes_, attributes = ("the same" if same else "OTHER" for same in seen[path])
    print(f"{path}: {len(stored)} bytes, {len(sent)} sent: {bytes_} bytes, {attributes} attributes")
server.shutdown()
raise SystemExit(list(seen.values()) != [(False, True), (True, True)])
PYTHON
