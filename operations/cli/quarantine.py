"""`gateway quarantine`: the quarantined objects of the archive, and decisions about them: list, release, keep.

Not for: rules; they are in `pacs.maintenance.quarantine`.
"""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway import process
from gateway.settings import load
from gateway.sign_off import require_decider
from operations import databases
from operations.cli.terminal import AsJson, console, print_json, print_table
from pacs import Archive
from pacs.archive.files import Files
from pacs.maintenance.quarantine import carry_out
from pacs.settings import PacsSettings

DECISION_SECONDS = 60.0
"""How long a release waits for the pacs process, which looks every second."""

quarantine_app = typer.Typer(
    help="What is kept aside: list, keep, release.", no_args_is_help=True, rich_markup_mode=None
)


@quarantine_app.command("list")
def quarantine_list(as_json: AsJson = False) -> None:
    """List what is kept aside, why, and what was decided about it.

    Example: gateway quarantine list
    """
    with databases.archive(load(PacsSettings)) as archive:
        facts: list[dict[str, object]] = [
            {
                "id": found.id,
                "sop_instance_uid": found.sop_instance_uid,
                "received_at": found.received_at,
                "calling_ae_title": found.calling_ae_title,
                "reason": found.reason,
                "decision": found.decision,
                "refusal": found.refusal,
                "settled_at": found.settled_at,
                "file": f"quarantine/{found.file_name}",
            }
            for found in archive.quarantine.objects()
        ]
    if as_json:
        print_json(facts)
    else:
        print_table(facts, none="")


@quarantine_app.command("release")
def quarantine_release(
    quarantine_id: Annotated[int, typer.Argument(metavar="ID", help="Its id in `gateway quarantine list`.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of what is stored under its UID.")
    ] = False,
    by: Annotated[str, typer.Option("--by", help="Who decides so; wanted with --replace.")] = "",
) -> None:
    """Store what is kept aside, as if it came in now, and tell the cloud.

    When another object has its UID, that one stays, unless somebody says --replace by name; then it goes into the
    quarantine.

    Example: gateway quarantine release 3 --replace --by "J. Smith"
    """
    decider = require_decider(by) if replace or by.strip() else ""
    with databases.archive(load(PacsSettings)) as archive:
        archive.quarantine.decide(quarantine_id, "replace" if replace else "store", by=decider)
        refusal = _awaited(archive, quarantine_id)
    if refusal:
        console.print(refusal, soft_wrap=True)
    raise SystemExit(process.EXIT_FAILED if refusal else process.EXIT_OK)


@quarantine_app.command("keep")
def quarantine_keep(
    quarantine_id: Annotated[int, typer.Argument(metavar="ID", help="Its id in `gateway quarantine list`.")],
    by: Annotated[str, typer.Option("--by", help="Who decides so.")],
) -> None:
    """Keep what is stored, and this one aside: nothing is deleted, and it waits for nobody any more.

    Example: gateway quarantine keep 3 --by "J. Smith"
    """
    decider = require_decider(by)
    with databases.archive(load(PacsSettings)) as archive:
        archive.quarantine.settle(quarantine_id, by=decider, now=datetime.now(UTC))


def _awaited(archive: Archive, quarantine_id: int) -> str:
    """Have the decision carried out; gives the reason when it was not, or ''."""
    deadline, files = time.monotonic() + DECISION_SECONDS, Files(load(PacsSettings).storage_path)
    while time.monotonic() < deadline:
        with databases.folder_held(files) as held:
            if held:  # no pacs process runs, so it is done here
                carry_out(archive, files, now=datetime.now(UTC))
        left = [found for found in archive.quarantine.objects() if found.id == quarantine_id]
        if not left or left[0].refusal:
            return left[0].refusal if left else ""
        time.sleep(0.5)
    return "Not yet: the disk is full, or a backup is being taken. The decision stands and is carried out after that."
