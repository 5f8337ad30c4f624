"""The rules of the house that a reader may rely on: who imports whom, and where a subject lives, once."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings, variables

ROOT = Path(__file__).parents[1]
ROOMS = ("gateway", "worklist", "pacs", "relay", "simulator", "operations")
ROOF = ("gateway.__main__", "gateway.hops", "operations", "simulator")
STATEMENTS = ("gateway.sqlite", "gateway.outbox", "gateway.refusals",
              "worklist.item_rows", "worklist.step_rows", "worklist.expiry_rows",
              "pacs.archive.index", "pacs.archive.quality_rows", "pacs.archive.removal_rows",
              "pacs.archive.maintenance_rows", "pacs.commitment.rows", "pacs.forward.queue_rows",
              "pacs.archive.listing")  # fmt: skip
"""Where statements of SQL are."""
SQL = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|WITH|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT)\b\s+\S"
)
PERSONAL = re.compile(r"patient|birth|nhs_number|participant_id|person|identifier$")
LOG_METHODS = ("debug", "info", "warning", "error", "exception", "critical")
LONGEST_FUNCTION = 50


def modules() -> list[str]:
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
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


def may_import(module: str, name: str) -> bool:
    room, wanted = module.split(".", maxsplit=1)[0], name.split(".", maxsplit=1)[0]
    if wanted not in ROOMS or within(module, ROOF):
        return True
    if within(name, ROOF):
        return False
    if wanted in (room, "gateway"):
        return True
    return room == "relay" and wanted != "relay" and exported(name)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_whom_it_may(module: str) -> None:
    assert [name for name in imports(module) if not may_import(module, name)] == []


@pytest.mark.parametrize("module", modules())
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree(module))


HOMES = {
    "sqlite3": (*STATEMENTS,
                "worklist.store", "pacs.archive.archive"),  # pass their transaction on and name the type; no statements
    "pydantic": ("gateway.messages", "gateway.settings", "worklist.settings", "pacs.settings",
                 "relay.setting_types", "relay.settings",
                 "relay.protocol",  # translates pydantic's errors for the cloud
                 "simulator.modality.script"),
    "asyncio": ("relay", "gateway.process", "operations.checks", "simulator"),
    "aiohttp": ("relay", "operations.checks.site_check", "simulator"),
    "websockets": ("relay.hybrid.rendezvous", "relay.hybrid.errors"),
    "azure": ("relay.delivery.servicebus", "relay.settings", "relay.hybrid.tokens", "relay.hybrid.entra"),
    "prometheus_client": ("relay.health.metrics",),
    "typer": ("operations.cli",),
}  # fmt: skip


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_used_only_where_its_subject_lives(library: str) -> None:
    users = [module for module in modules() if any(within(name, (library,)) for name in imports(module))]
    assert [module for module in users if not within(module, HOMES[library])] == []


def test_sql_is_written_only_in_the_stores() -> None:
    found = [
        f"{module}:{node.lineno}"
        for module in modules()
        if not within(module, STATEMENTS)
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


def test_the_drawing_of_the_house_names_every_module() -> None:
    drawing = set(re.findall(r"\w+", (ROOT / "ARCHITECTURE.md").read_text().split("```")[1]))
    drawn = {*drawing, "__main__", "__init__"}
    found = {path.stem for room in ROOMS for path in (ROOT / room).glob("*.py")}
    assert sorted(found - drawn) == []
