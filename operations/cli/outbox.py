"""`gateway outbox`: the entries for the cloud, and decisions about those that cannot be delivered.

Not for: the rules (`gateway.outbox.entries`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

import typer

from gateway.outbox import Entry
from gateway.settings import load
from operations import databases
from operations.cli.terminal import AsJson, print_json, print_table
from pacs import Archive, discard
from pacs.settings import PacsSettings
from worklist import Worklist
from worklist.settings import WorklistSettings

outbox_app = typer.Typer(
    help="What is owed to the cloud: list, release, discard, park.", no_args_is_help=True, rich_markup_mode=None
)

# Not the parameters of an entry, because they hold patient data.
SHOWN = ("id", "destination", "message_type", "message_id", "created_at", "attempts", "due_at", "reason")
"""The shown fields of an entry."""

Owner = Annotated[Literal["worklist", "pacs"], typer.Argument(help="Whose entry it is.")]
EntryId = Annotated[int, typer.Argument(metavar="ID", help="Its id in `gateway outbox list`.")]


class OutboxState(StrEnum):
    """`gateway.outbox.entries.EntryState`, as typer wants it."""

    OPEN = "open"
    DELIVERED = "delivered"
    PARKED = "parked"


@outbox_app.command("list")
def outbox_list(
    state: Annotated[OutboxState, typer.Option(help="Open, delivered or parked.")] = OutboxState.PARKED,
    as_json: AsJson = False,
) -> None:
    """List what is owed to the cloud in one state, at most 100 of the worklist and 100 of the archive.

    An entry has a line for each destination that has to be told of it.

    Example: gateway outbox list --state open
    """
    facts = [
        {"of": name, **{key: asdict(entry)[key] for key in SHOWN}}
        for name, opened in _owners().items()
        for entry in _entries(opened, state)
    ]
    if as_json:
        print_json(facts)
    else:
        print_table(facts)


@outbox_app.command("release")
def outbox_release(
    of: Owner,
    entry_id: EntryId,
    by: Annotated[str, typer.Option("--by", help="Who decides so; wanted for what is held back.")] = "",
) -> None:
    """Let a parked entry be sent again, after what was in its way has been put right.

    An image that is held back disagrees with its worklist item. Whoever lets it go has compared the two.

    Example: gateway outbox release pacs 17 --by "J. Smith"
    """
    with _owners()[of]() as owner:
        owner.outbox.release(entry_id, by=by, now=datetime.now(UTC))


@outbox_app.command("discard")
def outbox_discard(
    of: Annotated[Literal["pacs"], typer.Argument(help="Whose entry it is; only images are held back.")],
    entry_id: EntryId,
    by: Annotated[str, typer.Option("--by", help="Who decides so.")],
    because: Annotated[str, typer.Option("--because", help="Why; the cloud is told. No participant's name.")],
) -> None:
    """Never send an image that is held back: the cloud is told that it was rejected, and why. It cannot be taken back.

    The image stays on site, and is removed by the rules of retention.

    Example: gateway outbox discard pacs 17 --by "J. Smith" --because "Another participant's; sent again correctly."
    """
    with _owners()[of]() as owner:
        assert isinstance(owner, Archive)
        discard(owner, entry_id, by=by, because=because, now=datetime.now(UTC))


@outbox_app.command("park")
def outbox_park(
    of: Owner,
    entry_id: EntryId,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the entry. No names.")],
) -> None:
    """Keep an open entry from being sent, until it is released; the others of its subject go on.

    Example: gateway outbox park pacs 17 --reason "The cloud team looks into it."
    """
    with _owners()[of]() as owner:
        owner.outbox.set_aside(entry_id, reason=reason, now=datetime.now(UTC))


def _owners() -> dict[str, Callable[[], AbstractContextManager[Worklist | Archive]]]:
    """A function that opens each database with an outbox."""
    worklist, pacs = load(WorklistSettings), load(PacsSettings)
    return {
        "worklist": lambda: databases.worklist(worklist),
        "pacs": lambda: databases.archive(pacs),
    }


def _entries(opened: Callable[[], AbstractContextManager[Worklist | Archive]], state: OutboxState) -> list[Entry]:
    with opened() as owner:
        return owner.outbox.entries(state.value)
