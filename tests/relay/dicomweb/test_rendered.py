"""Pictures that are kept: made once for all who ask, and no more of them than there is room for."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from pacs import Archive, Picture, Stored, rendered
from relay.dicomweb.negotiation import Rendering
from relay.dicomweb.rendered import Pictures
from relay.render_pool import Renderer
from tests.relay import served
from tests.relay.served import STUDY
from tests.tools import corpus

P = ParamSpec("P")
T = TypeVar("T")
LOOK = Rendering(None, None, 90)


class Counting(Renderer):
    """A renderer that counts what it is asked for."""

    count = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.count += 1
        return await super().run(function, *args, **kwargs)


def stored(folder: Path) -> list[Stored]:
    archive = Archive.open(folder / "pacs.db", folder / "instances")
    for number in (1, 2):
        served.receive(archive, served.mammogram("RCC", number), folder)
    found = archive.locate(STUDY)
    archive.close()
    return found


async def asked(folder: Path, *, kept_bytes: int, wanted: list[list[tuple[int, int]]]) -> int:
    """Ask for pictures of instances in a quality, those of each list at once; gives how many were made."""
    instances = stored(folder)
    archive = Archive.attach(folder / "pacs.db", folder / "instances")
    async with Counting(1) as renderer:
        pictures = Pictures(archive, renderer, kept_bytes=kept_bytes)
        for together in wanted:
            made: list[Picture] = await asyncio.gather(
                *(
                    pictures.made((instances[number], None), Rendering(None, None, quality), "image/jpeg")
                    for number, quality in together
                )
            )
            assert all(picture.data for picture in made)
    archive.close()
    return renderer.count


async def test_a_picture_is_made_once_for_all_who_ask(tmp_path: Path) -> None:
    assert await asked(tmp_path, kept_bytes=1 << 20, wanted=[[(0, 90)] * 5, [(0, 90)]]) == 1


async def test_another_object_or_another_look_is_another_picture(tmp_path: Path) -> None:
    assert await asked(tmp_path, kept_bytes=1 << 20, wanted=[[(0, 90), (1, 90), (0, 80)]]) == 3


async def test_what_there_is_no_room_for_is_made_again(tmp_path: Path) -> None:
    assert await asked(tmp_path, kept_bytes=1, wanted=[[(0, 90)], [(0, 90)]]) == 2


async def test_what_was_not_asked_for_longest_goes_first(tmp_path: Path) -> None:
    path = corpus.write(tmp_path / "same.dcm", served.mammogram("RCC", 1))
    room_for_two = len(rendered(path).data) * 5 // 2
    wanted = [[(0, 90)], [(1, 90)], [(0, 90)], [(0, 89)], [(0, 90)], [(1, 90)]]
    assert await asked(tmp_path, kept_bytes=room_for_two, wanted=wanted) == 4
