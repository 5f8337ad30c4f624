"""`gateway modality`: a mammography machine that performs an exam, simple or by script, or misbehaves.

Not for: the exam (`simulator.modality.script`), the misbehaviours (`simulator.modality.misbehaviour`).
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway import process
from gateway.hops import HopFailed, Hops
from gateway.tls import client_context
from operations.cli.terminal import AsJson, print_hop, print_json
from operations.site_settings import SiteSettings
from simulator.exam.exam import SCREENING_VIEWS, VIEWS
from simulator.modality import misbehaviour
from simulator.modality.misbehaviour_kit import Proof
from simulator.modality.plan import plan
from simulator.modality.raw_association import Dialer
from simulator.modality.script import Begin, Commit, End, Expose, Query, Script, read
from simulator.modality.scripted_machine import Machine


def modality(
    accession_number: Annotated[
        str, typer.Argument(help="The item to perform; the first scheduled one by default.")
    ] = "",
    *,
    views: Annotated[str, typer.Option(help=f"Of {', '.join(VIEWS)}.")] = ",".join(SCREENING_VIEWS),
    script: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="An exam to follow; see below.")
    ] = None,
    misbehave: Annotated[
        str, typer.Option(metavar="NAMES", help=f"'all', or of {', '.join(misbehaviour.TABLE)}.")
    ] = "",
    ae_title: Annotated[str, typer.Option(help="The title to call with.")] = "",
    as_json: AsJson = False,
) -> None:
    """Be a mammography machine: ask for the worklist, report the step, store synthetic views, have them committed.

    The images are synthetic and say so, but they are stored and told to the cloud like any other. Exit code 1 if
    something was not answered as it has to be.

    With --script the machine follows a file (docs/exams), of the item if one is given and the file names none. With
    --misbehave it does what no machine should, a line for each with the answer that is expected and the one seen.

    Example: gateway modality ACC0001 --views RCC,LCC

    \b
    gateway modality --script implants.json, with implants.json holding
    {"machine": {"transfer_syntax": "jpeg-lossless", "associations": "one"},
     "acts": [{"do": "query", "keys": {"AccessionNumber": "ACC0001"}},
              {"do": "begin"},
              {"do": "expose", "implant": true},
              {"do": "expose", "implant": true, "modifiers": ["implant displaced"]},
              {"do": "end"},
              {"do": "commit"}]}

    \b
    gateway modality --misbehave all
    """
    hops = Hops() if as_json else Hops(ended=print_hop)
    try:
        if misbehave:
            _misbehave(_named(misbehave), accession_number, ae_title, hops)
        else:
            exam = _for_item(read(script), accession_number) if script else _simple(accession_number, _views(views))
            _examine(exam, ae_title, hops)
    except HopFailed as failed:
        raise SystemExit(process.EXIT_FAILED) from failed
    finally:
        if as_json and hops.seen:
            print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)


def _examine(script: Script, ae_title: str, hops: Hops) -> None:
    planned, settings = plan(script), SiteSettings.load()
    worklist, pacs = settings.peers
    caller = _caller(settings, ae_title or script.machine.ae_title)
    Machine(script.machine, caller, worklist=worklist, pacs=pacs, clock=_wall_time).run(planned, hops)


def _misbehave(names: Sequence[str], accession_number: str, ae_title: str, hops: Hops) -> None:
    settings = SiteSettings.load()
    worklist, pacs = settings.peers
    proof = Proof(_caller(settings, ae_title), worklist=worklist, pacs=pacs, now=_wall_time())
    if accession_number:
        proof.belong_to(accession_number)
    for name in names:
        misbehaviour.show(misbehaviour.TABLE[name], proof, hops)


def _for_item(script: Script, accession_number: str) -> Script:
    """The same exam of one item; a script that has an accession number keeps its own."""
    if not accession_number:
        return script
    keys = {"AccessionNumber": accession_number}
    acts = [act.model_copy(update={"keys": keys | act.keys}) if isinstance(act, Query) else act for act in script.acts]
    return script.model_copy(update={"acts": acts})


def _simple(accession_number: str, views: list[str]) -> Script:
    """The usual exam, without oddities."""
    return Script(
        acts=[
            Query(do="query", keys={"AccessionNumber": accession_number}),
            Begin(do="begin"),
            Expose(do="expose", views=views),
            End(do="end"),
            Commit(do="commit"),
        ]
    )


def _views(text: str) -> list[str]:
    wanted = [view.strip().upper() for view in text.split(",")]
    if unknown := [view for view in wanted if view not in VIEWS]:
        raise typer.BadParameter(f"{', '.join(unknown)} is not one of {', '.join(VIEWS)}.", param_hint="--views")
    return wanted


def _named(text: str) -> list[str]:
    if text == "all":
        return list(misbehaviour.TABLE)
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in misbehaviour.TABLE]:
        known = ", ".join(misbehaviour.TABLE)
        raise typer.BadParameter(f"{', '.join(unknown)} is not one of {known}.", param_hint="--misbehave")
    return names


def _caller(settings: SiteSettings, ae_title: str) -> Dialer:
    return Dialer(ae_title or settings.calling_ae_title, tls=client_context(settings.worklist))


def _wall_time() -> datetime:
    return datetime.now().astimezone()
