"""How fast a modality gets its worklist, beside DCMTK and Orthanc: `tests/benchmarks/find [--repetitions N]`.

All servers run at once, each on a worklist of its own size, and are asked in turn over one association each, by one and
the same client: `tests.tools.raw_find`, which sends prepared bytes and counts what comes without looking into it. A
query has 21 return keys, as modalities ask for them. Three questions: the list of one day, the same again and again as
machines do (50 answers); the list of another day each time; and one participant by Patient ID.

The gateway answers as on a site: a process of its own, a log line for each query. wlmscpfs and Orthanc are tuned
(TCP_NODELAY=1); wlmscpfs serves each association in a process, as shipped. A server that is not installed is left out.
Ratios are medians of the paired values of each repetition.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from simulator.site import free_port
from tests.tools.dcmtk import is_open
from tests.tools.raw_find import RawFinder, element, item
from tests.worklist.crowd import A_DAY, day, fill, scheduled, template

OURS = "gateway"


@dataclass(frozen=True)
class Server:
    """A worklist of a size, and who serves it."""

    program: str
    size: int


def write_files(folder: Path, size: int) -> None:
    """The same as worklist files (PS3.10), in a folder that wlmscpfs takes for the AE title."""
    folder.mkdir(parents=True)
    (folder / "lockfile").touch()
    model = template()
    for number in range(size):
        data_set = Dataset.from_json(scheduled(number, model).with_study(generate_uid()).data_set)
        data_set.ScheduledProcedureStepSequence[0].ScheduledStationAETitle = "MAMMO1"
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
        data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data_set.save_as(folder / f"{number:06d}.wl", enforce_file_format=True)


@contextmanager
def serving(server: Server, folder: Path) -> Iterator[int]:
    """Run a server on its worklist; gives its port."""
    port = free_port()
    command, environment = _command(server, port, folder)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not is_open(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.program} does not listen: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _command(server: Server, port: int, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    if server.program == OURS:
        fill(folder / "worklist.db", server.size)
        settings = {"GATEWAY_DATA_DIR": str(folder), "WORKLIST_PORT": str(port), "WORKLIST_HOST": "127.0.0.1"}
        settings["WORKLIST_KEEP_DAYS"] = "0"  # its days are of years ago
        return [sys.executable, "-m", "worklist"], settings
    write_files(folder / "SCREENING_MWL", server.size)
    if server.program == "wlmscpfs":
        return ["wlmscpfs", "-csk", "-dfp", str(folder), str(port)], {"TCP_NODELAY": "1"}
    configuration = {
        "DicomAet": "SCREENING_MWL",
        "DicomPort": port,
        "HttpServerEnabled": False,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAlwaysAllowFindWorklist": True,
        "Plugins": [str(_worklist_plugin())],
        "Worklists": {"Enable": True, "Database": str(folder / "SCREENING_MWL"), "FilterIssuerAet": False},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    return ["Orthanc", str(folder / "orthanc.json")], {"TCP_NODELAY": "1"}


def _worklist_plugin() -> Path | None:
    return next((path for path in Path("/usr").glob("*/orthanc/**/libModalityWorklists.so*")), None)


def query(*, date: str = "", patient_id: str = "") -> bytes:
    """What a modality asks, in Explicit VR Little Endian."""
    step = item(
        element(0x00080060, "CS", b"MG"),
        element(0x00400001, "AE", b""),
        element(0x00400002, "DA", date.encode()),
        element(0x00400003, "TM", b""),
        element(0x00400006, "PN", b""),
        element(0x00400007, "LO", b""),
        element(0x00400009, "SH", b""),
        element(0x00400010, "SH", b""),
        element(0x00400011, "SH", b""),
    )
    return b"".join(
        [
            element(0x00080005, "CS", b"ISO_IR 192"),
            element(0x00080050, "SH", b""),
            element(0x00080090, "PN", b""),
            element(0x00100010, "PN", b""),
            element(0x00100020, "LO", patient_id.encode()),
            element(0x00100030, "DA", b""),
            element(0x00100040, "CS", b""),
            element(0x00102000, "LO", b""),
            element(0x0020000D, "UI", b""),
            element(0x00321060, "LO", b""),
            element(0x00380010, "LO", b""),
            element(0x00400100, "SQ", step),
            element(0x00401001, "SH", b""),
        ]
    )


QUESTIONS: Mapping[str, tuple[int, Callable[[Random, int], bytes]]] = {
    "the same day, 50 answers": (A_DAY, lambda _random, size: query(date=day(size // A_DAY // 2))),
    "another day, 50 answers": (A_DAY, lambda random, size: query(date=day(random.randrange(size // A_DAY)))),
    "one participant, 1 answer": (1, lambda random, size: query(patient_id=f"{random.randrange(size):010d}")),
}


@dataclass
class Times:
    """Seconds of every query of one question to one server, by repetition."""

    repetitions: list[list[float]] = field(default_factory=list)

    def medians(self) -> list[float]:
        return [statistics.median(times) for times in self.repetitions]

    def row(self) -> str:
        every = sorted(time for times in self.repetitions for time in times)
        p50, p99 = statistics.median(every) * 1e3, every[int(len(every) * 0.99)] * 1e3
        return f"{p50:.2f} | {p99:.2f} | {len(every) / sum(every):.0f}"


def measured(finder: RawFinder, question: str, size: int, *, queries: int, random: Random) -> list[float]:
    """Ask so many times; seconds of each."""
    expected, make = QUESTIONS[question]
    times = []
    for _ in range(queries):
        identifier = make(random, size)
        started = time.perf_counter()
        count = finder.count(identifier)
        times.append(time.perf_counter() - started)
        assert count == expected, f"{count} answers where {expected} are expected"
    return times


def compare(servers: list[Server], *, repetitions: int, queries: int) -> None:
    """Let the servers take turns, and print a table for each question."""
    times = {(server, question): Times() for server in servers for question in QUESTIONS}
    with tempfile.TemporaryDirectory(prefix="find-") as name, ExitStack() as stack:  # servers end before their folder
        finders = {}
        for server in servers:
            folder = Path(name) / f"{server.program}-{server.size}"
            folder.mkdir()
            started = time.perf_counter()
            port = stack.enter_context(serving(server, folder))
            finders[server] = stack.enter_context(RawFinder(port, ExplicitVRLittleEndian))
            print(
                f"{server.program} serves {server.size} items after {time.perf_counter() - started:.0f} s", flush=True
            )
        random = Random(1)
        for question in QUESTIONS:
            for server, finder in finders.items():
                measured(finder, question, server.size, queries=3, random=random)
        for _ in range(repetitions):
            for question in QUESTIONS:
                for server, finder in finders.items():
                    seconds = measured(finder, question, server.size, queries=queries, random=random)
                    times[server, question].repetitions.append(seconds)
    for question in QUESTIONS:
        _print(question, {server: times[server, question] for server in servers})


def _print(question: str, times: Mapping[Server, Times]) -> None:
    largest = max((server for server in times if server.program == OURS), key=lambda server: server.size)
    print(f"\n{question}; ms\n\n| server | items | p50 | p99 | queries/s | gateway at {largest.size} is faster by |")
    print("|---|---|---|---|---|---|")
    ours = times[largest].medians()
    for server, measured_times in times.items():
        pairs = zip(measured_times.medians(), ours, strict=True)
        faster = statistics.median(theirs / mine for theirs, mine in pairs)
        print(f"| {server.program} | {server.size} | {measured_times.row()} | {faster:.2f} x |")


def main() -> None:
    """Measure every server that is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="rounds in which every server takes its turn (5)")
    parser.add_argument("--queries", type=int, default=40, help="queries of each kind in a round (40)")
    parser.add_argument(
        "--sizes", default="200,2000,100000", help="items of the gateway's worklists; peers stop at 2000"
    )
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    peers = [program for program in ("wlmscpfs", "Orthanc") if shutil.which(program)]
    if "Orthanc" in peers and _worklist_plugin() is None:
        peers.remove("Orthanc")
    servers = [Server(OURS, size) for size in sizes]
    servers += [Server(program, size) for program in peers for size in sizes if size <= 2000]
    compare(servers, repetitions=arguments.repetitions, queries=arguments.queries)


if __name__ == "__main__":
    main()
