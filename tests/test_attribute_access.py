"""What others may touch of `Archive`, `Worklist` and `Outbox`: verbs and declared parts, nothing behind them.

An import rule does not see `archive.files.root`, so this reads attribute access. The names that are allowed come from
the classes: a public method is a verb, a public annotation of the class is a part, and a part is guarded like the class
that has it. A method that takes or gives a connection is for the rows of its own house, so it is no verb for others.

Types are inferred from annotations, constructors and assignments; what has none is guarded by its name (`NAMES`).
"""

import ast
import inspect
import operator
import sqlite3
import typing
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, reduce
from importlib import import_module
from textwrap import dedent
from types import FunctionType, ModuleType, UnionType
from typing import Self

import pytest

from gateway.outbox import Entry, Outbox
from pacs import Archive
from tests.test_architecture import modules, tree, within
from worklist import Worklist

OTHERS = ("relay", "operations", "simulator")
"""The houses that use what worklist and pacs keep."""

KEEPERS = ("worklist", "pacs", "gateway.outbox")
"""Where the classes are that keep something; values (dataclasses, tuples, enums) may be read by everybody."""

NAMES = {"archive": Archive, "worklist": Worklist, "outbox": Outbox}

OF_LIBRARIES = {
    "_drain_helper": "aiohttp has no public way to wait for a slow reader of a WebSocket",
    "_exit": "`os._exit` is public",
}
"""Private names that are no names of ours, each with the reason why it is used."""

NAMED_TUPLE = ("_asdict", "_replace", "_fields", "_make")


# ---- what a class lets others do -------------------------------------------------------------------------------------


def is_guarded(kind: object) -> bool:
    return (
        isinstance(kind, type)
        and within(kind.__module__, KEEPERS)
        and not is_dataclass(kind)
        and not issubclass(kind, tuple | Enum | Exception)
    )


@cache
def parts(kind: type) -> dict[str, object]:
    """The public annotations of a class, its bases' among them."""
    return {name: hint for name, hint in hints(kind).items() if not name.startswith("_")}


@cache
def verbs(kind: type) -> frozenset[str]:
    """The public methods and properties of a class that have nothing to do with a connection."""
    found = {name: getattr(value, "fget", value) for name, value in inspect.getmembers(kind) if name[0] != "_"}
    return frozenset(
        name for name, value in found.items() if not (callable(value) and sqlite3.Connection in mentioned(value))
    )


def mentioned(function: object) -> set[object]:
    """Every type in the annotations of a function."""
    waiting, found = list(hints(function).values()), set[object]()
    while waiting:
        hint = waiting.pop()
        waiting += typing.get_args(hint)
        with suppress(TypeError):  # the arguments of a Callable are a list
            found.add(hint)
    return found


def hints(of: object) -> dict[str, object]:
    try:
        return typing.get_type_hints(of)
    except (NameError, TypeError, AttributeError):  # names a type that only a type checker has
        return {}


# ---- what an expression is -------------------------------------------------------------------------------------------


