"""Hops: the observed steps of a message or an image from end to end, each with the time it took.

`gateway check`, the modality and the demonstration record their hops with this and show them alike. A hop worked
(`ok`), failed (`failed`, the detail says why), or had nothing to observe (`skipped`).

Not for: the choice of hops, nor for the services themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Literal

from rich.table import Table

from gateway.errors import GatewayError

HopState = Literal["ok", "failed", "skipped"]
COLOURS: dict[HopState, str] = {"ok": "green", "failed": "red", "skipped": "yellow"}


@dataclass(frozen=True)
class Hop:
    """One observation. `at` is when it began, UTC; `remedy` is the advice for a failed one."""

    name: str
    state: HopState
    detail: str
    at: str
    seconds: float
    remedy: str = ""

    @property
    def line(self) -> str:
        """The hop as one line for people."""
        text = f"{self.state:8}{self.name:32}{_duration(self.seconds):>9}  {self.detail}"
        return f"{text} {self.remedy}" if self.state == "failed" and self.remedy else text


@dataclass
class Note:
    """The detail that a hop being watched has when it is over."""

    detail: str = ""


class Observed(GatewayError):
    """An observation is not as it must be; the message says what was seen instead."""


class Nothing(GatewayError):
    """There is nothing to observe, for instance because it is not configured; the message says what."""


class HopFailed(Exception):
    """A watched hop failed; it is recorded already, `__cause__` is the error."""

    def __init__(self, hop: Hop) -> None:
        super().__init__(f"{hop.name}: {hop.detail}")
        self.hop = hop


@dataclass
class Hops:
    """The record. `began` and `ended` are called for each hop as it happens, for a display that moves."""

    began: Callable[[str], None] = lambda _name: None
    ended: Callable[[Hop], None] = lambda _hop: None
    seen: list[Hop] = field(default_factory=list)

    @contextmanager
    def watch(self, name: str, *, remedy: str = "") -> Iterator[Note]:
        """Record the block as one hop. Raises HopFailed when it fails; a `Nothing` ends it as skipped."""
        note, started, at = Note(), monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")

        def record(state: HopState, detail: str) -> Hop:
            hop = Hop(name, state, detail, at.replace("+00:00", "Z"), round(monotonic() - started, 3), remedy)
            self.seen.append(hop)
            self.ended(hop)
            return hop

        self.began(name)
        try:
            yield note
        except Nothing as nothing:
            record("skipped", str(nothing))
        except Exception as error:
            raise HopFailed(record("failed", reason(error))) from error
        else:
            record("ok", note.detail)

    def look(self, name: str, look: Callable[[Note], None], *, remedy: str = "") -> None:
        """Record one look as one hop. One that fails is recorded, not raised: the next look is taken all the same."""
        with suppress(HopFailed), self.watch(name, remedy=remedy) as note:
            look(note)

    @property
    def failed(self) -> list[Hop]:
        return [hop for hop in self.seen if hop.state == "failed"]

    def facts(self) -> list[dict[str, object]]:
        """The record for `--json`."""
        return [asdict(hop) for hop in self.seen]

    def table(self, title: str) -> Table:
        """The record for people."""
        table = Table(title=title, title_justify="left", expand=False)
        table.add_column("hop", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("what was seen", overflow="fold")
        table.add_column("time", justify="right", no_wrap=True)
        for hop in self.seen:
            colour = COLOURS[hop.state]
            table.add_row(hop.name, f"[{colour}]{hop.state}[/]", hop.detail, _duration(hop.seconds))
        return table


def reason(error: BaseException) -> str:
    """An error in words without patient data."""
    # Only our own sentences and the operating system's are known to hold none.
    if isinstance(error, GatewayError | OSError):
        return str(error)
    return f"{type(error).__name__} (the log has the lines of code)"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
