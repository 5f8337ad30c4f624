"""The commands about the network: echo, send, find call other DICOM applications; link check and tls check explain.

Not for: the calls and checks themselves (`operations.dicom_peers`, `operations.checks`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from gateway import process
from gateway.remote_ae import Peer
from gateway.settings import load
from gateway.tls import CallFiles
from operations import databases, dicom_peers
from operations.checks import link_check, tls_check, tls_handshake
from operations.cli.terminal import AsJson, Progress, console, print_each, print_json, printed_hops
from pacs.query_retrieve.retrieve import Sendable, SendOutcome
from pacs.settings import PacsSettings
from relay.settings import RelaySettings

link_app = typer.Typer(help="The way to the cloud: check.", no_args_is_help=True, rich_markup_mode=None)
tls_app = typer.Typer(help="TLS on the DICOM ports: check.", no_args_is_help=True, rich_markup_mode=None)

Target = Annotated[
    str, typer.Argument(metavar="PEER", help="AET@host:port, with /tls behind it for TLS, or one of PACS_PEERS.")
]
Calling = Annotated[str, typer.Option("--calling", metavar="AET", help="The title to call with instead of PACS_AET.")]


@link_app.callback()
def _link() -> None:
    """Keep `check` a command of its own, though it is the only one."""


@link_app.command("check")
def link_check_command(as_json: AsJson = False) -> None:
    """Walk the way to the cloud step by step and say in words which one fails; exit code 1 if one does.

    Name, address, proxy, port, certificate, clock, token, listener, echo. It changes nothing, and takes no message from
    the relay: that one may run or not.

    Example: gateway link check --json | jq '.[] | select(.state == "failed")'
    """
    settings = load(RelaySettings)
    with printed_hops(as_json=as_json) as hops:
        link_check.check(settings, hops)


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
    settings = load(PacsSettings)
    peer = next((each for each in settings.peers if each.ae_title == connect), None)
    if connect and peer is None and not (host and port.isdecimal()):
        raise typer.BadParameter("It has to be HOST:PORT or the AE title of one of PACS_PEERS.", param_hint="--connect")
    with printed_hops(as_json=as_json) as hops:
        tls_check.check_files(settings, hops, now=datetime.now(UTC))
        if peer is not None:
            tls_handshake.check_call(settings, hops, peer)
        elif connect:
            tls_handshake.check_peer(settings, hops, host=host.strip("[]"), port=int(port))


def echo(peer: Target, calling: Calling = "", as_json: AsJson = False) -> None:
    """Ask another DICOM application whether it is there and knows us (C-ECHO). Exit code 1 if not, with the reason.

    Example: gateway echo SITE_PACS@10.1.2.3:104
    """
    settings = load(PacsSettings)
    called, began = _peer(peer, settings), monotonic()
    dicom_peers.echo(called, ae_title=calling or settings.aet, tls=CallFiles.of(settings))
    seconds = round(monotonic() - began, 3)
    if as_json:
        print_json({"peer": called.ae_title, "host": called.host, "port": called.port, "seconds": seconds})
    else:
        console.print(f"{called} answers, {seconds * 1000:.0f} ms.", highlight=False, soft_wrap=True)


def send(
    peer: Target,
    paths: Annotated[list[Path] | None, typer.Argument(metavar="FILE", exists=True, help="Files or folders.")] = None,
    study: Annotated[str, typer.Option(metavar="UID", help="A study of the archive, by Study Instance UID.")] = "",
    calling: Calling = "",
    as_json: AsJson = False,
) -> None:
    """Send files, or a study of the archive, to another DICOM application (C-STORE). Exit code 1 if one was not taken.

    Objects go as they are; only for a peer that does not take that are they sent uncompressed.

    Example: gateway send SITE_PACS@10.1.2.3:104 --study 1.2.840.113619.2.1
    """
    if bool(paths) == bool(study):
        raise typer.BadParameter("Give files or folders, or --study, not both.")
    settings = load(PacsSettings)
    objects = _of_study(settings, study) if study else list(dicom_peers.files(paths or []))
    if not objects:
        raise dicom_peers.NotSendable("There is no file in these folders.")
    progress, failed = Progress("objects sent"), 0

    def facts() -> Iterator[dict[str, object]]:
        nonlocal failed
        called, title = _peer(peer, settings), calling or settings.aet
        for sent in dicom_peers.send(called, objects, ae_title=title, tls=CallFiles.of(settings)):
            progress.seen()
            failed += sent.outcome is SendOutcome.FAILED
            outcome = sent.outcome.name.lower()
            yield {"sop_instance_uid": sent.sop_instance_uid, "outcome": outcome, "reason": sent.reason}

    print_each(facts(), as_json=as_json, line=lambda fact: " ".join(map(str, fact.values())).strip())
    raise SystemExit(process.EXIT_FAILED if failed else process.EXIT_OK)


def find(
    peer: Target,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="DICOM keywords; KEY alone is shown.")
    ] = None,
    level: Annotated[str, typer.Option(help="STUDY, SERIES or IMAGE.")] = "STUDY",
    calling: Calling = "",
    as_json: AsJson = False,
) -> None:
    """Search another archive (C-FIND, Study Root), and print what was asked of each match.

    Nobody is named unless a key asks for it.

    Example: gateway find SITE_PACS@10.1.2.3:104 AccessionNumber=ACC0001 StudyDate=20261101-
    """
    settings = load(PacsSettings)
    called, title = _peer(peer, settings), calling or settings.aet
    found = dicom_peers.find(called, level.upper(), keys or [], ae_title=title, tls=CallFiles.of(settings))
    count = print_each(found, as_json=as_json, line=lambda fact: "  ".join(str(each) or "-" for each in fact.values()))
    if not count and not as_json:
        console.print("Nothing.")


def _peer(text: str, settings: PacsSettings) -> Peer:
    """The peer of an argument: one of PACS_PEERS by its AE title, or AET@host:port."""
    for known in settings.peers:
        if known.ae_title == text:
            return known
    try:
        return Peer.parse(text, "@")
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or as the AE title of one in PACS_PEERS.", param_hint="PEER") from error


def _of_study(settings: PacsSettings, study_instance_uid: str) -> list[Sendable]:
    with databases.archive(settings) as archive:
        return list(archive.locate(study_instance_uid))
