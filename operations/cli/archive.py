"""The commands about the archive: fsck, prune, statistics.

Not for: rules; they are in `pacs.maintenance.fsck` and `pacs.maintenance.retention`.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway import process
from gateway.settings import load
from gateway.sqlite import utc_text
from operations import databases
from operations.cli.terminal import AsJson, Progress, console, print_each, print_json, print_table
from pacs.archive.files import Files
from pacs.maintenance.fsck import Fsck, FsckFinding
from pacs.maintenance.retention import RetentionOutcome, RetentionPolicy, candidates, prune, remove_ordered
from pacs.settings import PacsSettings


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
    settings = load(PacsSettings)
    files = Files(settings.storage_path)
    with databases.archive(settings) as archive, closing(files):
        if repair:  # raises AlreadyServed while the pacs process runs
            files.open()
        check = Fsck(archive, files, at_rest=repair, seen=progress.seen)
        left = print_findings(_findings(check, repair=repair, hashes=hashes), as_json=as_json)
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
    with databases.archive(settings) as archive:
        work = candidates if dry_run else prune
        facts = (_outcome(outcome) for outcome in work(archive, policy, now=datetime.now(UTC)))
        print_each(facts, as_json=as_json, line=_outcome_line)
        files = Files(settings.storage_path)
        with databases.folder_held(files) as held:  # otherwise the pacs process removes the files
            if held:
                remove_ordered(archive, files)


def statistics(
    days: Annotated[int, typer.Option(help="How many days of growth.", min=1)] = 30,
    studies: Annotated[int, typer.Option(help="How many of the newest studies.", min=0)] = 10,
    as_json: AsJson = False,
) -> None:
    """Say what the archive holds, how it grows from day to day (UTC), and what the newest studies hold.

    Example: gateway statistics --days 7
    """
    since = utc_text(datetime.now(UTC) - timedelta(days=days))
    with databases.archive(load(PacsSettings)) as archive:
        totals = {
            **archive.statistics(),
            **archive.listing.received(),
            "damaged": archive.condition().damaged,
        }
        tables = {
            "days": archive.listing.growth(since),
            "newest_studies": archive.listing.newest_studies(studies),
        }
    if as_json:
        print_json({**totals, **tables})
        return
    console.print(", ".join(f"{name} {value}" for name, value in totals.items()))
    for table in tables.values():
        print_table(table, none="")


def print_findings(findings: Iterator[FsckFinding], *, as_json: bool) -> int:
    """Print findings as they come; gives the number of those that are not repaired."""
    left = 0

    def facts() -> Iterator[dict[str, object]]:
        nonlocal left
        for finding in findings:
            left += not finding.repaired
            yield dict(finding.facts())

    print_each(facts(), as_json=as_json, line=_finding_line)
    return left


def _findings(check: Fsck, *, repair: bool, hashes: bool) -> Iterator[FsckFinding]:
    now = datetime.now(UTC)
    for finding in check.findings(hashes=hashes, now=now):
        yield check.repaired(finding, now=now) if repair else finding


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
