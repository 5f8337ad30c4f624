"""`gateway worklist`: the items of the worklist: add, list, cancel, explain, prune.

Names, birth dates and ids of participants are never printed.

Not for: rules; they are in `worklist.items`, `worklist.visibility` and `worklist.expiry`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from rich.table import Table

from gateway.errors import InvalidValue
from gateway.query import identifiers, matching
from gateway.settings import load
from gateway.sqlite import utc_text
from operations import databases, worklist_file
from operations.cli.terminal import AsJson, console, print_each, print_json
from worklist import ActionOrigin, Item, Worklist
from worklist.expiry import ExpiryOutcome, candidates, first_day_kept, prune
from worklist.item_rows import KEYS
from worklist.settings import WorklistSettings

worklist_app = typer.Typer(
    help="Who is screened when: add, list, cancel, explain, prune.", no_args_is_help=True, rich_markup_mode=None
)

_STEP = "ScheduledProcedureStepSequence"
_IN_STEP = frozenset(key.path.partition(".")[2] for key in KEYS if key.path.startswith(f"{_STEP}."))

Day = Annotated[str, typer.Option(help="A day, YYYYMMDD, or 'all'; today by default.")]


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
    read = worklist_file.read(file)
    with _worklist() as worklist:
        items = [
            worklist.schedule(
                each.item, action_id=each.action_id, content_hash=each.content_hash, now=datetime.now(UTC)
            )
            for each in read
        ]
    _print_items(items, as_json=as_json)


@worklist_app.command("list")
def worklist_list(date: Day = "", as_json: AsJson = False) -> None:
    """List the items of today, of another day or of all days.

    Example: gateway worklist list --date 20261122
    """
    day = _day(date)
    with _worklist() as worklist:
        items = worklist.items(date=day or None)
    _print_items(items, as_json=as_json)


@worklist_app.command("cancel")
def worklist_cancel(
    accession_number: Annotated[str, typer.Argument(help="Of the item.")], as_json: AsJson = False
) -> None:
    """Take an item off the worklist that has not begun. The cloud is not told; it may schedule it again.

    Example: gateway worklist cancel ACC0001
    """
    now = datetime.now(UTC)
    with _worklist() as worklist:
        item = worklist.cancel(accession_number, now=now, origin=ActionOrigin(asked_at=utc_text(now)))
    _print_items([item], as_json=as_json)


@worklist_app.command("explain")
def worklist_explain(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of the query, DICOM keywords.", show_default=False)
    ] = None,
    calling: Annotated[str, typer.Option("--from", metavar="AET", help="Who asks: its AE title.")] = "",
    item: Annotated[str, typer.Option(help="Only the item with this accession number.")] = "",
    date: Day = "",
    as_json: AsJson = False,
) -> None:
    """Say for each item of a day why a modality's query would or would not be answered with it.

    It asks the rules the worklist itself goes by: the query, and what is set for this AE title (WORKLIST_PEERS).

    Example: gateway worklist explain --from MAMMO_1 Modality=MG ScheduledProcedureStepStartDate=20261122
    """
    if not calling.strip():
        raise typer.BadParameter("Say who asks.", param_hint="--from")
    identifier, day = identifiers.from_data_set(query(keys or [])), "" if item else _day(date)
    ignored = matching.ignored_of(identifier.values, KEYS)
    visibility = load(WorklistSettings).visibility.for_peer(calling.strip(), now=datetime.now(UTC))
    if ignored and not as_json:
        console.print(f"Not matched here, and so of no effect: {', '.join(ignored)}.", soft_wrap=True)
    with _worklist() as worklist:
        facts = (
            _verdict(each, reasons)
            for each, reasons in worklist.explain(identifier.values, visibility)
            if item in ("", each.accession_number) and day in ("", each.date)
        )
        count = print_each(facts, as_json=as_json, line=_verdict_line)
    if not count and not as_json:
        console.print("No items.")


@worklist_app.command("prune")
def worklist_prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would leave, and why others stay.")] = False,
    days: Annotated[int | None, typer.Option(help="Days since its date, instead of WORKLIST_KEEP_DAYS.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Let items leave the worklist that are old enough, after a copy of the database was made.

    None leaves that is in progress, or of which the cloud has not confirmed everything. It happens every night by
    itself, unless WORKLIST_KEEP_DAYS is 0.

    Example: gateway worklist prune --days 7 --dry-run
    """
    keep_days = load(WorklistSettings).keep_days if days is None else days
    if not keep_days:
        raise typer.BadParameter("WORKLIST_KEEP_DAYS is 0, so say for how long.", param_hint="--days")
    now = datetime.now().astimezone()
    before = first_day_kept(now, keep_days)
    with _worklist() as worklist:
        outcomes = candidates(worklist, before=before) if dry_run else prune(worklist, before=before, now=now)
        print_each(map(_outcome, outcomes), as_json=as_json, line=_outcome_line)


