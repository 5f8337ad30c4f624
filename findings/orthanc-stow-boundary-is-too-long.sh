#!/bin/sh
# Guess: the body of an upload by Orthanc's DICOMweb plugin (STOW-RS) can be read by any reader of multipart.
# Seen:  its boundary has 73 characters (one UUID twice), RFC 2046 5.1.1 allows 70. aiohttp refuses to read it;
#        Python's email package takes it.
# With:  Orthanc 1.10.1 and orthanc-dicomweb 1.7 of Debian 12; aiohttp 3.14.5.
# Means: a server that keeps to the RFC cannot be sent anything by one of the most used archives, and what it answers
#        (400) blames the client's body.
# Here:  not taken yet: relay/dicomweb/stow.py reads with aiohttp and answers 400. Orthanc reaches the archive by
#        C-STORE.
. "$(dirname "$0")/setup"
packages aiohttp==3.14.5 pydicom==3.0.2
needs Orthanc orthanc orthanc-dicomweb

python "$(dirname "$(dirname "$(command -v Orthanc)")")" <<'PYTHON'
import asyncio
import io
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from email import message_from_bytes
from pathlib import Path

from aiohttp import MultipartReader, web
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

plugin = Path(sys.argv[1], "share/orthanc/plugins/libOrthancDicomWeb.so")
uploads: list[tuple[str, bytes]] = []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def image() -> bytes:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "2.25.2", "2.25.3", "P"
    written = io.BytesIO()
    ds.save_as(written, enforce_file_format=True)
    return written.getvalue()


async def upload(request: web.Request) -> web.Response:
    uploads.append((request.headers["Content-Type"], await request.read()))
    return web.json_response({}, content_type="application/dicom+json")


def orthanc_sends(server_port: int) -> None:
    """Start Orthanc, give it an image, and have it sent."""
    http = free_port()
    configuration = {
        "HttpPort": http, "DicomPort": free_port(), "StorageDirectory": "storage", "IndexDirectory": "storage",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Servers": {"server": {"Url": f"http://127.0.0.1:{server_port}/"}}},
    }  # fmt: skip
    Path("orthanc.json").write_text(json.dumps(configuration))
    address = f"http://127.0.0.1:{http}"
    with subprocess.Popen(["Orthanc", "orthanc.json"], stderr=subprocess.DEVNULL) as orthanc:
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    urllib.request.urlopen(f"{address}/system", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            with urllib.request.urlopen(f"{address}/instances", image(), timeout=30) as answer:
                stored = json.load(answer)["ID"]
            asked = json.dumps({"Resources": [stored]}).encode()
            urllib.request.urlopen(f"{address}/dicom-web/servers/server/stow", asked, timeout=30).close()
        finally:
            orthanc.terminate()


async def received() -> tuple[str, bytes]:
    application = web.Application()
    application.router.add_post("/studies", upload)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    port = runner.addresses[0][1]
    try:
        await asyncio.to_thread(orthanc_sends, port)
    except OSError:
        pass  # Orthanc wants more of an answer than this one; the upload is there
    await runner.cleanup()
    return uploads[0]


def by_aiohttp(content_type: str, body: bytes) -> str:
    try:
        MultipartReader({"Content-Type": content_type}, None)
    except ValueError as error:
        return f"refuses: {str(error)[:40]}"
    return "reads it"


content_type, body = asyncio.run(received())
boundary = re.search(r"boundary=\"?([^\";]+)", content_type)[1]
parts = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body).get_payload()
aiohttp = by_aiohttp(content_type, body)
print(f"the boundary has {len(boundary)} characters: {boundary}")
print(f"Python's email package reads {len(parts)} part; aiohttp {aiohttp}")
raise SystemExit((len(boundary), len(parts), aiohttp.split(":")[0]) != (73, 1, "refuses"))
PYTHON
