"""The commands about the viewer: install, status, remove.

Not for: fetching, making and serving it (`operations.viewer.fetch`, `operations.viewer.install`,
`relay.pages.viewer`).
"""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway import process
from gateway.settings import load
from operations.cli.terminal import AsJson, console, print_json
from operations.viewer.fetch import fetch, verify
from operations.viewer.install import Installed, install, installed, remove
from relay.pages.viewer_bundle import EDITION, ROOT
from relay.settings import RelaySettings

viewer_app = typer.Typer(help="The image viewer: install, status, remove.", no_args_is_help=True, rich_markup_mode=None)


@viewer_app.command("install")
def viewer_install(
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", exists=True, dir_okay=False, help="The archive, fetched.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add the viewer OHIF to the gateway's pages, or do nothing if it is there. The gateway may run meanwhile.

    It is fetched with npm (50 MB), or, where there is no npm, with one that pip brings for the moment (60 MB more). On
    a site without internet give it the file that 'npm pack @ohif/app@3.13.2' has written elsewhere. It takes 60 MB.

    Example: gateway viewer install --from /media/usb/ohif-app-3.13.2.tgz
    """
    folder = load(RelaySettings).viewer_path
    there = installed(folder)
    if there is None or there.edition != EDITION:
        there = _installed_from(source, folder)
    _print(folder, there, as_json=as_json)


@viewer_app.command("status")
def viewer_status(as_json: AsJson = False) -> None:
    """Say whether the viewer is installed, and what it takes. Exit code 1 when it is not, or not in the right version.

    Example: gateway viewer status
    """
    folder = load(RelaySettings).viewer_path
    there = installed(folder)
    _print(folder, there, as_json=as_json)
    raise SystemExit(process.EXIT_OK if there and there.edition == EDITION else process.EXIT_FAILED)


@viewer_app.command("remove")
def viewer_remove() -> None:
    """Take the viewer away again. Images and pages stay as they are.

    Example: gateway viewer remove
    """
    console.print("Removed." if remove(load(RelaySettings).viewer_path) else "There was no viewer.")


def _installed_from(source: Path | None, folder: Path) -> Installed:
    with tempfile.TemporaryDirectory(prefix="gateway-viewer-") as work:
        archive = source or fetch(Path(work), say=_say)
        verify(archive)
        _say("Unpacking, adapting, compressing.")
        return install(archive, folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(folder: Path, there: Installed | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), "expected": EDITION, "installed": asdict(there) if there else None})
    elif there is None:
        console.print("The viewer is not installed; 'gateway viewer install' adds it.")
    elif there.edition != EDITION:
        console.print(f"OHIF {there.edition} is installed; this gateway needs {EDITION}: 'gateway viewer install'.")
    else:
        sizes = (
            f"{there.files} files, {there.stored_bytes / 1e6:.0f} MB on disk, {there.sent_bytes / 1e6:.0f} MB to send"
        )
        console.print(f"OHIF {there.edition} in {folder}: {sizes}, at {ROOT}", highlight=False, soft_wrap=True)
