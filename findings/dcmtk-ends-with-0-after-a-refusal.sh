#!/bin/sh
# Guess: a tool whose request was answered with a failure ends with another code than 0, as storescu does.
# Seen:  echoscu, findscu, movescu and getscu end with 0 and print nothing, whatever the status says. storescu alone
#        ends with the upper byte of the status: 167 for A700, 192 for C000.
# With:  DCMTK 3.6.7-9~deb12u4 of Debian 12; pynetdicom 3.0.4 is the peer that refuses.
# Means: to a script a worklist that is broken looks like an empty one, and a move that was refused like one that was
#        done. Only -v shows the status.
# Here:  `gateway check` and `gateway find` read the status themselves and do not call these tools.
. "$(dirname "$0")/setup"
packages pydicom==3.0.2 pynetdicom==3.0.4
needs storescu dcmtk

python <<'PYTHON'
import subprocess

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

status = 0


def move(event: evt.Event):
    yield "127.0.0.1", 1  # where the images would go; none is sent
    yield 0
    yield status, None


def get(event: evt.Event):
    yield 0
    yield status, None


def find(event: evt.Event):
    yield status, None


ae = AE()
for sop_class in (
    Verification,
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
):
    ae.add_supported_context(sop_class)
handlers = [
    (evt.EVT_C_ECHO, lambda event: status),
    (evt.EVT_C_STORE, lambda event: status),
    (evt.EVT_C_FIND, find),
    (evt.EVT_C_MOVE, move),
    (evt.EVT_C_GET, get),
]
server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
peer = ["127.0.0.1", str(server.server_address[1])]

ds = Dataset()
ds.file_meta = FileMetaDataset()
ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID = SecondaryCaptureImageStorage, "2.25.1", "2.25.2"
ds.save_as("image.dcm", enforce_file_format=True)

study = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=2.25.2"]
calls = {
    "echoscu": (peer, (0x0122, 0x0212)),
    "findscu": ([*study, *peer], (0xA700, 0xC000)),
    "movescu": ([*study, *peer], (0xA702, 0xC000)),
    "getscu": ([*study, *peer], (0xA702, 0xC000)),
    "storescu": ([*peer, "image.dcm"], (0xA700, 0xC000)),
}
seen = {}
for tool, (arguments, failures) in calls.items():
    for status in (0x0000, *failures):
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=30, check=False)
        seen[tool, status] = done.returncode
        said = (done.stdout + done.stderr).strip().replace("\n", " | ") or "nothing"
        print(f"{tool:9} status {status:04X}: ends with {done.returncode}, prints {said}")
server.shutdown()

storescu = {0x0000: 0, 0xA700: 0xA7, 0xC000: 0xC0}
raise SystemExit(any(code != (storescu[status] if tool == "storescu" else 0) for (tool, status), code in seen.items()))
PYTHON
