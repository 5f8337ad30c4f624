"""The viewer's folder: made whole or not at all, and never in the place of something else. And what npm may say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from operations.cli import app
from operations.viewer.fetch import FetchFailed, fetch, verify
from operations.viewer.install import Installed, NotAViewer, install, installed, remove
from relay.pages.viewer import MARK
from relay.pages.viewer_bundle import EDITION, SCRIPT, STYLE, UnexpectedBundle
from tests.relay.pages import viewer_archive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return viewer_archive.written(tmp_path / "ohif.tgz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "viewer"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def stand_in(folder: Path, script: str) -> str:
    """A program called npm that does what the script says; gives the folder it is in."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return str(folder)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_files_are_there_changed_and_compressed_and_nothing_else(archive: Path, folder: Path) -> None:
    written = install(archive, folder)
    kept = {name.removeprefix("package/").removeprefix("dist/") for name in viewer_archive.CONTENTS}
    kept -= {"index.html", "sw.js", "ort/ort.min.js", f"{SCRIPT}.map"}
    squeezed = {f"{name}.gz" for name in kept if name.endswith((".js", ".css", ".wasm"))}
    assert names(folder) == kept | squeezed | {MARK}
    assert (folder / STYLE).read_bytes() == b"before " + b"url(/viewer/" * 5 + b" after"
    assert installed(folder) == written
    sizes = sum((folder / name).stat().st_size for name in kept | squeezed)
    assert written == Installed(EDITION, len(kept), sizes, written.sent_bytes)
    assert list(folder.parent.iterdir()) == [folder]


def test_again_takes_the_place_of_what_was_there(archive: Path, folder: Path) -> None:
    install(archive, folder)
    (folder / "old.js").touch()
    install(archive, folder)
    assert "old.js" not in names(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_what_killed_installations_left_is_taken_away(archive: Path, folder: Path) -> None:
    for left in ("viewer.new", "viewer.old"):
        (folder.parent / left).mkdir(parents=True)
        (folder.parent / left / "half.js").touch()
    install(archive, folder)
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    "contents",
    [
        {name: content for name, content in viewer_archive.CONTENTS.items() if SCRIPT not in name},
        {**viewer_archive.CONTENTS, f"package/dist/{SCRIPT}": b"another version"},
    ],
)
def test_an_archive_that_is_not_as_expected_changes_nothing(
    archive: Path, folder: Path, contents: dict[str, bytes]
) -> None:
    install(archive, folder)
    before = names(folder)
    with pytest.raises(UnexpectedBundle):
        install(viewer_archive.written(archive.with_name("other.tgz"), contents), folder)
    assert names(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("act", [installed, remove, lambda folder: install(Path("any.tgz"), folder)])
def test_a_folder_with_something_else_in_it_is_not_touched(folder: Path, act: object) -> None:
    folder.mkdir(parents=True)
    (folder / "pacs.db").write_text("images")
    with pytest.raises(NotAViewer, match="Give RELAY_VIEWER_PATH a folder of its own"):
        act(folder)  # type: ignore[operator]
    assert names(folder) == {"pacs.db"}


def test_removing_takes_all_of_it_and_says_whether_there_was_any(archive: Path, folder: Path) -> None:
    install(archive, folder)
    assert remove(folder) is True
    assert list(folder.parent.iterdir()) == []
    assert remove(folder) is False


# --- the archive ------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_the_published_one_is_refused(archive: Path) -> None:
    with pytest.raises(FetchFailed, match=r"ohif\.tgz is not the published archive of @ohif/app 3\.13\.2"):
        verify(archive)


def test_npm_is_asked_for_exactly_this_version_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = stand_in(tmp_path / "bin", 'echo "$@" > asked; touch ohif-app-3.13.2.tgz')
    work = tmp_path / "work"
    work.mkdir()
    assert fetch(work, say=print, path=path) == work / "ohif-app-3.13.2.tgz"
    asked = (work / "asked").read_text().split()
    assert asked[:3] == ["pack", "@ohif/app@3.13.2", "--ignore-scripts"]
    assert asked[-2:] == [f"--pack-destination={work}", f"--cache={work / 'cache'}"]


def test_what_npm_says_is_passed_on_with_a_way_out(tmp_path: Path) -> None:
    path = stand_in(tmp_path / "bin", "echo 'npm error network timed out' >&2; exit 1")
    with pytest.raises(FetchFailed) as failed:
        fetch(tmp_path, say=print, path=path)
    assert str(failed.value) == (
        "npm could not fetch the viewer:\nnpm error network timed out\nOn a site without internet, have it fetched "
        "elsewhere with 'npm pack @ohif/app@3.13.2' and install it with --from FILE."
    )


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    yield tmp_path / "data" / "viewer"


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["viewer", *arguments])
    assert result.exception is None or isinstance(result.exception, (SystemExit, FetchFailed))
    return result.exit_code, result.stdout


def test_status_says_whether_it_is_there(site: Path, archive: Path) -> None:
    assert command("status") == (1, "The viewer is not installed; 'gateway viewer install' adds it.\n")
    install(archive, site)
    code, said = command("status")
    assert (code, said.startswith(f"OHIF {EDITION} in {site}: ")) == (0, True)


def test_installing_what_is_there_fetches_nothing(site: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(archive, site)
    monkeypatch.setenv("PATH", "/nonexistent")
    code, said = command("install", "--json")
    assert (code, f'"edition": "{EDITION}"' in said) == (0, True)


def test_installing_a_file_that_is_not_the_archive_leaves_nothing(site: Path, archive: Path) -> None:
    assert command("install", "--from", str(archive))[0] == 1
    assert not site.exists()


def test_removing_says_what_happened(site: Path, archive: Path) -> None:
    install(archive, site)
    assert command("remove") == (0, "Removed.\n")
    assert command("remove") == (0, "There was no viewer.\n")
