"""`gateway refusals`: recent refusals to machines and to the cloud, with reason and remedy.

Not for: recording them (`gateway.refusals.log`).
"""

from dataclasses import asdict
from typing import Annotated

import typer

from gateway.refusals import FILE_NAME
from gateway.refusals.log import MOST_ROWS, Lost, Seen, recent
from gateway.refusals.remedies import remedy
from gateway.settings import GatewaySettings, load
from operations.cli.terminal import AsJson, console, print_json


def refusals(
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1, max=MOST_ROWS)] = 20,
    as_json: AsJson = False,
) -> None:
    """List what was refused in the last 30 days: who, what, why, how often, and what to do. The newest comes first.

    Example: gateway refusals --json | jq '.refusals[] | select(.ae_title == "MAMMO_1")'
    """
    seen, lost = recent(load(GatewaySettings).data_dir / FILE_NAME, limit)
    if as_json:
        print_json({"refusals": [{**asdict(each), "remedy": remedy(each.kind)} for each in seen], "lost": asdict(lost)})
        return
    for line in _lines(seen, lost):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _lines(seen: list[Seen], lost: Lost) -> list[str]:
    if not seen and not lost.count:
        return ["Nothing was refused in the last 30 days."]
    lines = [line for each in seen for line in _described(each)]
    if lost.count:
        lines.append(f"{lost.count} more could not be written down, the last of them {lost.last_at}.")
    return lines


def _described(each: Seen) -> list[str]:
    refused = " at ".join(filter(None, (each.ae_title, each.address))) or "the cloud"
    often = f" {each.count} times since {each.first_at}" if each.count > 1 else ""
    what = " ".join(filter(None, (each.service, each.status)))
    about = f" ({each.about})" if each.about and each.about not in each.sentence else ""
    return [
        f"{each.last_at} {each.process} refused {refused}{often}: {what}",
        f"    {each.sentence}{about}",
        f"    {remedy(each.kind)}",
    ]