class Reading:
    """One module, read scope by scope: which accesses it has that its types do not allow."""

    def __init__(self, module: str, source: ast.Module, names: dict[str, object]) -> None:
        self.module = module
        self.tree = source
        self.names = names
        self.own_fields: dict[str, object] = {}
        """What `self.x` is in the class that is being read."""

    @classmethod
    def of(cls, module: str) -> Self:
        return cls(module, tree(module), vars(import_module(module)))

    def violations(self) -> Iterator[str]:
        yield from self.read(self.tree, {})

    def read(self, scope: ast.AST, known: dict[str, object]) -> Iterator[str]:
        """Read a module, a class or a function; what is nested knows the names around it."""
        if isinstance(scope, ast.ClassDef):
            self.own_fields = self.fields(scope)
        known = dict(known)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            known |= self.arguments(scope.args)
        inner = list(within_scope(scope))
        for node in inner:
            known |= self.bound(node, known)
        for node in inner:
            if isinstance(node, SCOPES):
                yield from self.read(node, known)
            elif isinstance(node, ast.Attribute):
                yield from self.judged(node, known)

    def judged(self, node: ast.Attribute, known: dict[str, object]) -> Iterator[str]:
        for kind in alternatives(self.kind(node.value, known)):
            if is_guarded(kind) and node.attr not in verbs(kind) | parts(kind).keys():
                yield f"{self.module}:{node.lineno} {ast.unparse(node)}"

    def fields(self, of: ast.ClassDef) -> dict[str, object]:
        """What the attributes of a class are: by annotation, or by what a method assigns."""
        found = {
            node.target.id: self.annotation(node.annotation)
            for node in of.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        for method in (node for node in of.body if isinstance(node, ast.FunctionDef)):
            known = self.arguments(method.args)
            for node in ast.walk(method):
                for target, value in assignments(node):
                    if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                        found.setdefault(target.attr, self.kind(value, known))
        return found

    def arguments(self, of: ast.arguments) -> dict[str, object]:
        """What the arguments of a function are; one without an annotation hides a name of the same kind around it."""
        return {each.arg: self.annotation(each.annotation) for each in (*of.posonlyargs, *of.args, *of.kwonlyargs)}

    def bound(self, node: ast.AST, known: dict[str, object]) -> dict[str, object]:
        """The names that a statement gives a type to."""
        found = {
            target.id: self.kind(value, known) for target, value in assignments(node) if isinstance(target, ast.Name)
        }
        if isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
            each = node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else ()
            found[node.target.id] = union(self.kind(one, known) for one in each)
        for item in node.items if isinstance(node, ast.With | ast.AsyncWith) else ():
            if isinstance(item.optional_vars, ast.Name):
                found[item.optional_vars.id] = entered(self.kind(item.context_expr, known))
        return found

    def annotation(self, node: ast.expr | None) -> object:
        if node is None:
            return None
        try:
            return eval(ast.unparse(node), self.names)  # the annotations of our own modules
        except (NameError, TypeError):
            return None

    def kind(self, node: ast.expr, known: dict[str, object]) -> object:
        """The type of an expression; None when nothing says it."""
        match node:
            case ast.Name(id=name) if name in known:
                return known[name] or NAMES.get(name.strip("_"))
            case ast.Name(id=name):
                return None if name in self.names else NAMES.get(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=attr):
                return self.own_fields.get(attr) or NAMES.get(attr.strip("_"))
            case ast.Attribute(value=value, attr=attr):
                return self.attribute(self.kind(value, known), attr)
            case ast.Call(func=called, args=given):
                return self.result(called, given, known)
        return None

    def attribute(self, of: object, attr: str) -> object:
        if of is None:
            return NAMES.get(attr.strip("_"))
        return union(hints(kind).get(attr) for kind in alternatives(of))

    def result(self, called: ast.expr, given: list[ast.expr], known: dict[str, object]) -> object:
        """What a call gives: an instance, what a function says it gives, or what is handed through."""
        match called:
            case ast.Name(id="closing") | ast.Attribute(attr="enter_context") if given:
                return self.kind(given[0], known)
            case ast.Name(id=name):
                named = self.names.get(name)
                return hints(named).get("return") if isinstance(named, FunctionType) else named
            case ast.Attribute(value=ast.Name(id=name), attr="open" | "attach") if isinstance(
                self.names.get(name), type
            ):
                return self.names[name]
            case ast.Attribute(value=value, attr=attr):
                owner = self.kind(value, known)
                return hints(getattr(owner, attr, None)).get("return") if isinstance(owner, type) else None
        return None


SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def within_scope(scope: ast.AST) -> Iterator[ast.AST]:
    """Every node of a scope in the order of the text, nested scopes as one node each."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, SCOPES):
            yield from within_scope(node)


def assignments(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each target of an assignment with its value; `a, b = c, d` has two."""
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            yield from zip(targets, values, strict=False)
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield target, value
        case ast.NamedExpr(target=target, value=value):
            yield target, value


def alternatives(kind: object) -> tuple[object, ...]:
    """The types of a union; one that may be None is that type."""
    found = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return tuple(each for each in found if each not in (None, type(None)))


def union(kinds: Iterable[object]) -> object:
    """The type of what is one of several; None when none of them is known."""
    known = [kind for kind in kinds if isinstance(kind, type | UnionType)]
    return reduce(operator.or_, known) if known else None


def entered(kind: object) -> object:
    """What a `with` block gets of a context manager: what its function yields, or the object itself."""
    return next(iter(typing.get_args(kind)), None) if typing.get_origin(kind) else kind


# ---- the rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [each for each in modules() if within(each, OTHERS)])
def test_nobody_reaches_through_what_keeps_something(module: str) -> None:
    assert list(Reading.of(module).violations()) == []


ALLOWED = """
class Part:
    def __init__(self, archive: Archive, worklist: Worklist) -> None:
        self._archive = archive
        self._held = archive.outbox.held

    def look(self, entry: Entry) -> None:
        self._archive.outbox.overview.lines(now=NOW)
        self._archive.quarantine.undecided()
        self._held.hold(1, reason=entry.reason, now=NOW)
        with closing(Worklist.attach(PATH)) as found:
            found.items()
        print([each.data_version() for each in (self._archive, worklist)], archive.watermarks.stop_percent)
"""


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (ALLOWED, []),
        ("def f(any: Archive):\n    any.files.root", ["m:2 any.files"]),
        ("def f(any: Archive | None):\n    any.outbox.held.database", ["m:2 any.outbox.held.database"]),
        ("def f(archive):\n    archive.quarantine.database.read()", ["m:2 archive.quarantine.database"]),
        ("class C:\n    def f(self):\n        self._worklist.touched", ["m:3 self._worklist.touched"]),
        ("class C:\n    a: Archive\n    def f(self):\n        self.a._files", ["m:4 self.a._files"]),
        ("def f(a: Archive, b: Worklist):\n    return [x.database for x in (a, b)]", ["m:2 x.database"] * 2),
        ("def f(a: Archive):\n    held = a.outbox.held\n    held.database", ["m:3 held.database"]),
        ("with closing(Archive.attach(1, 2)) as a:\n    a.index", ["m:2 a.index"]),
        ("def f(a: Archive):\n    with a.write() as conn:\n        pass", ["m:2 a.write"]),
        ("def f(outbox):\n    outbox.put(conn, new, now=NOW)", ["m:2 outbox.put"]),
    ],
)
def test_the_reading_sees_it(source: str, found: list[str]) -> None:
    names: dict[str, object] = {"Archive": Archive, "Worklist": Worklist, "Entry": Entry}
    assert list(Reading("m", ast.parse(source), names).violations()) == found


