"""The commands of care over years: fsck, prune, backup, restore, quarantine, statistics.

Not for: rules; they are in `pacs.maintenance.fsck`, `pacs.maintenance.retention`, `pacs.maintenance.quarantine`,
`operations.backup.backup` and `operations.backup.restore`.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway import process
from gateway.audit.messages import Actor
from gateway.settings import GatewaySettings, load
from gateway.sign_off import require_decider
from gateway.sqlite import utc_text
from operations.backup.backup import Beside, backup
from operations.backup.restore import Restored, restore, verify, verify_trail
from operations.cli.terminal import AsJson, Progress, caller, console, print_each, print_json
from pacs import Archive
from pacs.archive.files import AlreadyServed, Files
from pacs.maintenance.fsck import Fsck, FsckFinding
from pacs.maintenance.quarantine import carry_out
from pacs.maintenance.retention import RetentionOutcome, RetentionPolicy, candidates, prune, remove_ordered
from pacs.settings import PacsSettings
from relay.settings import RelaySettings
from worklist import Worklist
from worklist.settings import WorklistSettings

DECISION_SECONDS = 60.0
"""How long a release waits for the pacs process, which looks every second."""

quarantine_app = typer.Typer(
    help="What is kept aside: list, keep, release.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for name, command in (("fsck", fsck), ("prune", prune_command), ("backup", backup_command),
                          ("restore", restore_command), ("statistics", statistics)):  # fmt: skip
        app.command(name)(command)
    app.add_typer(quarantine_app, name="quarantine")


def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be; the pacs process has to be stopped.")
    ] = False,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Read every byte of every file, and of the database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare index and files, and say what is not as it should be, and what to do. The pacs process may run.

    Nothing is ever deleted that may be the only copy. Exit code 1 when something is left to be done.

    Example: gateway fsck --hashes --json | jq '.[].code'
    """
    progress = Progress("instances looked at")
    files = _files()
    with _archive() as archive, closing(files):
        if repair:
            files.open()
        check = Fsck(archive, files, at_rest=repair, seen=progress.seen)
        left = _printed(_findings(check, repair=repair, hashes=hashes), as_json=as_json)
    raise SystemExit(process.EXIT_FAILED if left else process.EXIT_OK)


