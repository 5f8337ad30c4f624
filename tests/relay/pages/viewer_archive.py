"""A small stand-in for the published archive of the viewer: every name that is needed, and each text as often."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from relay.pages.viewer_bundle import CHANGES, LICENCE, SCRIPT

DECODER = "1180.bundle.762993518ea30ae3.js"
CONTENTS = {
    "package/dist/index.html": b"<html>",
    "package/dist/sw.js": b"importScripts('https://elsewhere.example/')",
    "package/dist/ort/ort.min.js": b"large",
    "package/dist/0ddf166f7a343eda.wasm": b"\0asm" * 200,
    "package/dist/a34f9d1faa5f3315.woff2": b"font",
    f"package/dist/{DECODER}": b"decoder" * 200,
    f"package/dist/{SCRIPT}.map": b"{}",
    f"package/{LICENCE}": b"MIT License",
    **{f"package/dist/{name}": b"before " + change.old * change.count + b" after" for name, change in CHANGES.items()},
}


def written(path: Path, contents: Mapping[str, bytes] = CONTENTS) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
