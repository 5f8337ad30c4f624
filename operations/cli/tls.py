"""The commands about TLS on the DICOM ports: tls check.

Not for: what is looked at; it is in `operations.checks.tls_check`.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway import process
from gateway.hops import Hops
from gateway.settings import load
from operations.checks import tls_check
from operations.cli.terminal import AsJson, print_hop, print_json
from pacs.settings import PacsSettings

tls_app = typer.Typer(help="TLS on the DICOM ports: check.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(tls_app, name="tls")


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