def prune_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why others stay.")] = False,
    days: Annotated[
        int | None, typer.Option(help="Days since the last image, instead of PACS_RETENTION_DAYS.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove studies that are old enough and that the cloud has confirmed, the oldest first. Nothing unsent ever goes.

    Example: gateway prune --days 90 --dry-run
    """
    settings = load(PacsSettings)
    if days is None and not settings.retention_days:
        raise typer.BadParameter("PACS_RETENTION_DAYS is not set, so say for how long.", param_hint="--days")
    policy = RetentionPolicy(settings.retention_days if days is None else days, settings.retention_needs_commitment)
    with _archive() as archive:
        work = candidates if dry_run else prune
        facts = (_outcome(outcome) for outcome in work(archive, policy, now=datetime.now(UTC)))
        print_each(facts, as_json=as_json, line=_outcome_line)
        with _held(files := _files()) as held:  # otherwise the pacs process removes the files
            if held:
                remove_ordered(archive, files)


def backup_command(
    target: Annotated[Path, typer.Argument(help="A folder, best on another machine's volume.")],
    as_json: AsJson = False,
) -> None:
    """Copy databases, images, audit trail and users while the site works; again into a folder, only what is new.

    A backup that was cut off is taken up again by the next one. Backups hold patient data: keep them where only those
    may read who may see the images.

    Example: gateway backup /mnt/backup
    """
    worklist_path, relay = load(WorklistSettings).db_path, load(RelaySettings)
    beside = Beside(relay.audit_path, relay.users_path)
    with _archive() as archive, closing(Worklist.attach(worklist_path)) as worklist:
        taken = backup(
            worklist,
            archive,
            _files(),
            target,
            beside=beside,
            now=datetime.now(UTC),
            step=Progress("files looked at").step,
        )
    if as_json:
        print_json(taken.facts())
    else:
        console.print(f"{taken.folder}: {taken.files} files, {taken.new_files} of them new.", soft_wrap=True)
        for path in (*taken.missing, *taken.damaged):
            console.print(f"Missing or damaged: {path}. See 'gateway fsck --hashes'.", soft_wrap=True)
        if taken.linked:
            console.print("On the same volume as the images: it protects from mistakes, not from a broken disk.")
    raise SystemExit(process.EXIT_FAILED if taken.missing or taken.damaged else process.EXIT_OK)


def restore_command(
    source: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A backup, or a folder of backups.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to restore to; it has to be empty.")],
    verify_too: Annotated[
        bool, typer.Option("--verify", help="Read it all again, and compare files and index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup, or the newest one of a folder, back into an empty folder, which is a data folder then.

    Everything is compared with the manifest on the way. What was owed to the cloud is owed again. To work with it, stop
    the services and let GATEWAY_DATA_DIR name the folder.

    Example: gateway restore /mnt/backup --to /var/lib/gateway-restored --verify
    """
    who, site = Actor(caller()), load(GatewaySettings).site
    step = Progress("files restored").step
    restored = restore(source, to, who=who, site=site, now=datetime.now(UTC), step=step)
    findings = list(verify(to, now=datetime.now(UTC))) if verify_too else []
    broken = list(verify_trail(to)) if verify_too else []
    if as_json:
        seen = {"findings": [each.facts() for each in findings], "trail_findings": [asdict(each) for each in broken]}
        print_json(restored.facts() | (seen if verify_too else {}))
    else:
        console.print(f"{restored.instances} instances of {restored.studies} studies, {restored.files} files;"
                      f" {restored.owed} events are owed to the cloud.", soft_wrap=True)  # fmt: skip
        console.print(_older(restored), soft_wrap=True, highlight=False)
        _printed(iter(findings), as_json=False)
        for each in broken:
            console.print(f"{each.code}: {each.file}:{each.line} {each.text}", soft_wrap=True, highlight=False)
    raise SystemExit(process.EXIT_FAILED if findings or broken else process.EXIT_OK)


def _older(restored: Restored) -> str:
    if not restored.audit_messages:
        return "The backup has no audit trail."
    return (f"The audit trail has {restored.audit_messages} messages and says that it was restored; those that were"
            " written after the backup are not in it: keep the old folder's.")  # fmt: skip


def statistics(
    days: Annotated[int, typer.Option(help="How many days of growth.", min=1)] = 30,
    studies: Annotated[int, typer.Option(help="How many of the newest studies.", min=0)] = 10,
    as_json: AsJson = False,
) -> None:
    """Say what the archive holds, how it grows from day to day (UTC), and what the newest studies hold.

    Example: gateway statistics --days 7
    """
    since = utc_text(datetime.now(UTC) - timedelta(days=days))
    with _archive() as archive:
        facts = {
            **archive.statistics(),
            **archive.listing.received(),
            "damaged": archive.condition().damaged,
            "days": archive.listing.growth(since),
            "newest_studies": archive.listing.newest_studies(studies),
        }
    if as_json:
        print_json(facts)
        return
    console.print(", ".join(f"{name} {value}" for name, value in facts.items() if not isinstance(value, list)))
    for name in ("days", "newest_studies"):
        _print_table(facts[name])


@quarantine_app.command("list")
def quarantine_list(as_json: AsJson = False) -> None:
    """List what is kept aside, why, and what was decided about it.

    Example: gateway quarantine list
    """
    with _archive() as archive:
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
        _print_table(facts)


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
    with _archive() as archive:
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
    with _archive() as archive:
        archive.quarantine.settle(quarantine_id, by=decider, now=datetime.now(UTC))


def _awaited(archive: Archive, quarantine_id: int) -> str:
    """Have the decision carried out, here or by the pacs process; why it could not be, or ''."""
    deadline, files = time.monotonic() + DECISION_SECONDS, _files()
    while time.monotonic() < deadline:
        with _held(files) as held:
            if held:
                carry_out(archive, files, now=datetime.now(UTC))
        left = [found for found in archive.quarantine.objects() if found.id == quarantine_id]
        if not left or left[0].refusal:
            return left[0].refusal if left else ""
        time.sleep(0.5)
    return "Not yet: the disk is full, or a backup is being taken. The decision stands and is carried out after that."


@contextmanager
def _archive() -> Iterator[Archive]:
    settings = load(PacsSettings)
    with closing(Archive.attach(settings.db_path, settings.storage_path, settings.watermarks)) as archive:
        yield archive


def _files() -> Files:
    return Files(load(PacsSettings).storage_path)


@contextmanager
def _held(files: Files) -> Iterator[bool]:
    """Hold the archive's folder if nobody else does."""
    try:
        files.open()
    except AlreadyServed:
        yield False
        return
    with closing(files):
        yield True


def _findings(check: Fsck, *, repair: bool, hashes: bool) -> Iterator[FsckFinding]:
    now = datetime.now(UTC)
    for finding in check.findings(hashes=hashes, now=now):
        yield check.repaired(finding, now=now) if repair else finding


def _printed(findings: Iterator[FsckFinding], *, as_json: bool) -> int:
    """Print findings as they come; how many of them are left to be done."""
    left = 0

    def facts() -> Iterator[dict[str, object]]:
        nonlocal left
        for finding in findings:
            left += not finding.repaired
            yield dict(finding.facts())

    print_each(facts(), as_json=as_json, line=_finding_line)
    return left


def _finding_line(fact: dict[str, object]) -> str:
    where = " ".join(str(fact[name]) for name in ("uid", "file") if fact[name])
    return f"{fact['code']}: {where} {fact['sentence']} {fact['repaired'] or fact['remedy']}"


def _outcome(outcome: RetentionOutcome) -> dict[str, object]:
    study = outcome.study
    return {
        "study_instance_uid": study.study_instance_uid,
        "accession_number": study.accession_number,
        "last_received_at": study.last_received_at,
        "instances": study.instances,
        "bytes": study.size_bytes,
        "goes": not outcome.kept_because,
        "kept_because": list(outcome.kept_because),
    }


def _outcome_line(fact: dict[str, object]) -> str:
    reasons = fact["kept_because"]
    said = "goes" if fact["goes"] else f"stays: {'; '.join(map(str, reasons if isinstance(reasons, list) else ()))}"
    return f"{fact['study_instance_uid']} of {fact['last_received_at']}, {fact['instances']} instances, {said}"


def _print_table(rows: object) -> None:
    found = rows if isinstance(rows, list) else []
    if not found:
        console.print("Nothing.")
        return
    table = Table(*found[0])
    for row in found:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
