"""axe-core, the usual judge of accessibility, where npm is there to fetch it: once, pinned, kept in pytest's cache.

It is fetched as the viewer is, with `npm pack` and a SHA-512, because `npm install` would run code of the package.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.tools.browser import Page

NAME, VERSION = "axe-core", "4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def source(config: pytest.Config, folder: Path) -> str:
    """The program. Skips the test where npm is missing; fails where what npm brings is not the published archive."""
    if not shutil.which("npm"):
        pytest.skip("npm, which fetches axe-core, is not installed")
    assert config.cache
    kept = config.cache.mkdir("axe") / f"{NAME}-{VERSION}.tgz"
    if not kept.exists():
        command = ["npm", "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--no-update-notifier", "--logs-max=0"]
        subprocess.run([*command, f"--cache={folder / 'cache'}"], cwd=folder, check=True, capture_output=True)
        keep(folder / kept.name, kept)
    digest = base64.b64encode(hashlib.sha512(kept.read_bytes()).digest()).decode()
    assert f"sha512-{digest}" == INTEGRITY
    with tarfile.open(kept) as archive:
        program = archive.extractfile("package/axe.min.js")
        assert program
        return program.read().decode()


def keep(fetched: Path, kept: Path) -> None:
    """Put a file into the cache, whole at once: another worker of the tests may look for it."""
    os.replace(shutil.copy(fetched, kept.with_name(f"{kept.name}.{os.getpid()}")), kept)


def violations(page: Page, program: str) -> list[dict[str, Any]]:
    """What the page that is open breaks of WCAG 2.2 AA and of good practice; rule, and what breaks it."""
    page.evaluate(f"{program}; true")
    rules = json.dumps({"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]})
    found = "axe.run(document, RULES).then(({ violations }) => violations.map(SHORT))"
    short = "each => ({ id: each.id, at: each.nodes.map(node => node.html) })"
    violated: list[dict[str, Any]] = page.evaluate(found.replace("RULES", rules).replace("SHORT", short))
    return violated
