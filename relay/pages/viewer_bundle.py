"""OHIF as published: the version we take, the files we keep, and the changes to them.

Only the location is changed, because the published files expect the root of a host. The count of changes in each file
is fixed; another count means another version, and UnexpectedBundle. Our page replaces OHIF's, and its behaviour is set
by `relay/pages/viewer_page/app-config.js`.

Not here: download and installation (`operations.viewer.install`), serving (`relay.pages.viewer`).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.errors import GatewayError

ROOT = "/viewer/"
"""The path everything is served below. It is written into the files, so it is not a setting."""

NAME, VERSION = "@ohif/app", "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""SHA-512 of the published archive in base 64, as npm writes it (Subresource Integrity)."""

SCRIPT, STYLE, LICENCE = "app.bundle.0f6159c501addfe9.js", "app.bundle.css", "LICENSE"
_NEEDED = (SCRIPT, STYLE, LICENCE)

# Not kept: OHIF's page and service worker, and files for tablets and other specialties.
_KEPT = re.compile(
    r"""LICENSE
    | [\w-]+(\.bundle)?\.[0-9a-f]{16}\.js    # the application, its chunks and workers
    | [\w-]+(\.bundle)?\.css
    | [0-9a-f]{16}\.(wasm|woff2)             # decoders, and the font
    | assets/images/[\w-]+\.png              # pictures of buttons
    """,
    re.VERBOSE,
)
_SOURCE = re.compile(r"package/(?:dist/)?(.+)")


class UnexpectedBundle(GatewayError):
    """The archive is not the version of OHIF this gateway knows; the message says in what it differs."""


@dataclass(frozen=True)
class Change:
    """One text that is replaced, and how often it stands in the file."""

    old: bytes
    new: bytes
    count: int


_PUBLIC_PATH = Change(b'__webpack_require__.p = "/";', b'__webpack_require__.p = "' + ROOT.encode() + b'";', 1)

CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        STYLE: Change(b"url(/", b"url(" + ROOT.encode(), 5),
        SCRIPT: _PUBLIC_PATH,
        "136.bundle.b948da0438a0a660.js": _PUBLIC_PATH,
        "2299.bundle.2375af8b16a1702e.js": _PUBLIC_PATH,
        "8097.bundle.8ae6404ba94890a0.js": _PUBLIC_PATH,
        "compute.bundle.0fc3a3ee85296cf2.js": _PUBLIC_PATH,
        "histogram-worker.bundle.ec5f0cf05ce3909c.js": _PUBLIC_PATH,
        "interpolation.bundle.fa54018d8628f8c0.js": _PUBLIC_PATH,
        "polySeg.bundle.2c5892e4c5a6bdd5.js": _PUBLIC_PATH,
    }
)
"""Changes by file. No other kept file may contain one of these texts."""

EDITION = f"{VERSION}+{hashlib.sha256(repr((_KEPT.pattern, CHANGES)).encode()).hexdigest()[:8]}"
"""Version and recipe: an installation is out of date when either has changed."""


def kept(member: str) -> str | None:
    """Return the name under which a member of the archive is kept, such as `app.bundle.css`; None to leave it out."""
    source = _SOURCE.fullmatch(member)
    name = source.group(1) if source else ""
    return name if _KEPT.fullmatch(name) else None


def patched(name: str, content: bytes) -> bytes:
    """Return the content changed for its place below ROOT. Raises UnexpectedBundle when it is another file."""
    expected = CHANGES.get(name)
    for change in (_PUBLIC_PATH, CHANGES[STYLE]) if name.endswith((".js", ".css")) else ():
        count, known = content.count(change.old), expected.count if expected == change else 0
        if count != known:
            raise UnexpectedBundle(
                f"{name} says {change.old.decode()!r} {count} times instead of {known}: this is not {NAME} {VERSION} "
                "as this gateway knows it, and it was not installed."
            )
    return content.replace(expected.old, expected.new) if expected else content


def expect_whole(names: Iterable[str]) -> None:
    """Raise UnexpectedBundle when a file is missing that the viewer needs to start."""
    if missing := sorted({*_NEEDED, *CHANGES} - set(names)):
        raise UnexpectedBundle(f"The archive of {NAME} {VERSION} has no {', '.join(missing)}; it was not installed.")
