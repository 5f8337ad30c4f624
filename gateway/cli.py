"""`gateway`: what an operator does with a site, one command each.

A command prints facts for people, or with `--json` for programs, and ends with 0 (done, well), 1 (not done, not well)
or 78 (the settings are wrong); 2 is a mistake in the command itself. It reads the same variables as the services; on a
site `systemd/gateway` runs it with theirs.

Not for: the rules behind a command; each lives in its own module.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from gateway import __version__, appointments, cli_care, cli_forward, cli_peers, log, process, tls_check
from gateway.check import SiteSettings, check
from gateway.errors import GatewayError, SettingsError
from gateway.hops import Hop, HopFailed, Hops, Observed
from gateway.outbox import Entry
from gateway.settings import load
from gateway.simulator.exam import SCREENING_VIEWS, VIEWS
from gateway.simulator.modality import Modality, standard_views
from gateway.terminal import AsJson, console, print_json
from pacs import Archive
from pacs.duties import Duties
from pacs.promises import Promises
from pacs.settings import PacsSettings
from relay.settings import RelaySettings
from worklist import Item, Worklist
from worklist.settings import WorklistSettings

app = typer.Typer(
    help="A DICOM edge gateway between breast-screening modalities and the screening programme's cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help texts below are laid out as they are meant to be read
)
worklist_app = typer.Typer(help="Who is screened when: add, list.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(worklist_app, name="worklist")
outbox_app = typer.Typer(help="What is owed to the cloud: list, release.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(outbox_app, name="outbox")
tls_app = typer.Typer(help="TLS on the DICOM ports: check.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(tls_app, name="tls")
cli_care.register(app)
cli_forward.register(app)
cli_peers.register(app)

OUTBOX_SHOWN = ("id", "message_type", "message_id", "created_at", "attempts", "due_at", "reason")
"""What of an entry is shown; its parameters hold patient data."""


class OutboxState(StrEnum):
    """`gateway.outbox.State`, as typer wants it."""

    OPEN = "open"
    DELIVERED = "delivered"
    PARKED = "parked"


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
    hops = Hops() if as_json else Hops(ended=_print_hop)
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


@worklist_app.command("add")
def worklist_add(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSON list; see below.")],
    as_json: AsJson = False,
) -> None:
    """Put the items of a JSON file on the worklist; the same file again changes nothing.

    An entry is a worklist item or a whole action as the cloud writes them, or a data set in DICOM JSON.

    Example: gateway worklist add clinic.json, with clinic.json holding

    \b
    [{"accession_number": "ACC0001",
      "participant": {"nhs_number": "9990000018", "name": "DOE^JANE", "birth_date": "19700101", "sex": "F"},
      "scheduled": {"date": "20261122", "time": "093000"},
      "procedure": {"modality": "MG", "study_description": "Screening"}}]
    """
    read = appointments.read(file)
    with closing(Worklist.attach(load(WorklistSettings).db_path)) as worklist:
        items = [
            worklist.schedule(
                each.item, action_id=each.action_id, content_hash=each.content_hash, now=datetime.now(UTC)
            )
            for each in read
        ]
    _print_items(items, as_json=as_json)


@worklist_app.command("list")
def worklist_list(
    date: Annotated[str, typer.Option(help="A day, YYYYMMDD, or 'all'.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the items of today, of another day or of all days.

    Example: gateway worklist list --date 20261122
    """
    day = date or f"{datetime.now().astimezone():%Y%m%d}"
    with closing(Worklist.attach(load(WorklistSettings).db_path)) as worklist:
        items = worklist.items(date=None if day == "all" else day)
    _print_items(items, as_json=as_json)


@outbox_app.command("list")
def outbox_list(
    state: Annotated[OutboxState, typer.Option(help="Open, delivered or parked.")] = OutboxState.PARKED,
    as_json: AsJson = False,
) -> None:
    """List what is owed to the cloud in one state, at most 100 of the worklist and 100 of the archive.

    Example: gateway outbox list --state open
    """
    facts = [
        {"of": name, **{key: value for key, value in asdict(entry).items() if key in OUTBOX_SHOWN}}
        for name, attach in _owners().items()
        for entry in _entries(attach, state)
    ]
    if as_json:
        print_json(facts)
        return
    table = Table("of", *OUTBOX_SHOWN)
    for fact in facts:
        table.add_row(*map(str, fact.values()))
    console.print(table if facts else "Nothing.")


