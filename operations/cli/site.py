"""The commands about the site as a whole: check, selftest, diagnostics, status.

Not for: checks and bundles (`operations.checks`, `operations.diagnostics`), nor for judging a site (`relay.health`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway import __version__
from operations import databases
from operations.checks import site_check
from operations.checks.selftest import Selftest
from operations.cli.terminal import AsJson, console, print_json, printed_hops
from operations.diagnostics.bundle import collect
from operations.site_settings import SiteSettings
from pacs.commitment.rows import CommitmentRows
from pacs.forward.queue_rows import ForwardQueue
from pacs.settings import PacsSettings
from worklist.settings import WorklistSettings


def check(
    local: Annotated[bool, typer.Option("--local", help="Leave the echo through the cloud out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove by traffic that the site works: one line per hop, exit code 1 if one failed.

    Example: gateway check --json | jq '.[] | select(.state == "failed")'
    """
    settings = SiteSettings.load()
    with printed_hops(as_json=as_json) as hops:
        site_check.check(settings, hops, with_cloud=not local)


def selftest(
    force: Annotated[bool, typer.Option("--force", help="Also while a clinic is under way.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a participant who does not exist through worklist, modality, archive and cloud, and clean up after.

    One line per hop, exit code 1 if one failed. The cloud is told like of any exam; the accession number begins with
    SELFTEST. Refused while a clinic is under way.

    Example: gateway selftest --json | jq '.[] | select(.state == "failed")'
    """
    settings = SiteSettings.load()
    with printed_hops(as_json=as_json) as hops:
        Selftest(settings, hops, now=lambda: datetime.now().astimezone()).run(force=force)


def diagnostics(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle to write, a .tar.gz; it must not exist.")],
    logs: Annotated[
        list[Path] | None, typer.Option("--log", exists=True, help="A log file, instead of the journal's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack what helps from afar: versions, settings, health, counts, logs. No patient data, no secrets.

    Example: gateway diagnostics /tmp/van-7.tar.gz
    """
    facts = collect(SiteSettings.load(), target, logs=logs, now=datetime.now().astimezone())
    if as_json:
        print_json(facts)
    else:
        console.print(f"{target}: {facts['size_bytes']} bytes.", soft_wrap=True, highlight=False)


def status(as_json: AsJson = False) -> None:
    """Say what the worklist and the archive hold and what is owed to the cloud. Reads the databases, calls nobody.

    Example: gateway status
    """
    settings = SiteSettings.load()
    facts: dict[str, str | dict[str, object]] = {
        "site": settings.relay.site,
        "version": __version__,
        "worklist": _worklist_facts(settings.worklist),
        "pacs": _pacs_facts(settings.pacs),
    }
    if as_json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, value if isinstance(value, str) else _listed(value))
    console.print(table)


def _worklist_facts(settings: WorklistSettings) -> dict[str, object]:
    with databases.worklist(settings) as worklist:
        today = worklist.items(date=f"{datetime.now().astimezone():%Y%m%d}")
        states = Counter(str(item.state) for item in today)
        return {"items today": len(today), **states, **_pending(worklist.outbox.counts, worklist.outbox.oldest_open)}


def _pacs_facts(settings: PacsSettings) -> dict[str, object]:
    with databases.archive(settings) as archive:
        condition = archive.condition()
        files = {"damaged": condition.damaged, "all read again": condition.scrub.ended_at}
        commitments = CommitmentRows(archive).facts()
        pending = _pending(archive.outbox.counts, archive.outbox.oldest_open)
        return {**archive.statistics(), **files, **commitments, **pending, **_forwarding(ForwardQueue(archive))}


def _forwarding(queue: ForwardQueue) -> dict[str, object]:
    """The queue of each site archive."""
    facts: dict[str, object] = {}
    for each in queue.targets():
        facts |= {
            f"to {each.target} open": each.open,
            f"to {each.target} parked": each.parked,
            f"to {each.target} oldest open": each.oldest_open,
            f"{each.target} waits because": each.reason or None,
        }
    return facts


def _pending(counts: Callable[[], Mapping[str, int]], oldest_open: Callable[[], str | None]) -> dict[str, object]:
    return {**{f"events {state}": number for state, number in counts().items()}, "oldest open": oldest_open()}


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
