"""The commands that call another DICOM application: echo, send, find.

Not for: what they do; it is in `operations.dicom_peers`.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from gateway import process
from gateway.remote_ae import Peer
from gateway.settings import load
from gateway.tls import CallFiles
from operations import dicom_peers
from operations.cli.terminal import AsJson, Progress, console, print_each, print_json
from pacs import Archive
from pacs.query_retrieve.retrieve import Sendable, SendOutcome
from pacs.settings import PacsSettings

Target = Annotated[
    str, typer.Argument(metavar="PEER", help="AET@host:port, with /tls behind it for TLS, or one of PACS_PEERS.")
]
Calling = Annotated[str, typer.Option("--calling", metavar="AET", help="The title to call with instead of PACS_AET.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for name, command in (("echo", echo), ("send", send), ("find", find)):
        app.command(name)(command)


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
    """The application that is meant."""
    for known in settings.peers:
        if known.ae_title == text:
            return known
    try:
        return Peer.parse(text, "@")
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or as the AE title of one in PACS_PEERS.", param_hint="PEER") from error


def _of_study(settings: PacsSettings, study_instance_uid: str) -> list[Sendable]:
    with closing(Archive.attach(settings.db_path, settings.storage_path)) as archive:
        return list(archive.locate(study_instance_uid))
