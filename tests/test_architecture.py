"""The rules of the house that a reader may rely on: who imports whom, and where a subject lives, once.

`HOUSE` is the import rule as ARCHITECTURE draws it. A storey of a house may import the storeys above its line in the
table, never one beside or below it; what a house may import of others is said with it.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from gateway.messages import ACTIONS, EVENTS
from gateway.settings import GatewaySettings, variables

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class House:
    """`storeys` from the ground up; the folders of one storey do not know each other. `others` are the houses it may
    import; what ends with a star only by the names that their package exports.

    A storey without a name is the modules of the house's own folder that no other storey names.
    """

    storeys: tuple[tuple[str, ...], ...]
    others: tuple[str, ...] = ()


HOUSE = {
    "gateway": House(
        (("",), ("messages", "dataset", "refusals"), ("outbox", "query", "dicom"), ("audit",), ("__main__",))
    ),
    "worklist": House((("",),), ("gateway",)),
    "pacs": House(
        (
            ("archive",),
            ("images", "maintenance", "commitment"),
            ("audit",),
            ("query_retrieve",),
            ("forward",),
            ("",),
        ),
        ("gateway",),
    ),
    "relay": House(
        (
            ("",),
            ("hybrid", "access", "exams"),
            ("delivery", "dicomweb", "health"),
            ("cloud", "api", "pages"),
            ("setting_types",),
            ("settings",),
            ("web",),
            ("assembly",),
            ("__main__",),
        ),
        ("gateway", "worklist*", "pacs*"),
    ),
    "simulator": House((("exam", "azure"), ("modality", "cloud"), ("",)), ("gateway", "relay")),
    "operations": House(
        (("",), ("backup", "diagnostics", "viewer"), ("checks",), ("cli",)),
        ("gateway", "worklist", "pacs", "relay", "simulator"),
    ),
}
HOUSES = tuple(HOUSE)

NOT_KNOWN = {
    ("gateway", "query"): ("gateway.messages", "gateway.refusals"),
    ("gateway", "dicom"): ("gateway.messages",),
    ("gateway", "outbox"): ("gateway.dataset", "gateway.refusals"),
    ("gateway", "audit"): (
        "gateway.messages",
        "gateway.dataset",
        "gateway.outbox",
        "gateway.query",
        "gateway.refusals",
    ),
}
"""What a folder leaves alone although it is further down."""

ARROW_UP = ("gateway.__main__", "operations.cli")
"""The only one: `python -m gateway` is the command line."""

SETTINGS_KNOWN_TO = ("relay.settings", "relay.assembly", "relay.__main__", "operations")
"""No part of the relay knows where its values come from."""

SQL = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|WITH|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT)\b\s+\S"
)
PERSONAL = re.compile(r"patient|birth|nhs_number|participant_id|person|identifier$")
LOG_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
LONGEST_FUNCTION = 50
MOST_MODULES = 16


def modules() -> list[str]:
    paths = sorted(path for house in HOUSES for path in (ROOT / house).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text(), filename=str(source))


def imports(module: str) -> Iterator[str]:
    """Every module that a module names in an import, `from a import b` as `a.b`."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def exported(name: str) -> bool:
    """Whether `a.b` is something that package `a` exports by name, and not a module inside of it."""
    package, _, what = name.partition(".")
    return what in getattr(import_module(package), "__all__", ())


def storey(module: str) -> int:
    """How high in its house a module stands; the ground is 0."""
    house, _, inside = module.partition(".")
    storeys = HOUSE[house].storeys
    for height, names in enumerate(storeys):
        if inside and within(inside, tuple(name for name in names if name)):
            return height
    return next(height for height, names in enumerate(storeys) if "" in names)


def room(module: str) -> str:
    """The folder a module stands in, or the module where it is a storey by itself."""
    house, _, inside = module.partition(".")
    first = inside.partition(".")[0]
    return first if any(first in names for names in HOUSE[house].storeys) else ""


