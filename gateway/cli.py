"""`gateway`: what an operator does with a site, one command each.

A command prints facts for people, or with `--json` for programs, and ends with 0 (done, well), 1 (not done, not well)
or 78 (the settings are wrong); 2 is a mistake in the command itself. It reads the same variables as the services; on a
site `systemd/gateway` runs it with theirs.

Not for: the rules behind a command; each lives in its own module.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from gateway import (
    __version__,
    cli_care,
    cli_forward,
    cli_link,
    cli_modality,
    cli_outbox,
    cli_peers,
    cli_refusals,
    cli_site,
    cli_users,
    cli_viewer,
    cli_worklist,
    log,
    process,
    tls_check,
)
from gateway.check import SiteSettings, check
from gateway.errors import GatewayError, SettingsError
from gateway.hops import Hops
from gateway.settings import load
from gateway.terminal import AsJson, console, print_hop, print_json
from pacs import Archive
from pacs.duties import Duties
from pacs.promises import Promises
from pacs.settings import PacsSettings
from relay.settings import RelaySettings
from worklist import Worklist
from worklist.settings import WorklistSettings

app = typer.Typer(
    help="A DICOM edge gateway between breast-screening modalities and the screening programme's cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help texts below are laid out as they are meant to be read
)
tls_app = typer.Typer(help="TLS on the DICOM ports: check.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(tls_app, name="tls")
cli_care.register(app)
cli_forward.register(app)
cli_link.register(app)
cli_modality.register(app)
cli_outbox.register(app)
cli_peers.register(app)
cli_refusals.register(app)
cli_site.register(app)
cli_users.register(app)
cli_viewer.register(app)
cli_worklist.register(app)


def main() -> None:
    """The console script."""
    log.configure("WARNING", process="gateway")
    sys.exit(process.run(_command))


def _command() -> None:
    try:
        app()
    except SettingsError:
        raise
    except (GatewayError, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(process.EXIT_FAILED) from error


def _settings() -> SiteSettings:
    return SiteSettings(load(WorklistSettings), load(PacsSettings), load(RelaySettings))


@app.command()
def run() -> None:
    """Run worklist, pacs and relay in the foreground, for containers and development.

    When one ends, all are stopped and the exit code is not 0. Ctrl-C or SIGTERM stops all.

    Example: GATEWAY_DATA_DIR=/tmp/gateway gateway run
    """
    settings = _settings()
    log.configure(settings.relay.log_level, process="gateway")
    commands = {name: [sys.executable, "-m", name] for name in ("worklist", "pacs", "relay")}
    raise SystemExit(process.supervise(commands))


@app.command("check")
def check_command(
    local: Annotated[bool, typer.Option("--local", help="Leave the echo through the cloud out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove by traffic that the site works: one line per hop, exit code 1 if one failed.

    Example: gateway check --json | jq '.[] | select(.state == "failed")'
    """
    hops = Hops() if as_json else Hops(ended=print_hop)
    check(_settings(), hops, with_cloud=not local)
    if as_json:
        print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say what the worklist and the archive hold and what is owed to the cloud. Reads the databases, calls nobody.

    Example: gateway status
    """
    settings = _settings()
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


@tls_app.command("check")
def tls_check_command(
    connect: Annotated[
        str,
        typer.Option(metavar="PEER", help="Also shake hands with HOST:PORT, or with one of PACS_PEERS by AE title."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Explain the set-up of TLS: files, key, dates, names, chain, strength; exit code 1 if something is wrong.

    A peer of PACS_PEERS is called as the archive calls it; HOST:PORT is meant for our own ports.

    Example: gateway tls check --connect SITE_PACS
    """
    host, _, port = connect.rpartition(":")
    hops, settings = Hops() if as_json else Hops(ended=print_hop), load(PacsSettings)
    peer = next((each for each in settings.peers if each.ae_title == connect), None)
    if connect and peer is None and not (host and port.isdecimal()):
        raise typer.BadParameter("It has to be HOST:PORT or the AE title of one of PACS_PEERS.", param_hint="--connect")
    tls_check.check_files(settings, hops, now=datetime.now(UTC))
    if peer is not None:
        tls_check.check_call(settings, hops, peer)
    elif connect:
        tls_check.check_peer(settings, hops, host=host.strip("[]"), port=int(port))
    if as_json:
        print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Say which version this is.

    Example: gateway version
    """
    if as_json:
        print_json({"version": __version__})
    else:
        console.print(__version__)


def _worklist_facts(settings: WorklistSettings) -> dict[str, object]:
    with closing(Worklist.attach(settings.db_path)) as worklist:
        today = worklist.items(date=f"{datetime.now().astimezone():%Y%m%d}")
        states = Counter(str(item.state) for item in today)
        return {"items today": len(today), **states, **_owed(worklist.outbox.counts, worklist.outbox.oldest_open)}


def _pacs_facts(settings: PacsSettings) -> dict[str, object]:
    with closing(Archive.attach(settings.db_path, settings.storage_path)) as archive:
        scrubbed = archive.upkeep.scrubbed()
        care = {"damaged": archive.upkeep.damaged(), "all read again": scrubbed.ended_at}
        promised = Promises(archive.database).facts()
        owed = _owed(archive.outbox.counts, archive.outbox.oldest_open)
        return {**archive.statistics(), **care, **promised, **owed, **_forwarding(Duties(archive.database))}


def _forwarding(duties: Duties) -> dict[str, object]:
    """How it stands with each site archive."""
    facts: dict[str, object] = {}
    for each in duties.standings():
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