@pytest.mark.parametrize("module", modules())
def test_a_private_name_is_used_only_where_it_is_defined(module: str) -> None:
    source = tree(module)
    own = set(private_names(source))
    found = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
        if node.attr not in own | OF_LIBRARIES.keys() and node.attr not in NAMED_TUPLE
        if ast.unparse(node.value) not in ("self", "cls", "super()")
    ]
    assert found == []


def test_each_private_name_of_a_library_is_still_used() -> None:
    used = {node.attr for module in modules() for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert OF_LIBRARIES.keys() - used == set()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(source: ast.Module) -> Iterator[str]:
    """The private methods and fields that a module defines."""
    for node in ast.walk(source):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


@pytest.mark.parametrize("kind", NAMES.values())
def test_a_declared_part_is_exported_by_its_house(kind: type) -> None:
    hidden = [
        f"{kind.__name__}.{name}"
        for name, part in parts(kind).items()
        if isinstance(part, type) and is_guarded(part) and not is_exported(part)
    ]
    assert hidden == []


def is_exported(kind: type) -> bool:
    house: ModuleType = import_module(kind.__module__.partition(".")[0])
    return house.__name__ == "gateway" or kind.__name__ in house.__all__


def test_what_is_private_of_them_is_said_so_and_what_is_public_is_declared() -> None:
    """Each field that `__init__` assigns is private or annotated in the class, so that this file can see it."""
    undeclared = [
        f"{kind.__name__}.{name}"
        for kind in NAMES.values()
        for each in kind.__mro__[:-1]
        for name in assigned(each)
        if not name.startswith("_") and name not in parts(kind)
    ]
    assert undeclared == []


def assigned(kind: type) -> Iterator[str]:
    for node in ast.walk(ast.parse(dedent(inspect.getsource(kind)))):
        for target, _ in assignments(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                yield target.attr
