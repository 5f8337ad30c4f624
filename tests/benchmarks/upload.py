"""Upload one large object in blocks, whole and cut half-way, and say what it took: `tests/benchmarks/upload --mb 1000`.

The uploading process is one of its own, so that its memory is its own. The storage is our stand-in, or Azurite where it
is installed (tests/tools/azurite.py). Cut means killed: the second process has to find out what the first one staged.
Ends with 1 when a block was sent twice (but one that was under way) or the content is another.
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from relay.cloud.blob_upload import BLOCK_BYTES, BlobUpload
from relay.cloud.throttle import Throttle
from simulator.azure.blob_storage import Blobs
from tests.tools import azurite
from tests.tools.memory import peak_memory


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000, help="size of the object")
    parser.add_argument("--rate", type=int, default=0, help="bytes per second, 0 without a limit")
    parser.add_argument("--folder", type=Path, help="on which volume; default: the one of temporary files")
    parser.add_argument("--child", nargs=3, metavar=("URL", "FILE", "SHA256"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        asyncio.run(_upload(*arguments.child, rate=arguments.rate))
        return 0
    with tempfile.TemporaryDirectory(prefix="upload-", dir=arguments.folder) as folder:
        return asyncio.run(_measure(Path(folder), size=arguments.mb * 1_000_000, rate=arguments.rate))


async def _upload(url: str, file: str, sha256: str, *, rate: int) -> None:
    before, began = peak_memory(), time.monotonic()
    throttle = Throttle(rate, received_last=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    with Path(file).open("rb") as content:
        upload = BlobUpload(url, content, sha256, throttle=throttle)
        reporting = asyncio.create_task(_report(upload))
        await upload.run()
        reporting.cancel()
    facts = {"blocks": upload.sent_blocks, "seconds": time.monotonic() - began, "grown_kb": peak_memory() - before}
    print(json.dumps(facts), flush=True)


async def _report(upload: BlobUpload) -> None:
    while True:
        print(json.dumps({"blocks": upload.sent_blocks}), flush=True)
        await asyncio.sleep(0.05)


async def _measure(folder: Path, *, size: int, rate: int) -> int:
    path = folder / "object.dcm"
    sha256 = await asyncio.to_thread(_make, path, size)
    total = -(-size // BLOCK_BYTES)
    async with _storage(folder) as (name, signed, content):
        print(f"{size / 1e6:.0f} MB, {total} blocks, to {name}")
        whole = await asyncio.to_thread(_run, signed("whole.dcm"), path, sha256, rate)
        print(f"whole: {_said(whole, size)}")
        killed = await asyncio.to_thread(_run, signed("cut.dcm"), path, sha256, rate, total // 2)
        resumed = await asyncio.to_thread(_run, signed("cut.dcm"), path, sha256, rate)
        print(f"killed after {killed['blocks']:.0f} blocks; resumed: {_said(resumed, size)}")
        right = [await asyncio.to_thread(content, each) == sha256 for each in ("whole.dcm", "cut.dcm")]
    print(f"content right: {right}; blocks sent over: {total - killed['blocks'] - resumed['blocks']:.0f} of the rest")
    return 0 if all(right) and resumed["blocks"] <= total - killed["blocks"] else 1


def _said(facts: dict[str, float], size: int) -> str:
    rate = min(size, facts["blocks"] * BLOCK_BYTES) / 1e6 / facts["seconds"]
    took = f"{facts['seconds']:.1f} s, {rate:.0f} MB/s"
    return f"{facts['blocks']:.0f} blocks, {took}, memory grew by {facts['grown_kb'] / 1024:.0f} MB"


def _run(url: str, path: Path, sha256: str, rate: int, kill_after: int | None = None) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.upload", "--rate", str(rate), "--child", url, str(path), sha256]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    facts: dict[str, float] = {}
    for facts in _lines(process):
        if kill_after is not None and facts["blocks"] >= kill_after:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    return facts


def _lines(process: "subprocess.Popen[str]") -> Iterator[dict[str, float]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def _make(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(0, size, 1_000_000):
            piece = os.urandom(1_000_000)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


@asynccontextmanager
async def _storage(folder: Path) -> AsyncIterator[tuple[str, Callable[[str], str], Callable[[str], str]]]:
    (folder / "storage").mkdir()
    if azurite.EXECUTABLE:
        with azurite.running(folder / "storage") as real:
            yield "Azurite", real.signed, lambda name: real.content(name)[0]
    else:
        async with Blobs(folder / "storage").serving() as blobs:
            yield "the stand-in", blobs.signed, lambda name: blobs.blobs[name].sha256


if __name__ == "__main__":
    sys.exit(main())
