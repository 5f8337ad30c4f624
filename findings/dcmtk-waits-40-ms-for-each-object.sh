#!/bin/sh
# Guess: storing a small object over loopback takes a millisecond or two, whichever side is slow.
# Seen:  each object takes 40 ms longer than with TCP_NODELAY=1 in storescu's environment. It writes the header of a
#        PDU (12 bytes) and its content apart and leaves Nagle's algorithm on, so the content waits until the header
#        was acknowledged, and Linux delays that acknowledgement by 40 ms when the listener has nothing to say yet.
# With:  DCMTK 3.6.7-9~deb12u4 of Debian 12 against the listener of pynetdicom 3.0.4, Linux.
# Means: a machine built on DCMTK stores small objects several times slower than it could, with an idle processor on
#        both sides. The machine cannot be changed; the listener can acknowledge at once (TCP_QUICKACK, which has to be
#        set again after each read).
# Here:  gateway/dicom/transport.py does that. The store benchmark measures machines with and without TCP_NODELAY=1
#        (tests/benchmarks/store.py).
. "$(dirname "$0")/setup"
packages pydicom==3.0.2 pynetdicom==3.0.4
needs storescu dcmtk

python <<'PYTHON'
import os
import subprocess
import time
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import SecondaryCaptureImageStorage

OBJECTS = 50

Path("objects").mkdir()
for number in range(OBJECTS):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, f"2.25.{number + 1}"
    ds.save_as(f"objects/{number}.dcm", enforce_file_format=True)

ae = AE()
ae.add_supported_context(SecondaryCaptureImageStorage)
server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)])
command = ["storescu", "+sd", "127.0.0.1", str(server.server_address[1]), "objects"]


def milliseconds(**environment: str) -> float:
    """For one object, in the best of three runs."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, env={**os.environ, **environment}, timeout=60, check=True)
        took.append((time.perf_counter() - began) * 1000 / OBJECTS)
    return min(took)


os.environ.pop("TCP_NODELAY", None)
as_it_is, without_nagle = milliseconds(), milliseconds(TCP_NODELAY="1")
server.shutdown()
print(f"{as_it_is:.1f} ms an object as it is, {without_nagle:.1f} ms with TCP_NODELAY=1")
raise SystemExit(as_it_is - without_nagle < 25)
PYTHON
