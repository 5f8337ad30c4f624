"""The commands about the site as a whole: selftest, diagnostics.

Not for: what they do; it is in `operations.checks.selftest` and `operations.checks.diagnostics`.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway import process
from gateway.hops import Hops
from operations.checks.diagnostics import collect
from operations.checks.selftest import Selftest
from operations.cli.terminal import AsJson, console, print_hop, print_json
from operations.site_settings import SiteSettings


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for name, command in (("selftest", selftest), ("diagnostics", diagnostics)):
        app.command(name)(command)


def selftest(
    force: Annotated[bool, typer.Option("--force", help="Also while a clinic is under way.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a participant who does not exist through worklist, modality, archive and cloud, and clean up after.

    One line per hop, exit code 1 if one failed. The cloud is told like of any exam; the accession number begins with
    SELFTEST. Refused while a clinic is under way.

    Example: gateway selftest --json | jq '.[] | select(.state == "failed")'
    """
    hops = Hops() if as_json else Hops(ended=print_hop)
    Selftest(SiteSettings.load(), hops, now=lambda: datetime.now().astimezone()).run(force=force)
    if as_json:
        print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)


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
