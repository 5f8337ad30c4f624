"""The command that says how it stands with the site: status.

Not for: judging it (`relay.health.report`), proving it (`operations.checks.site_check`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime

import typer
from rich.table import Table

from gateway import __version__
from gateway.settings import load
from operations.checks.site_check import SiteSettings
from operations.cli.terminal import AsJson, console, print_json
from pacs import Archive
from pacs.commitment.rows import CommitmentRows
from pacs.forward.queue_rows import ForwardQueue
from pacs.settings import PacsSettings
from relay.settings import RelaySettings
from worklist import Worklist
from worklist.settings import WorklistSettings


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(status)


def status(as_json: AsJson = False) -> None:
    """Say what the worklist and the archive hold and what is owed to the cloud. Reads the databases, calls nobody.

    Example: gateway status
    """
    settings = SiteSettings(load(WorklistSettings), load(PacsSettings), load(RelaySettings))
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
    with closing(Worklist.attach(settings.db_path)) as worklist:
        today = worklist.items(date=f"{datetime.now().astimezone():%Y%m%d}")
        states = Counter(str(item.state) for item in today)
        return {"items today": len(today), **states, **_owed(worklist.outbox.counts, worklist.outbox.oldest_open)}


def _pacs_facts(settings: PacsSettings) -> dict[str, object]:
    with closing(Archive.attach(settings.db_path, settings.storage_path)) as archive:
        condition = archive.condition()
        files = {"damaged": condition.damaged, "all read again": condition.scrub.ended_at}
        commitments = CommitmentRows(archive).facts()
        owed = _owed(archive.outbox.counts, archive.outbox.oldest_open)
        return {**archive.statistics(), **files, **commitments, **owed, **_forwarding(ForwardQueue(archive))}


def _forwarding(queue: ForwardQueue) -> dict[str, object]:
    """How it stands with each site archive."""
    facts: dict[str, object] = {}
    for each in queue.targets():
        facts |= {
            f"to {each.target} open": each.open,
            f"to {each.target} parked": each.parked,
            f"to {each.target} oldest open": each.oldest_open,
            f"{each.target} waits because": each.reason or None,
        }
    return facts


def _owed(counts: Callable[[], Mapping[str, int]], oldest_open: Callable[[], str | None]) -> dict[str, object]:
    return {**{f"events {state}": number for state, number in counts().items()}, "oldest open": oldest_open()}


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
