"""The commands about the way to the cloud: link check.

Not for: what is looked at; it is in `operations.checks.link_check`.
"""

import typer

from gateway import process
from gateway.hops import Hops
from gateway.settings import load
from operations.checks import link_check
from operations.cli.terminal import AsJson, print_hop, print_json
from relay.settings import RelaySettings

link_app = typer.Typer(help="The way to the cloud: check.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(link_app, name="link")


@link_app.callback()
def _link() -> None:
    """Keep `check` a command of its own, though it is the only one."""


@link_app.command("check")
def check(as_json: AsJson = False) -> None:
    """Walk the way to the cloud step by step and say in words which one fails; exit code 1 if one does.

    Name, address, proxy, port, certificate, clock, token, listener, echo. It changes nothing, and takes no message from
    the relay: that one may run or not.

    Example: gateway link check --json | jq '.[] | select(.state == "failed")'
    """
    hops = Hops() if as_json else Hops(ended=print_hop)
    link_check.check(load(RelaySettings), hops)
    if as_json:
        print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)
