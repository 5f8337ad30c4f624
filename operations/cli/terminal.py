"""Output of commands: facts as JSON, lines for people, and progress on standard error.

Not for: the content.
"""

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway import process
from gateway.hops import Hop, Hops

PROGRESS_SECONDS = 2.0

console = Console()


def caller() -> str:
    """The user who gave the command, as far as this machine knows."""
    # Behind sudo the account is root's or the services', not the operator's.
    return os.environ.get("SUDO_USER") or getpass.getuser()


AsJson = Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")]


def print_json(facts: object) -> None:
    """Print facts as one JSON document."""
    print(json.dumps(facts, indent=2))


def print_table(facts: Sequence[dict[str, object]], *, none: str = "None") -> None:
    """Print facts of one kind for people, a row each under their names; `none` is shown for a value that is None."""
    table = Table(*facts[0]) if facts else Table()
    for fact in facts:
        table.add_row(*(none if value is None else escape(str(value)) for value in fact.values()))
    console.print(table if facts else "Nothing.")


def print_hop(hop: Hop) -> None:
    """Print a hop for people as it ends."""
    console.print(hop.line, highlight=False, markup=False, soft_wrap=True, style="red" if hop.state == "failed" else "")


@contextmanager
def printed_hops(*, as_json: bool) -> Iterator[Hops]:
    """Hops that are printed as each ends, or as JSON at the end; then the command ends with 1 if one failed, else 0."""
    hops = Hops() if as_json else Hops(ended=print_hop)
    yield hops
    if as_json:
        print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)


def print_each(facts: Iterable[dict[str, object]], *, as_json: bool, line: Callable[[dict[str, object]], str]) -> int:
    """Print facts as they are found, as one JSON array or a line each; say how many there were."""
    count = 0
    for count, fact in enumerate(facts, start=1):
        if as_json:
            # One at a time, because an archive may have more facts than memory.
            print("[" if count == 1 else ",", json.dumps(fact))
        else:
            console.print(line(fact), highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print("]" if count else "[]")
    return count


class Progress:
    """Prints every few seconds on standard error how far long work has come; short work prints nothing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0
        self._bytes = 0
        self._said = time.monotonic()

    def seen(self) -> None:
        """One more."""
        self.step("", 0)

    def step(self, _how: str, size: int) -> None:
        """One more, of so many bytes."""
        self._count += 1
        self._bytes += size
        if time.monotonic() - self._said >= PROGRESS_SECONDS:
            self._said = time.monotonic()
            amount = f", {self._bytes / 1e6:,.0f} MB" if self._bytes else ""
            print(f"{self._count:,} {self._what}{amount}", file=sys.stderr, flush=True)
