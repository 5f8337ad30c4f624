"""Foreign DICOM programs: servers run for a test on a port of their own, and what is left out without them."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tools.waiting import wait_until

with_dcmtk = pytest.mark.skipif(shutil.which("dcmdump") is None, reason="DCMTK is not installed")
"""For tests that call DCMTK's tools. dcmdump tells, because pynetdicom brings programs named like the others."""


@contextmanager
def running(port: int, *command: str | Path) -> Iterator[None]:
    """A foreign server, from the moment it takes connections."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_open(port), f"{command[0]} on its port")
        yield
    finally:
        process.terminate()
        process.wait(20)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