def may_import(module: str, name: str) -> bool:
    house, wanted = module.partition(".")[0], name.partition(".")[0]
    if wanted not in HOUSE or (module, name.rpartition(".")[0]) == ARROW_UP or (wanted, house) == (house, name):
        return True
    if wanted != house:
        others = HOUSE[house].others
        return wanted in others or (f"{wanted}*" in others and exported(name))
    if within(name, NOT_KNOWN.get((house, room(module)), ())):
        return False
    return room(module) == room(name) or storey(name) < storey(module)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_whom_it_may(module: str) -> None:
    assert [name for name in imports(module) if not may_import(module, name)] == []


def test_nobody_but_the_assembly_knows_the_settings_of_the_relay() -> None:
    known = {module for module in modules() if any(within(name, ("relay.settings",)) for name in imports(module))}
    assert [module for module in sorted(known) if not within(module, SETTINGS_KNOWN_TO)] == []


def folder(name: str) -> str:
    """The folder of a module or of a name in one."""
    while name and not (ROOT.joinpath(*name.split(".")).with_suffix(".py")).exists():
        if ROOT.joinpath(*name.split(".")).is_dir():
            return name
        name = name.rpartition(".")[0]
    return name.rpartition(".")[0]


def test_no_circle_of_folders() -> None:
    """Below the houses' own folders, whose modules are ground and roof at once and have storeys of their own."""
    arrows: dict[str, set[str]] = {}
    for module in modules():
        here = folder(module)
        for name in imports(module):
            there = folder(name)
            if "." in here and "." in there and here != there:
                arrows.setdefault(here, set()).add(there)

    def on_the_way(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for after in arrows.get(ahead.pop(), set()) - seen:
                seen.add(after)
                ahead.append(after)
        return seen

    assert [start for start in sorted(arrows) if start in on_the_way(start)] == []


def test_no_folder_is_crowded() -> None:
    sizes = {
        path: len([*path.glob("[!_]*.py")]) for house in HOUSES for path in [ROOT / house, *(ROOT / house).rglob("*/")]
    }
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > MOST_MODULES} == {}


@pytest.mark.parametrize("settings", ["gateway.settings", "worklist.settings", "pacs.settings", "relay.settings"])
def test_reading_settings_loads_no_dicom_network(settings: str) -> None:
    code = f"import sys, {settings}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert [name for name in loaded if within(name, ("gateway.dicom", "pynetdicom", "pacs.archive"))] == []


@pytest.mark.parametrize("module", modules())
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree(module))


STATEMENTS = ("gateway.sqlite", "gateway.outbox", "gateway.refusals", "pacs.archive.index", "pacs.archive.listing")
"""Where statements of SQL are, besides every module whose name ends with `rows`."""


def has_statements(module: str) -> bool:
    return within(module, STATEMENTS) or module.endswith(("_rows", ".rows"))


HOMES = {
    "sqlite3": (*STATEMENTS,
                "worklist.store", "pacs.archive.archive"),  # pass their transaction on and name the type; no statements
    "pydantic": ("gateway.messages", "gateway.settings", "worklist.settings", "pacs.settings", "relay.setting_types",
                 "relay.settings", "relay.protocol",  # translates pydantic's errors for the cloud
                 "simulator.modality.script"),
    "asyncio": ("relay", "gateway.process", "operations.checks", "simulator"),
    "aiohttp": ("relay", "operations.checks", "simulator"),
    "websockets": ("relay.hybrid",),
    "azure": ("relay.delivery.servicebus", "relay.settings", "relay.hybrid"),
    "prometheus_client": ("relay.health",),
    "typer": ("operations.cli",),
}  # fmt: skip


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_used_only_where_its_subject_lives(library: str) -> None:
    users = [module for module in modules() if any(within(name, (library,)) for name in imports(module))]
    strangers = [module for module in users if not within(module, HOMES[library])]
    assert [module for module in strangers if library != "sqlite3" or not has_statements(module)] == []


def test_sql_is_written_only_in_the_stores() -> None:
    found = [
        f"{module}:{node.lineno}"
        for module in modules()
        if not has_statements(module)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]
    assert found == []


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logging method of a module's `log`."""
    for module in modules():
        for node in ast.walk(tree(module)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=attr)) if attr in LOG_METHODS:
                    yield f"{module}:{node.lineno}", node


