"""Microsoft's own stand-in of Azure Blob Storage, where it is installed: the judge of our uploads.

npm install azurite && AZURITE_BLOB=node_modules/.bin/azurite-blob .venv/bin/pytest tests/relay/cloud/test_azurite.py
"""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

from simulator.site import free_port

EXECUTABLE = os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob")
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's account, the same everywhere and no secret."""

VERSION = "2021-12-02"


@dataclass(frozen=True)
class Azurite:
    """A running one, with a container named images."""

    base: str

    def signed(self, name: str, *, lives: timedelta = timedelta(hours=1), permissions: str = "rwdlac") -> str:
        """The URL of a blob, good for a while."""
        return f"{self.base}/images/{name}?{_signature(permissions, datetime.now(UTC) + lives)}"

    def content(self, name: str) -> tuple[str, str]:
        """SHA-256 of what a blob holds, and the one in its metadata."""
        with urllib.request.urlopen(self.signed(name), timeout=60) as answer:
            return hashlib.file_digest(answer, "sha256").hexdigest(), answer.headers["x-ms-meta-sha256"]


@contextmanager
def running(folder: Path) -> Iterator[Azurite]:
    port = free_port()
    command = [str(EXECUTABLE), "--silent", "--skipApiVersionCheck", "--blobPort", str(port), "--location", str(folder)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}/{ACCOUNT}"
        _create_container(f"{base}/images?restype=container&{_signature('rwdlac', datetime.now(UTC) + timedelta(1))}")
        yield Azurite(base)
    finally:
        process.terminate()
        process.wait(20)


def _create_container(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5)
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _signature(permissions: str, expires_at: datetime) -> str:
    """An account SAS for blobs, as Microsoft describes it for this version."""
    end = f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"
    to_sign = "\n".join([ACCOUNT, permissions, "b", "sco", "", end, "", "", VERSION, "", ""])
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), to_sign.encode(), hashlib.sha256).digest()).decode()
    return urlencode({"sv": VERSION, "ss": "b", "srt": "sco", "sp": permissions, "se": end, "sig": signature})
