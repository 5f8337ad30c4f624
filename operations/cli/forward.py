"""The commands about forwarding to site archives: list, release, cancel, study, instance.

Not for: rules (`pacs.forward.rules`), and sending; the pacs process reads the queue that is changed here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from gateway.errors import NotFound
from gateway.settings import load
from operations import databases
from operations.cli.terminal import AsJson, console, print_json, print_table
from pacs.forward.queue_rows import ForwardQueue
from pacs.settings import PacsSettings

forward_app = typer.Typer(
    help="What is owed to site archives: list, release, cancel, study, instance.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Id = Annotated[int | None, typer.Argument(metavar="ID", help="Its id in `gateway forward list`.")]
Of = Annotated[str, typer.Option("--to", metavar="AET", help="All of this target.")]
To = Annotated[str, typer.Option("--to", metavar="AET", help="The AE title of one in PACS_PEERS.")]


class StateOption(StrEnum):
    """`pacs.forward.queue_rows.ForwardState`, as typer wants it."""

    OPEN = "open"
    DELIVERED = "delivered"
    PARKED = "parked"


@forward_app.command("list")
def forward_list(
    state: Annotated[StateOption, typer.Option(help="Open, delivered or parked.")] = StateOption.PARKED,
    to: Of = "",
    as_json: AsJson = False,
) -> None:
    """List what is owed to site archives in one state, the newest 100.

    Example: gateway forward list --state open --to SITE_PACS
    """
    with _queue() as queue:
        facts = [asdict(entry) for entry in queue.owed(state.value, target=to or None)]
    if as_json:
        print_json(facts)
    else:
        print_table(facts)


@forward_app.command("release")
def forward_release(duty_id: Id = None, to: Of = "") -> None:
    """Have what is parked sent again, after what was in its way has been put right. With --to, call at once.

    Example: gateway forward release --to SITE_PACS
    """
    which = _which(duty_id, to)
    with _queue() as queue:
        count = queue.release(now=datetime.now(UTC), **which)
    if duty_id is not None and not count:
        raise NotFound(f"Nothing that is parked has the id {duty_id}; see 'gateway forward list'.")
    console.print(f"{count} released.")


@forward_app.command("cancel")
def forward_cancel(duty_id: Id = None, to: Of = "") -> None:
    """Owe a target no longer what it has not confirmed; only then may such a study be pruned. The images stay.

    With --to it is everything of the target, open and parked: for one that is out of service, and no longer in
    PACS_FORWARD_TO.

    Example: gateway forward cancel 17
    """
    which = _which(duty_id, to)
    with _queue() as queue:
        count = queue.cancel(**which)
    if duty_id is not None and not count:
        raise NotFound(f"Nothing that is open or parked has the id {duty_id}; see 'gateway forward list'.")
    console.print(f"{count} cancelled.")


@forward_app.command("study")
def forward_study(uid: Annotated[str, typer.Argument(metavar="UID", help="Its Study Instance UID.")], to: To) -> None:
    """Have a study of the archive sent to one of PACS_PEERS, again if need be; the pacs process tries until it has it.

    Example: gateway forward study 1.2.840.113619.2.1 --to SITE_PACS
    """
    _ask(to, study_instance_uid=uid)


@forward_app.command("instance")
def forward_instance(uid: Annotated[str, typer.Argument(metavar="UID", help="Its SOP Instance UID.")], to: To) -> None:
    """The same for one instance.

    Example: gateway forward instance 1.2.840.113619.2.1.5 --to SITE_PACS
    """
    _ask(to, sop_instance_uid=uid)


def _ask(to: str, **uid: str) -> None:
    if to not in {peer.ae_title for peer in load(PacsSettings).peers}:
        raise typer.BadParameter("It has to be one of PACS_PEERS.", param_hint="--to")
    with _queue() as queue:
        count = queue.ask(to, now=datetime.now(UTC), **uid)
    console.print(f"{count} owed to {to}; see 'gateway forward list --state open'.", highlight=False, soft_wrap=True)


def _which(duty_id: int | None, to: str) -> dict[str, object]:
    if (duty_id is None) == (not to):
        raise typer.BadParameter("Give an ID or --to, not both.")
    return {"target": to} if to else {"id": duty_id}


@contextmanager
def _queue() -> Iterator[ForwardQueue]:
    with databases.archive(load(PacsSettings)) as archive:
        yield ForwardQueue(archive)