def query(keys: Sequence[str]) -> Dataset:
    """The identifier of keys written KEYWORD=VALUE; those of a scheduled step go into its sequence.

    Raises InvalidValue.
    """
    identifier, step = Dataset(), Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    for key in keys:
        path, _, value = key.partition("=")
        keyword = path.removeprefix(f"{_STEP}.")
        if tag_for_keyword(keyword) is None:
            raise InvalidValue(f"{path!r} is not a DICOM keyword such as PatientName or Modality.")
        try:
            setattr(step if keyword in _IN_STEP or keyword != path else identifier, keyword, value or None)
        except (ValueError, TypeError):
            raise InvalidValue(f"{keyword} cannot have this value.") from None
    identifier.ScheduledProcedureStepSequence = [step]
    return identifier


def _worklist() -> AbstractContextManager[Worklist]:
    return databases.worklist(load(WorklistSettings))


def _day(date: str) -> str:
    """The day of an option, today by default; '' is all days."""
    return "" if date == "all" else date or f"{datetime.now().astimezone():%Y%m%d}"


def _print_items(items: Sequence[Item], *, as_json: bool) -> None:
    if as_json:
        print_json([_facts(item) for item in items])
        return
    table = Table("date", "time", "accession number", "modality", "state", title=None)
    for item in items:
        table.add_row(item.date, item.time, item.accession_number, item.modality, item.state)
    console.print(table if items else "No items.")


# Without names, birth dates and ids, because lists are seen over shoulders and piped into files.
def _facts(item: Item) -> dict[str, object]:
    return {
        "accession_number": item.accession_number,
        "date": item.date,
        "time": item.time,
        "modality": item.modality,
        "state": item.state,
        "study_instance_uid": item.study_instance_uid,
        "updated_at": item.updated_at,
    }


def _verdict(item: Item, reasons: Sequence[str]) -> dict[str, object]:
    return {
        "accession_number": item.accession_number,
        "date": item.date,
        "time": item.time,
        "answered": not reasons,
        "reasons": list(reasons),
    }


def _verdict_line(fact: dict[str, object]) -> str:
    reasons = fact["reasons"]
    said = (
        "answered." if fact["answered"] else f"not answered. {' '.join(reasons if isinstance(reasons, list) else ())}"
    )
    return f"{fact['accession_number']}, {fact['date']} {fact['time']}: {said}"


def _outcome(outcome: ExpiryOutcome) -> dict[str, object]:
    return {
        "accession_number": outcome.item.accession_number,
        "date": outcome.item.date,
        "state": outcome.item.state,
        "leaves": not outcome.kept_because,
        "kept_because": list(outcome.kept_because),
    }


def _outcome_line(fact: dict[str, object]) -> str:
    reasons = fact["kept_because"]
    said = "leaves" if fact["leaves"] else f"stays: {'; '.join(reasons if isinstance(reasons, list) else ())}"
    return f"{fact['accession_number']} of {fact['date']}, {fact['state']}, {said}"
