"""`gateway` itself: all commands put together, how each one ends, and run, check and version, which have no family.

Not for: the rules behind a command; each lives in its own module.
"""

import sys
from typing import Annotated

import typer

from gateway import __version__, log, process
from gateway.errors import GatewayError, SettingsError
from gateway.hops import Hops
from operations.checks.site_check import check
from operations.cli import (
    archive,
    forward,
    modality,
    network,
    outbox,
    peers,
    refusals,
    site,
    status,
    tls,
    users,
    viewer,
    worklist,
)
from operations.cli.terminal import AsJson, console, print_hop, print_json
from operations.site_settings import SiteSettings

app = typer.Typer(
    help="A DICOM edge gateway between breast-screening modalities and the screening programme's cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help texts below are laid out as they are meant to be read
)


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


def run() -> None:
    """Run worklist, pacs and relay in the foreground, for containers and development.

    When one ends, all are stopped and the exit code is not 0. Ctrl-C or SIGTERM stops all.

    Example: GATEWAY_DATA_DIR=/tmp/gateway gateway run
    """
    settings = SiteSettings.load()
    log.configure(settings.relay.log_level, process="gateway")
    commands = {name: [sys.executable, "-m", name] for name in ("worklist", "pacs", "relay")}
    raise SystemExit(process.supervise(commands))


def check_command(
    local: Annotated[bool, typer.Option("--local", help="Leave the echo through the cloud out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove by traffic that the site works: one line per hop, exit code 1 if one failed.

    Example: gateway check --json | jq '.[] | select(.state == "failed")'
    """
    hops = Hops() if as_json else Hops(ended=print_hop)
    check(SiteSettings.load(), hops, with_cloud=not local)
    if as_json:
        print_json(hops.facts())
    raise SystemExit(process.EXIT_FAILED if hops.failed else process.EXIT_OK)


def version(as_json: AsJson = False) -> None:
    """Say which version this is.

    Example: gateway version
    """
    if as_json:
        print_json({"version": __version__})
    else:
        console.print(__version__)


# in the order in which `gateway --help` shows them
for _family in (tls, archive, forward, network, modality, outbox, peers, refusals, site, users, viewer, worklist):
    _family.register(app)
app.command()(run)
app.command("check")(check_command)
status.register(app)
app.command()(version)