@outbox_app.command("release")
def outbox_release(
    of: Annotated[Literal["worklist", "pacs"], typer.Argument(help="Whose entry it is.")],
    entry_id: Annotated[int, typer.Argument(metavar="ID", help="Its id in `gateway outbox list`.")],
) -> None:
    """Let a parked entry be sent again, after what was in its way has been put right.

    Example: gateway outbox release pacs 17
    """
    with closing(_owners()[of]()) as owner:
        owner.outbox.release(entry_id, now=datetime.now(UTC))


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
    hops, settings = Hops() if as_json else Hops(ended=_print_hop), load(PacsSettings)
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
def modality(
    accession_number: Annotated[
        str, typer.Argument(help="The item to perform; the first scheduled one by default.")
    ] = "",
    views: Annotated[str, typer.Option(help=f"Of {', '.join(VIEWS)}.")] = ",".join(SCREENING_VIEWS),
    ae_title: Annotated[str, typer.Option(help="The title to call with.")] = "",
    as_json: AsJson = False,
) -> None:
    """Be a mammography machine: ask for the worklist, report the step, store synthetic views, have them committed.

    The images are synthetic and say so, but they are stored and told to the cloud like any other.

    Example: gateway modality ACC0001 --views RCC,LCC
    """
    wanted = [view.strip().upper() for view in views.split(",")]
    if unknown := [view for view in wanted if view not in VIEWS]:
        raise typer.BadParameter(f"{', '.join(unknown)} is not one of {', '.join(VIEWS)}.", param_hint="--views")
    hops = Hops() if as_json else Hops(ended=_print_hop)
    try:
        _examine(_settings().modality(ae_title), accession_number, wanted, hops=hops)
    except HopFailed as failed:
        raise SystemExit(process.EXIT_FAILED) from failed
    finally:
        if as_json:
            print_json(hops.facts())


@app.command()
def version(as_json: AsJson = False) -> None:
    """Say which version this is.

    Example: gateway version
    """
    if as_json:
        print_json({"version": __version__})
    else:
        console.print(__version__)


def _examine(machine: Modality, accession_number: str, views: Sequence[str], *, hops: Hops) -> None:
    with hops.watch("worklist query") as note:
        items = machine.find(accession_number=accession_number)
        if not items:
            raise Observed("The worklist has no such item; see 'gateway worklist list'.")
        note.detail = f"{len(items)} found, taking accession number {items[0].AccessionNumber}."
    with hops.watch("step begun") as note:
        step = machine.begin(items[0], now=datetime.now().astimezone())
        note.detail = f"N-CREATE of {step.mpps_instance_uid}."
    sent = []
    for image in standard_views(step, views=views):
        with hops.watch(f"{image.SeriesDescription} stored") as note:
            [stored] = machine.store([image])
            sent.append(stored)
            note.detail = f"{stored.size_bytes / 1e6:.1f} MB, {stored.sop_instance_uid}."
    with hops.watch("step completed") as note:
        machine.complete(step, sent, now=datetime.now().astimezone())
        note.detail = f"N-SET COMPLETED with {len(sent)} images."
    with hops.watch("storage committed") as note:
        machine.commit(sent)
        note.detail = f"All {len(sent)} images."


def _owners() -> dict[str, Callable[[], Worklist | Archive]]:
    """How to open each database that owes the cloud something."""
    worklist, pacs = load(WorklistSettings), load(PacsSettings)
    return {
        "worklist": lambda: Worklist.attach(worklist.db_path),
        "pacs": lambda: Archive.attach(pacs.db_path, pacs.storage_path),
    }


def _entries(attach: Callable[[], Worklist | Archive], state: OutboxState) -> list[Entry]:
    with closing(attach()) as owner:
        return owner.outbox.entries(state.value)


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


def _print_hop(hop: Hop) -> None:
    console.print(hop.line, highlight=False, markup=False, soft_wrap=True, style="red" if hop.state == "failed" else "")


def _print_items(items: Sequence[Item], *, as_json: bool) -> None:
    if as_json:
        print_json([_facts(item) for item in items])
        return
    table = Table("date", "time", "accession number", "modality", "state", title=None)
    for item in items:
        table.add_row(item.date, item.time, item.accession_number, item.modality, item.state)
    console.print(table if items else "No items.")


def _facts(item: Item) -> dict[str, object]:
    """What may be seen over a shoulder and piped into a file: no names, no birth dates."""
    return {
        "accession_number": item.accession_number,
        "date": item.date,
        "time": item.time,
        "modality": item.modality,
        "state": item.state,
        "study_instance_uid": item.study_instance_uid,
        "updated_at": item.updated_at,
    }


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
