"""A file gets to a blob in blocks, whatever happens on the way, and no block twice; Azurite agrees."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from gateway.errors import CloudError
from relay.cloud.blob_upload import (
    BLOCK_BYTES,
    BlobUpload,
    Block,
    UploadRefused,
    UrlRefused,
    beneath,
    block_list,
    blocks,
    missing,
    staged_blocks,
)
from relay.cloud.throttle import Throttle
from simulator.azure.blob_storage import Blobs
from simulator.site import free_port
from tests.tools.waiting import PATIENCE_SECONDS, until

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SIZE = 3 * BLOCK_BYTES + 1000
DIGEST = "ab" * 32


def throttle(rate: int = 0) -> Throttle:
    return Throttle(rate, received_last=lambda: LONG_AGO)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "image.dcm").write_bytes(os.urandom(SIZE))
    return tmp_path / "image.dcm"


@pytest.fixture
def content(file: Path) -> Iterator[BinaryIO]:
    with file.open("rb") as opened:
        yield opened


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@asynccontextmanager
async def storage(tmp_path: Path) -> AsyncIterator[Blobs]:
    (tmp_path / "blobs").mkdir()
    async with Blobs(tmp_path / "blobs").serving() as blobs:
        yield blobs


def test_a_file_is_cut_into_blocks_whose_names_say_whose_and_which_they_are() -> None:
    [first, last] = blocks(DIGEST, 5, block_bytes=4)
    assert (first.offset, first.size, last.offset, last.size) == (0, 4, 4, 1)
    assert len(first.id) == len(last.id) and first.id != last.id
    assert blocks(DIGEST, 5, block_bytes=4) == [first, last]
    assert first.id not in {block.id for block in blocks("cd" * 32, 5, block_bytes=4)}


def test_a_block_that_is_staged_in_part_only_is_missing() -> None:
    wanted = [Block("a", 0, 4), Block("b", 4, 4), Block("c", 8, 1)]
    assert missing(wanted, {"a": 4, "b": 3}) == wanted[1:]


def test_the_services_answer_is_read_and_nonsense_is_nothing() -> None:
    answer = (
        b"<BlockList><UncommittedBlocks><Block><Name>a</Name><Size>4</Size></Block></UncommittedBlocks></BlockList>"
    )
    assert staged_blocks(answer) == {"a": 4}
    assert [staged_blocks(text) for text in (b"", b"<BlockList/>", b"{}")] == [{}, {}, {}]
    assert block_list([Block("a", 0, 4)]).endswith(b"<BlockList><Latest>a</Latest></BlockList>")


def test_an_object_of_a_study_lies_beneath_the_signed_url() -> None:
    assert beneath("https://a.example/c/f/?sig=x%3D", "1.2.dcm") == "https://a.example/c/f/1.2.dcm?sig=x%3D"


async def test_a_file_arrives_whole_and_says_its_digest(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        blob = blobs.blobs["one.dcm"]
        assert (blob.sha256, blob.size, blob.metadata) == (digest(file), SIZE, {"sha256": digest(file)})


async def test_a_line_that_is_cut_costs_one_block(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        blobs.cut_after = 2 * BLOCK_BYTES + 100_000
        upload = BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle())
        await upload.run()
        assert (blobs.blobs["one.dcm"].sha256, blobs.put_blocks, upload.sent_blocks) == (digest(file), 4, 4)


async def test_a_restarted_upload_sends_only_what_is_not_staged(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        blobs.mute_after = 2  # what is killed is always in its third block
        running = asyncio.create_task(
            BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        )
        await until(lambda: blobs.put_blocks == 2, "the second block")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        blobs.mute_after = None
        again = BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle())
        await again.run()
        assert (again.sent_blocks, blobs.blobs["one.dcm"].sha256) == (2, digest(file))


async def test_a_confirmation_that_got_lost_is_found_out_without_sending_anything(
    file: Path, content: BinaryIO, tmp_path: Path
) -> None:
    async with storage(tmp_path) as blobs:
        await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        again = BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle())
        await again.run()
        assert again.sent_blocks == 0


async def test_an_expired_url_is_refused_and_a_new_one_goes_on_from_there(
    file: Path, content: BinaryIO, tmp_path: Path
) -> None:
    async with storage(tmp_path) as blobs:
        blobs.refuse_after = 2
        with pytest.raises(UrlRefused, match="403"):
            await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        blobs.refuse_after = None
        again = BlobUpload(blobs.signed("one.dcm") + "&se=later", content, digest(file), throttle=throttle())
        await again.run()
        assert (again.sent_blocks, blobs.blobs["one.dcm"].sha256) == (2, digest(file))


async def test_a_url_that_only_allows_to_write_is_enough(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        blobs.readable = False
        await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        assert blobs.blobs["one.dcm"].sha256 == digest(file)


async def test_a_block_that_the_line_damaged_is_sent_again(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        blobs.damage_next = True
        with pytest.raises(CloudError, match="Md5Mismatch"):  # nothing was staged yet: the pause is the caller's
            await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle()).run()
        assert blobs.blobs["one.dcm"].sha256 == digest(file)


async def test_a_storage_that_is_not_there_is_tried_again_and_one_without_the_container_is_not(
    file: Path, content: BinaryIO, tmp_path: Path
) -> None:
    async with storage(tmp_path) as blobs:
        with pytest.raises(UploadRefused, match="404"):
            await BlobUpload(f"{blobs.url}/nowhere/one.dcm?sig=x", content, digest(file), throttle=throttle()).run()
    with pytest.raises(CloudError) as caught:
        await BlobUpload(
            f"http://127.0.0.1:{free_port()}/images/one.dcm?sig=x", content, digest(file), throttle=throttle()
        ).run()
    assert not caught.value.permanent


async def test_nothing_is_sent_faster_than_allowed(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        loop, rate = asyncio.get_running_loop(), 8 * 1024 * 1024
        began = loop.time()
        await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=throttle(rate)).run()
        assert loop.time() - began >= (SIZE - rate) / rate  # the first second's worth is in the bucket


async def test_an_upload_waits_while_something_comes_in(file: Path, content: BinaryIO, tmp_path: Path) -> None:
    times = [datetime.now(UTC), LONG_AGO]
    waiting = Throttle(0, received_last=lambda: times.pop(0) if len(times) > 1 else times[0])
    async with storage(tmp_path) as blobs:
        began = asyncio.get_running_loop().time()
        await BlobUpload(blobs.signed("one.dcm"), content, digest(file), throttle=waiting).run()
        assert (asyncio.get_running_loop().time() - began >= 0.5, times) == (True, [LONG_AGO])


def test_a_receipt_in_the_future_is_a_clock_that_was_set_back() -> None:
    ahead = Throttle(0, received_last=lambda: datetime.now(UTC) + timedelta(hours=1))
    asyncio.run(asyncio.wait_for(ahead.until_quiet(), PATIENCE_SECONDS))
