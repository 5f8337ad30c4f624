"""What the documents say of the tree is so: the paths and functions they name, and the map's length.

Not for: what a module may import (`test_architecture`).
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = ROOT / "ARCHITECTURE.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DOCUMENTS = [MAP, ROOT / "README.md", *DECISIONS]

MOST_WORDS = 2000
"""Of the map, as `wc -w` counts: a quarter of an hour for somebody who has never seen the project."""

WAYS = 6
FEWEST_STEPS = 5

_STEP = re.compile(r"- `(\w[\w/]*\.py):([\w.]+)` \S.*")
_FUNCTION = re.compile(r"(\w[\w/]*\.py):([\w.]+)")
_PATH = re.compile(r"(?:\./)?(\w[\w./-]*)")
_FILE = re.compile(r".*\.(?:py|md|sql|toml|lock|js|css|html|yml)")
_LINK = re.compile(r"\]\(([^)#:]+)\)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return "".join(document.read_text().split("```")[::2])


def quoted(text: str) -> Iterator[str]:
    """The first word of everything that stands in backticks."""
    for found in re.findall(r"`([^`]+)`", text):
        yield from found.split()[:1]


def functions(text: str) -> list[tuple[str, str]]:
    return [match.groups() for word in quoted(text) if (match := _FUNCTION.fullmatch(word))]


def is_defined(path: str, function: str) -> bool:
    """Whether a module defines a function, `Class.method` included."""
    source = ROOT / path
    found: Iterable[ast.stmt] = ast.parse(source.read_text()).body if source.is_file() else []
    *classes, last = function.split(".")
    for outer in classes:
        found = [each for node in found if isinstance(node, ast.ClassDef) and node.name == outer for each in node.body]
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == last for node in found)


def paths(text: str) -> list[str]:
    """What stands in backticks and is a path of this repository: by its first folder, or by the kind of file.

    Paths of a site (`incoming/`), addresses (`/viewer/`) and what begins with a dot are not.
    """
    tops = {each.name for each in ROOT.iterdir() if each.is_dir()}
    found = [match[1] for word in quoted(text) if (match := _PATH.fullmatch(word.partition(":")[0]))]
    return [path for path in found if path.partition("/")[0] in tops or _FILE.fullmatch(path)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    assert [path for path in paths(prose(document)) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_file_that_a_document_links_to_is_there(document: Path) -> None:
    links = _LINK.findall(prose(document))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_function_that_the_map_names_is_defined() -> None:
    named = functions(prose(MAP))
    assert named
    assert [f"{path}:{function}" for path, function in named if not is_defined(path, function)] == []


def test_each_of_the_six_ways_is_a_list_of_functions_and_nothing_else() -> None:
    ways = prose(MAP).partition("\n## Six ways\n")[2].partition("\n## ")[0].split("\n### ")[1:]
    steps = {way.splitlines()[0]: [line for line in way.splitlines()[1:] if line] for way in ways}
    assert len(steps) == WAYS
    assert [line for way in steps.values() for line in way if not _STEP.fullmatch(line)] == []
    assert [title for title, way in steps.items() if len(way) < FEWEST_STEPS] == []


def test_the_map_links_every_file_of_decisions() -> None:
    links = set(_LINK.findall(prose(MAP)))
    assert DECISIONS
    assert [name(path) for path in DECISIONS if name(path) not in links] == []


@pytest.mark.parametrize("document", DECISIONS, ids=name)
def test_every_decision_has_a_heading_and_a_date(document: Path) -> None:
    decisions = prose(document).split("\n## ")[1:]
    assert decisions
    undated = [each for each in decisions if not re.match(r"[^\n]+\n\n\*\d{4}-\d\d-\d\d\.\* ", each)]
    assert [each.splitlines()[0] for each in undated] == []


def test_the_map_can_be_read_in_a_quarter_of_an_hour() -> None:
    assert len(MAP.read_text().split()) <= MOST_WORDS
