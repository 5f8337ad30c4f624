"""`gateway mpps`: performed procedure steps in progress: list, close. Participants are not named.

Not for: rules; they are in `worklist.mpps`.
"""

from datetime import datetime
from typing import Annotated

import typer

from gateway.settings import load
from gateway.sign_off import require_decider
from operations import databases
from operations.cli.terminal import AsJson, console, print_each, print_json
from worklist.mpps import Step
from worklist.settings import WorklistSettings

mpps_app = typer.Typer(help="Performed procedure steps: list, close.", no_args_is_help=True, rich_markup_mode=None)


@mpps_app.command("list")
def mpps_list(as_json: AsJson = False) -> None:
    """List the performed steps that are in progress, the oldest first: one of yesterday is stuck.

    Example: gateway mpps list --json | jq '.[] | select(.begun_at < "2026-11-22")'
    """
    with databases.worklist(load(WorklistSettings)) as worklist:
        facts = [_step_facts(step, begun_at) for step, begun_at in worklist.open_steps()]
    print_each(facts, as_json=as_json, line=_step_line)
    if not facts and not as_json:
        console.print("No step is in progress.")


@mpps_app.command("close")
def mpps_close(
    mpps_instance_uid: Annotated[str, typer.Argument(metavar="UID", help="Of the step in `gateway mpps list`.")],
    by: Annotated[str, typer.Option("--by", help="Who decides so.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; no participant's name.")] = "",
    as_json: AsJson = False,
) -> None:
    """End a step whose machine will not, for instance because it broke: it becomes DISCONTINUED.

    The cloud is told by whom and why. What the machine says about this step afterwards is refused, as the standard has
    it; for a new attempt it begins a new step.

    Example: gateway mpps close 1.2.840.1 --by "J. Smith" --reason "tube failed, machine switched off"
    """
    decider = require_decider(by)
    if not reason.strip():
        raise typer.BadParameter("The cloud has to be told why.", param_hint="--reason")
    now = datetime.now().astimezone()
    with databases.worklist(load(WorklistSettings)) as worklist:
        step = worklist.close_step(mpps_instance_uid, by=decider, because=reason.strip(), now=now)
    fact = _step_facts(step, "")
    if as_json:
        print_json(fact)
    else:
        console.print(_step_line(fact), highlight=False, markup=False, soft_wrap=True)


def _step_facts(step: Step, begun_at: str) -> dict[str, object]:
    return {
        "mpps_instance_uid": step.mpps_instance_uid,
        "accession_numbers": [each.accession_number for each in step.scheduled if each.accession_number],
        "status": step.status,
        "begun_at": begun_at or step.started_at,
        "instances": sum(len(series.sop_instance_uids) for series in step.performed_series),
        "closed_by": step.closed_by,
        "closed_because": step.closed_because,
    }


def _step_line(fact: dict[str, object]) -> str:
    numbers = fact["accession_numbers"]
    of = ", ".join(numbers if isinstance(numbers, list) else ()) or "no item"
    closed = f", closed by {fact['closed_by']}: {fact['closed_because']}" if fact["closed_by"] else ""
    return (
        f"{fact['mpps_instance_uid']} of {of}, {fact['status']}, begun {fact['begun_at']},"
        f" {fact['instances']} instances reported{closed}"
    )
