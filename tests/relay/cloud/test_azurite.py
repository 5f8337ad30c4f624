"""What our own stand-in lets pass, Azurite lets pass as well; skipped where it is not installed."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from relay.cloud.blob_upload import BLOCK_BYTES, BlobUpload, UrlRefused
from tests.relay.cloud.test_blob_upload import throttle
from tests.tools import azurite
from tests.tools.azurite import Azurite
from tests.tools.waiting import until

pytestmark = pytest.mark.skipif(
    azurite.EXECUTABLE is None, reason="Azurite is not installed; see tests/tools/azurite.py"
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite.running(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "image.dcm").write_bytes(os.urandom(4 * BLOCK_BYTES + 1000))
    return tmp_path / "image.dcm"


@pytest.fixture
def content(file: Path) -> Iterator[BinaryIO]:
    with file.open("rb") as opened:
        yield opened


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_killed_upload_goes_on_where_it_was(storage: Azurite, file: Path, content: BinaryIO) -> None:
    slowly = throttle(BLOCK_BYTES * 2)  # after the two that are free, one takes half a second
    first = BlobUpload(storage.signed("killed.dcm"), content, digest(file), throttle=slowly)
    running = asyncio.create_task(first.run())
    await until(lambda: first.sent_blocks == 2, "the second block")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    again = BlobUpload(storage.signed("killed.dcm"), content, digest(file), throttle=throttle())
    await again.run()
    assert (first.sent_blocks + again.sent_blocks, await asyncio.to_thread(storage.content, "killed.dcm")) == (
        5,
        (digest(file), digest(file)),
    )


async def test_what_is_there_already_is_not_sent_again(storage: Azurite, file: Path, content: BinaryIO) -> None:
    await BlobUpload(storage.signed("twice.dcm"), content, digest(file), throttle=throttle()).run()
    again = BlobUpload(storage.signed("twice.dcm"), content, digest(file), throttle=throttle())
    await again.run()
    assert again.sent_blocks == 0


async def test_a_url_that_only_allows_to_write_is_enough(storage: Azurite, file: Path, content: BinaryIO) -> None:
    await BlobUpload(storage.signed("blind.dcm", permissions="wc"), content, digest(file), throttle=throttle()).run()
    assert await asyncio.to_thread(storage.content, "blind.dcm") == (digest(file), digest(file))


async def test_an_expired_url_is_refused_before_anything_is_sent(
    storage: Azurite, file: Path, content: BinaryIO
) -> None:
    upload = BlobUpload(
        storage.signed("late.dcm", lives=timedelta(hours=-1)), content, digest(file), throttle=throttle()
    )
    with pytest.raises(UrlRefused, match="HTTP 403"):
        await upload.run()
    assert upload.sent_blocks == 0
