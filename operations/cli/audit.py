"""`gateway audit`: verify and list the audit trail.

Not for: the trail (`gateway.audit.trail`).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import Annotated
from xml.etree.ElementTree import ParseError, fromstring

import typer

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent
from gateway.audit.trail import Head, Trail, TrailFinding, TrailLine, lines, trails, verified
from gateway.process import EXIT_FAILED, EXIT_OK
from gateway.settings import load
from operations.cli.terminal import AsJson, caller, console, print_each, print_json
from relay.settings import RelaySettings

audit_app = typer.Typer(help="The audit trail (PS3.15 A.5): verify, list.", no_args_is_help=True, rich_markup_mode=None)

RELAY = "relay"
"""The chain in the trail's folder itself; the others have folders below it."""


@audit_app.command("verify")
def audit_verify(
    expect: Annotated[
        str,
        typer.Option(
            metavar="[CHAIN:]NUMBER:HASH",
            help="A line noted elsewhere, such as 'audit trail is at' in the journal; the relay's if none is named.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Read all chains of the audit trail and say which lines were changed, removed or put in; exit code 1 if any were.

    It also says where the trail was put back from a backup: what was written between the two is not in it.

    Example: gateway audit verify --expect pacs:1042:5f1c...
    """
    chain, head = _expected(expect)
    verdicts = [_verdict(name, trail, head if name == chain else None) for name, trail in _chains(besides=chain)]
    findings = [each for verdict in verdicts for each in verdict.findings]
    if as_json:
        print_json(_json(verdicts))
    else:
        for verdict in verdicts:
            _print_verdict(verdict)
    raise SystemExit(EXIT_FAILED if findings else EXIT_OK)


@audit_app.command("list")
def audit_list(
    begin: Annotated[int, typer.Option("--from", metavar="NUMBER", help="The first message of a chain to show.")] = 1,
    chain: Annotated[str, typer.Option(help="relay, worklist or pacs alone; all of them if none is named.")] = "",
    limit: Annotated[int, typer.Option(help="How many, at most.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List what is in the audit trail, in the order of time: when, what, who, from where, on what.

    It names patients by their ids. Each service numbers its own messages.

    Example: gateway audit list --chain pacs --from 1000 --json
    """
    settings = load(RelaySettings)
    trail, event = Trail(settings.audit_path), AuditEvent(datetime.now(UTC), settings.site)
    # Reading the trail is an event of its own (PS3.15 A.5.3.2, Audit Log Used).
    trail.append([messages.log_used(event, Actor(caller()), trail.folder.resolve().as_uri())])
    chosen = [_listed(name, each, begin) for name, each in _chains() if chain in ("", name)]
    if not chosen:
        raise typer.BadParameter("There is no chain of this name.", param_hint="--chain")
    found = merge(*chosen, key=lambda fact: str(fact["at"]))
    print_each(islice(found, limit), as_json=as_json, line=lambda fact: "  ".join(map(str, fact.values())))


def _chains(*, besides: str = "") -> list[tuple[str, Trail]]:
    """Every chain with the name of its process, and `besides`, which should exist; commands write to the relay's."""
    top, *below = trails(load(RelaySettings).audit_path)
    chains = {RELAY: top, **{each.folder.name: each for each in below}}
    if besides:
        chains.setdefault(besides, Trail.chain(top.folder, besides))
    return list(chains.items())


def _listed(name: str, trail: Trail, begin: int) -> Iterator[dict[str, object]]:
    return ({"chain": name, **_facts(line)} for line in lines(trail) if line.number >= begin)


@dataclass(frozen=True)
class _Verdict:
    """The result for one chain; `restored` are its messages of a restore."""

    name: str
    head: Head
    findings: list[TrailFinding]
    restored: list[tuple[int, str]]


def _verdict(name: str, trail: Trail, expected: Head | None) -> _Verdict:
    below = "" if name == RELAY else f"{name}/"
    findings = [replace(each, file=f"{below}{each.file}") for each in verified(trail, expected=expected)]
    restored = [(line.number, said) for line in lines(trail) if (said := messages.restored_text(line.message))]
    return _Verdict(name, trail.head(), findings, restored)


def _print_verdict(verdict: _Verdict) -> None:
    for each in verdict.findings:
        console.print(_finding(each), highlight=False, markup=False, soft_wrap=True, style="red")
    for number, text in verdict.restored:
        console.print(f"restored  message {number}  {text}", highlight=False, markup=False, soft_wrap=True)
    well = "well, but not whole" if verdict.restored else "well"
    said = f"{len(verdict.findings)} findings" if verdict.findings else well
    head = f"{verdict.head.number}:{verdict.head.hash}"
    console.print(f"{verdict.name}: {said}; it is at {head}", highlight=False, soft_wrap=True)


def _json(verdicts: list[_Verdict]) -> dict[str, object]:
    return {
        "chains": [
            {
                "chain": each.name,
                "number": each.head.number,
                "hash": each.head.hash,
                "findings": [asdict(found) for found in each.findings],
                "restored": [{"number": number, "text": text} for number, text in each.restored],
            }
            for each in verdicts
        ]
    }


def _expected(text: str) -> tuple[str, Head | None]:
    """The chain and its line."""
    if not text:
        return "", None
    chain, number, digest = ["", "", *text.split(":")][-3:]
    if not (number.isdecimal() and len(digest) == 64):
        raise typer.BadParameter("It has to be NUMBER:HASH or CHAIN:NUMBER:HASH.", param_hint="--expect")
    return chain or RELAY, Head(int(number), digest)


def _finding(found: TrailFinding) -> str:
    return f"{found.code:9} {found.file}:{found.line}  {found.text}"


def _facts(line: TrailLine) -> dict[str, object]:
    """The shown fields of a message."""
    try:
        root = fromstring(line.message)  # noqa: S314 - our own file; what may stand in it, `audit_messages` escaped
    except ParseError:
        return {"number": line.number, "at": "", "event": "This message cannot be read; see 'gateway audit verify'."}
    found = root.find("EventIdentification")
    who = next((each for each in root.iter("ActiveParticipant") if each.get("UserIsRequestor") == "true"), None)
    return {
        "number": line.number,
        "at": "" if found is None else found.get("EventDateTime", ""),
        "event": " / ".join(
            each.get("originalText", "") for each in root.iter() if each.tag in {"EventID", "EventTypeCode"}
        ),
        "outcome": "" if found is None else found.get("EventOutcomeIndicator", ""),
        "user": "" if who is None else who.get("UserID", ""),
        "address": "" if who is None else who.get("NetworkAccessPointID", ""),
        "objects": [each.get("ParticipantObjectID", "") for each in root.iter("ParticipantObjectIdentification")],
    }