def test_no_log_line_has_a_key_that_names_a_person() -> None:
    keys = [(where, keyword.arg) for where, call in log_calls() for keyword in call.keywords]
    assert [(where, key) for where, key in keys if key is None or PERSONAL.search(key)] == []


def test_log_events_are_constant() -> None:
    assert [where for where, call in log_calls() if not (call.args and isinstance(call.args[0], ast.Constant))] == []


def test_no_function_is_longer_than_a_page() -> None:
    found = [
        f"{module}:{node.lineno} {node.name}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno > LONGEST_FUNCTION
    ]
    assert found == []


def settings_classes() -> list[type[GatewaySettings]]:
    found = [GatewaySettings]
    for room in ("worklist", "pacs", "relay"):
        for value in vars(import_module(f"{room}.settings")).values():
            if isinstance(value, type) and issubclass(value, GatewaySettings) and value not in found:
                found.append(value)
    return found


def test_the_example_of_the_environment_lists_exactly_the_settings() -> None:
    listed = re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    known = {name for cls in settings_classes() for name in variables(cls)}
    assert sorted(listed) == sorted(known)


def test_systemd_hands_over_every_secret() -> None:
    secrets = {
        name
        for cls in settings_classes()
        for name, field in variables(cls).items()
        if "Secret" in repr(field.annotation)
    }
    units = "".join(path.read_text() for path in (ROOT / "systemd").glob("*.service"))
    assert set(re.findall(r"^LoadCredential=(\w+):", units, flags=re.MULTILINE)) == secrets


def test_every_setting_says_what_it_is() -> None:
    silent = [name for cls in settings_classes() for name, field in variables(cls).items() if not field.description]
    assert silent == []


def test_the_drawing_of_the_house_names_every_folder() -> None:
    drawing = set(re.findall(r"\w+", (ROOT / "ARCHITECTURE.md").read_text().split("```")[1]))
    folders = {path.parent.name for house in HOUSES for path in (ROOT / house).rglob("__init__.py")}
    assert sorted(folders - drawing) == []


GONE = {
    "duty",
    "duties",
    "manners",
    "promise",
    "promises",
    "chores",
    "upkeep",
    "touched",
    "standing",
    "door",
    "entrance",
}
"""Words of this house that DICOM, HTTP and queueing have better ones for."""

ONE_TYPE_EACH = ("State", "Outcome", "Note", "Standing", "Owed", "Origin", "Event", "Hop")
"""Names that one type may have; before, each had up to six."""


def types_of(module: str) -> Iterator[str]:
    """The classes and type aliases that a module defines."""
    for node in tree(module).body:
        match node:
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name


def words(name: str) -> set[str]:
    """The words of a name, whether they are set apart by underscores, dots or capitals."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}


def test_no_module_class_or_function_has_a_word_that_is_gone() -> None:
    found = [
        f"{module}:{node.lineno} {node.name}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and words(node.name) & GONE
    ]
    assert found + [module for module in modules() if words(module) & GONE] == []


@pytest.mark.parametrize("name", ONE_TYPE_EACH)
def test_one_name_is_one_type(name: str) -> None:
    assert len([module for module in modules() if name in types_of(module)]) <= 1


MESSAGE_TYPES = {*ACTIONS, *EVENTS}
"""Message types, which look like modules."""

REFERENCE = re.compile(rf"`((?:{'|'.join(HOUSES)})(?:\.\w+)+)`")


def is_there(reference: str) -> bool:
    """Whether a dotted name leads to a module, or to a name that its source or the stub beside it has."""
    module, _, name = reference.rpartition(".")
    path = ROOT.joinpath(*reference.split("."))
    if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
        return True
    place = ROOT.joinpath(*module.split("."))
    sources = (place.with_suffix(".py"), place / "__init__.py", place / "__init__.pyi")
    if any(source.exists() for source in sources):
        return any(re.search(rf"\b{name}\b", source.read_text()) for source in sources if source.exists())
    return bool(module) and is_there(module)


@pytest.mark.parametrize("module", modules())
def test_what_a_text_names_of_the_house_is_there(module: str) -> None:
    path = ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    named = {name for name in REFERENCE.findall(source.read_text()) if name not in MESSAGE_TYPES}
    assert sorted(name for name in named if not is_there(name)) == []
