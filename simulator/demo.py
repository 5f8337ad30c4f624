"""Show the whole product on one machine: start everything, take one exam through, report each hop.

    ./scripts/demo           and keep running until Ctrl-C, to look around
    ./scripts/demo --once    and stop; exit code 0 only if every hop was observed

Not for: proving a real site (that is `gateway check`), and not for patients: everything in it is synthetic.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.status import Status

from gateway import log
from gateway.hops import Hop, HopFailed, Hops
from gateway.process import run
from relay.pages import viewer
from simulator.journey import Journey
from simulator.site import Site

HOPS = 22
"""How many hops the exam has, for the display of progress."""

VIEWER = Path("data") / "viewer"
"""Where `gateway viewer install` puts the viewer in a checkout."""


def main() -> None:
    """Run the demonstration. Ends with exit code 1 and names the hop when one failed."""
    once = _arguments().once
    log.configure("WARNING", process="demo")
    # SIGTERM raises KeyboardInterrupt like Ctrl-C, because both have to leave through `Site`, which ends the processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    # An absolute path, because each demonstration has a data folder of its own and the viewer is installed once.
    settings = {"RELAY_VIEWER_PATH": str(VIEWER.resolve())}
    with _folder(keep=not once) as folder, Site(folder, settings=settings) as site:
        _show(site, console)
        if not once:
            with suppress(KeyboardInterrupt):  # the intended end
                _invite(site, console)
                site.attend()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description="One whole exam through a whole gateway.")
    parser.add_argument("--once", action="store_true", help="stop afterwards; exit 0 only if every hop was observed")
    return parser.parse_args()


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="screening-gateway-demo-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder)


def _show(site: Site, console: Console) -> None:
    with console.status("") as status:
        hops = _display(console, status)
        try:
            _start(site, hops)
            journey = Journey(site.modality(), site.control, site.url, hops, site.ports["modality"])
            journey.run(now=datetime.now().astimezone())
        except HopFailed as failure:
            _explain(site, console, failure.hop)
            raise SystemExit(1) from failure
    title = f"One exam, {len(hops.seen)} hops, {sum(hop.seconds for hop in hops.seen):.1f} s, everything observed."
    console.print(hops.table(title) if console.is_terminal else title)


def _display(console: Console, status: Status) -> Hops:
    hops = Hops()
    hops.began = lambda name: status.update(f"[{len(hops.seen) + 1:2}/{HOPS}] {name}")
    if not console.is_terminal:  # nothing moves in a log file: the table grows line by line
        hops.ended = lambda hop: console.print(hop.line, highlight=False, soft_wrap=True)
    return hops


def _start(site: Site, hops: Hops) -> None:
    with hops.watch("stand-in cloud starts") as note:
        site.start_cloud()
        note.detail = "It offers two hybrid connections and the HTTPS API."
    for name in ("worklist", "pacs", "relay"):
        with hops.watch(f"{name} starts") as note:
            site.start(name)
            note.detail = f"It listens on port {site.ports[name]}."


def _explain(site: Site, console: Console, hop: Hop) -> None:
    console.print(f"\nFailed at the hop '{hop.name}': {hop.detail}", style="red", highlight=False, soft_wrap=True)
    for name in ("worklist", "pacs", "relay", "simulator.cloud"):
        if lines := site.log(name).splitlines()[-5:]:
            console.print(
                f"\nThe last lines of {name}:", *lines, sep="\n", highlight=False, markup=False, soft_wrap=True
            )


def _invite(site: Site, console: Console) -> None:
    console.print(f"""
Look around:
  pages              {site.url}/
  viewer             {_viewer(site)}
  DICOMweb           {site.url}/dicom-web/studies
  health             {site.url}/healthz
  cloud's events     {site.control.url}/events
Send an image yourself:
  storescu -aec SCREENING_PACS 127.0.0.1 {site.ports["pacs"]} FILE.dcm
Ask the worklist:
  findscu -W -aec SCREENING_MWL -k PatientName -k "(0040,0100)[0].Modality" 127.0.0.1 {site.ports["worklist"]}

Data and logs stay in {site.folder}. Ctrl-C ends everything.""", highlight=False, soft_wrap=True)  # fmt: skip


def _viewer(site: Site) -> str:
    if not viewer.is_installed(VIEWER):
        return "added by 'gateway viewer install', if you like"
    with urllib.request.urlopen(f"{site.url}/dicom-web/studies?limit=1", timeout=30) as answer:  # noqa: S310 - our own
        [study] = json.load(answer)
    return site.url + viewer.link(study["0020000D"]["Value"][0])


if __name__ == "__main__":
    sys.exit(run(main))
