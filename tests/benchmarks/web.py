"""How fast DICOMweb answers, beside Orthanc's plugin and a bare sendfile server: `tests/benchmarks/web`.

This gateway has a million instances in its index, Orthanc 5,000 (`--instances`, `--peer-instances`), both the same
exams, and the same mammograms of 17 MB in full. Every server runs as a process of its own. In each repetition they take
turns; a turn is a number of requests one after the other over one connection, each about something else. The table
has the median time of a request, the processor time the server and its children took for it, and the median of the
paired ratios. Pictures differ in their window from request to request, so that nobody's cache helps; one line is the
same picture again. A server that is not installed is left out.
"""

import argparse
import http.client
import json
import logging
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import structlog
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive.receiving import ObjectOrigin
from simulator.exam import phantom
from simulator.site import free_port
from tests.benchmarks.scale import FIRST_DAY, VIEWS, Exam, grow, opened
from tests.relay.served import NOW, data_set_offset
from worklist import Worklist

TICKS = os.sysconf("SC_CLK_TCK")
PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/local/share/orthanc/plugins"))
STUDIES = 3
"""Studies of four mammograms in full."""

OURS = "gateway"


@dataclass(frozen=True)
class Site:
    """A server that runs, and how many exams it knows."""

    name: str
    port: int
    pid: int
    exams: int
    is_dicomweb: bool = True


@dataclass(frozen=True)
class Case:
    """A kind of request: what is asked, in which form, how often in a turn, and of whom."""

    title: str
    path: Callable[[Site, Random], str]
    accept: str = "application/dicom+json"
    requests: int = 40
    with_bare: bool = False
    unit: str = "ms"


@dataclass(frozen=True)
class Turn:
    """What a turn took: seconds of each request, processor seconds and bytes of all."""

    seconds: list[float]
    cpu: float
    size: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


# --- what is asked


def _exam(site: Site, chance: Random) -> Exam:
    return Exam(chance.randrange(site.exams))


def _week(site: Site, chance: Random) -> str:
    last_day = (Exam(site.exams - 1).day - FIRST_DAY).days
    first = Exam(40 * chance.randrange(max(last_day - 6, 1))).day
    return f"{first:%Y%m%d}-{first.fromordinal(first.toordinal() + 6):%Y%m%d}"


def _large(chance: Random) -> tuple[str, str, str]:
    """Study, series and instance of one of the mammograms in full."""
    study, view = chance.randrange(STUDIES), chance.randrange(len(VIEWS))
    return f"2.25.9{study}", f"2.25.9{study}.1", f"2.25.9{study}.1.{view + 1}"


def _instance(site: Site, chance: Random) -> str:
    study, series, instance = _large(chance)
    if not site.is_dicomweb:
        return f"/{instance}.dcm"
    return f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"


CASES = (
    Case("studies by PatientID", lambda s, c: f"/dicom-web/studies?PatientID={_exam(s, c).patient_id}"),
    Case(
        "studies of a week, first 25", lambda s, c: f"/dicom-web/studies?StudyDate={_week(s, c)}&limit=25", requests=10
    ),
    Case("series of a study", lambda s, c: f"/dicom-web/studies/{_exam(s, c).study_instance_uid}/series"),
    Case("metadata of a study of four", lambda s, c: f"/dicom-web/studies/{_large(c)[0]}/metadata", requests=10),
    Case(
        "an instance of 17 MB",
        _instance,
        'multipart/related; type="application/dicom"; transfer-syntax=*',
        12,
        with_bare=True,
        unit="MB/s",
    ),
    Case(
        "a frame of 17 MB",
        lambda s, c: f"{_instance(s, c)}/frames/1",
        'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        12,
        unit="MB/s",
    ),
    Case(
        "a rendered view of 3328 x 2560",
        lambda s, c: f"{_instance(s, c)}/rendered?window=2048,{c.randrange(1000, 4000)},linear",
        "image/jpeg",
        6,
    ),
    Case("the same rendered view again", lambda s, _: f"{_instance(s, Random(1))}/rendered", "image/jpeg", 6),
    Case("a thumbnail", lambda s, c: f"{_instance(s, c)}/rendered?viewport=256,256", "image/jpeg", 6),
)


# --- servers


@contextmanager
def gateway_site(folder: Path, exams: int) -> Iterator[Site]:
    """The relay as a site runs it, on databases and files that are there."""
    Worklist.open(folder / "worklist.db").close()
    port = free_port()
    settings = {"GATEWAY_DATA_DIR": str(folder), "RELAY_HTTP_PORT": str(port), "LOG_LEVEL": "ERROR"}
    with _process([sys.executable, "-m", "relay"], port, settings) as pid:
        yield Site(OURS, port, pid, exams)


@contextmanager
def orthanc_site(folder: Path, plugin: Path) -> Iterator[Site]:
    """Orthanc with its DICOMweb plugin, empty."""
    port, folder = free_port(), folder / "orthanc"
    folder.mkdir()
    configuration = {
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(plugin)],
        "TcpNoDelay": True,
        "KeepAlive": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with _process(["Orthanc", str(folder / "orthanc.json")], port, {}) as pid:
        yield Site("Orthanc", port, pid, 0)


@contextmanager
def bare_site(folder: Path) -> Iterator[Site]:
    """The server that only sends files."""
    port = free_port()
    with _process([sys.executable, "-m", "tests.benchmarks.bare", str(port), str(folder)], port, {}) as pid:
        yield Site("bare sendfile", port, pid, 0, is_dicomweb=False)


@contextmanager
def _process(command: list[str], port: int, settings: Mapping[str, str]) -> Iterator[int]:
    output = subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not serve; start it by hand to see why.")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- what they have


def large_files(folder: Path) -> list[Path]:
    """The mammograms in full, as files."""
    folder.mkdir()
    made = []
    for study in range(STUDIES):
        for number, view in enumerate(VIEWS, start=1):
            ds = phantom.mammogram(view)
            ds.StudyInstanceUID, ds.SeriesInstanceUID = f"2.25.9{study}", f"2.25.9{study}.1"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.9{study}.1.{number}"
            ds.PatientID = f"LARGE{study}"
            made.append(folder / f"{ds.SOPInstanceUID}.dcm")
            ds.save_as(made[-1], enforce_file_format=True)
    return made


def fill_gateway(folder: Path, instances: int, files: Iterable[Path]) -> None:
    """Enter exams without files, and take the large ones through the real way in."""
    grow(folder, 0, instances)
    with opened(folder) as archive:
        for path in files:
            incoming = archive.receive(
                ObjectOrigin(_mg(path), path.stem, str(ExplicitVRLittleEndian), "MAMMO_1", "000000000000"), now=NOW
            )
            with path.open("rb") as file:
                file.seek(data_set_offset(path))
                while piece := file.read(1 << 20):
                    incoming.write(memoryview(piece))
            incoming.finish()


def _mg(_: Path) -> str:
    return "1.2.840.10008.5.1.4.1.1.1.2"


def fill_orthanc(site: Site, instances: int, files: Iterable[Path]) -> Site:
    """Upload the same exams as small objects, and the large files."""
    exams = instances // len(VIEWS)
    with closing(http.client.HTTPConnection("127.0.0.1", site.port)) as connection:
        for number in range(exams):
            for place, view in enumerate(VIEWS):
                _upload(connection, _written(_small(Exam(number), place, view)))
            if number % 100 == 0:
                print(f"\r{number * 4} instances to Orthanc", end="", file=sys.stderr, flush=True)
        for path in files:
            _upload(connection, path.read_bytes())
    print("\r\033[K", end="", file=sys.stderr)
    return Site(site.name, site.port, site.pid, exams)


def _small(exam: Exam, place: int, view: str) -> Dataset:
    ds = phantom.mammogram(view, rows=64, columns=48)
    ds.PatientID, ds.PatientName, ds.StudyDate = exam.patient_id, exam.patient_name, f"{exam.day:%Y%m%d}"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = exam.study_instance_uid, f"{exam.study_instance_uid}9"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{exam.study_instance_uid}{place}"
    return ds


def _written(ds: Dataset) -> bytes:
    with tempfile.TemporaryFile() as file:
        ds.save_as(file, enforce_file_format=True)
        file.seek(0)
        return file.read()


def _upload(connection: http.client.HTTPConnection, content: bytes) -> None:
    connection.request("POST", "/instances", content)
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"Orthanc answered an upload with {answer.status}: {answer.read()[:200]!r}")
    answer.read()


# --- measuring


def turn(site: Site, case: Case, seed: int) -> Turn:
    """Ask so many times; raises when a server does not answer as it should."""
    chance, times, size = Random(seed), list[float](), 0
    with closing(Client(site.port)) as client:
        before = _cpu(site.pid)
        for _ in range(case.requests):
            path = case.path(site, chance)
            started = time.perf_counter()
            got = client.get(path, case.accept)
            times.append(time.perf_counter() - started)
            size += got
        return Turn(times, _cpu(site.pid) - before, size)


class Client:
    """A connection that does as little as can be, so that it is the server that is measured."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"127.0.0.1:{port}"
        self._buffer = memoryview(bytearray(4 << 20))

    def get(self, path: str, accept: str) -> int:
        """Ask, read the whole answer, give the bytes of its body. Raises RuntimeError unless it is a 200 with one."""
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: {accept}\r\n\r\n"
        self._socket.sendall(request.encode())
        got = self._socket.recv_into(self._buffer)
        while (end := bytes(self._buffer[:got]).find(b"\r\n\r\n")) < 0:
            got += self._read(self._buffer[got:])
        head = bytes(self._buffer[:end]).lower()
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        body = got - end - 4
        last = bytes(self._buffer[max(got - 5, 0) : got])
        while body < int(length[1]) if length else last != b"0\r\n\r\n":
            read = self._read(self._buffer)
            body, last = body + read, (last + bytes(self._buffer[max(read - 5, 0) : read]))[-5:]
        if b" 200 " not in head[:20] or not body:
            raise RuntimeError(f"{path} was answered with {head[:200]!r}")
        return body

    def _read(self, into: memoryview) -> int:
        read = self._socket.recv_into(into)
        if not read:
            raise RuntimeError("The server closed the connection.")
        return read

    def close(self) -> None:
        self._socket.close()


def _cpu(pid: int) -> float:
    """Processor seconds of a process and its children."""
    return sum(_cpu_of(each) for each in (pid, *_children(pid)))


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def settle(site: Site, *, seconds: float = 60.0) -> None:
    """Wait until a server has nothing left to do of what a start or an upload sets off, or for so long."""
    deadline = time.monotonic() + seconds
    before = -1.0
    while (now := _cpu(site.pid)) - before > 0.02 and time.monotonic() < deadline:
        before = now
        time.sleep(1)


def compare(case: Case, sites: Iterable[Site], repetitions: int) -> str:
    """Let the servers take turns; gives the lines of the table."""
    asked = [site for site in sites if site.is_dicomweb or case.with_bare]
    turns: dict[str, list[Turn]] = {site.name: [] for site in asked}
    for site in asked:
        turn(site, case, seed=0)  # connections, caches and workers are warm then
    for repetition in range(1, repetitions + 1):
        for site in asked:
            turns[site.name].append(turn(site, case, seed=repetition))
    return "\n".join(_row(case, name, several, turns[OURS]) for name, several in turns.items())


def _row(case: Case, name: str, several: list[Turn], ours: list[Turn]) -> str:
    milliseconds = statistics.median(each.median for each in several) * 1e3
    each_size = several[0].size / case.requests
    speed = f"{each_size / milliseconds / 1e3:.0f} MB/s" if case.unit == "MB/s" else f"{milliseconds:.2f} ms"
    cpu = statistics.median(each.cpu for each in several) / case.requests * 1e3
    faster = statistics.median(theirs.median / mine.median for theirs, mine in zip(several, ours, strict=True))
    cheaper = statistics.median(
        mine.cpu / max(theirs.cpu, 1 / TICKS) for theirs, mine in zip(several, ours, strict=True)
    )
    return f"| {case.title} | {name} | {speed} | {cpu:.1f} | {faster:.1f} x | {cheaper:.2f} x |"


def main() -> None:
    """Fill, measure every case or those whose title has the words given, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--instances", type=int, default=1_000_000, help="of this gateway's index")
    parser.add_argument("--peer-instances", type=int, default=5_000, help="of Orthanc")
    parser.add_argument("--only", default="", help="the cases whose title has these words")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="web-")))
        files = large_files(folder / "files")
        fill_gateway(folder, arguments.instances, files)
        sites = [stack.enter_context(gateway_site(folder, arguments.instances // len(VIEWS)))]
        if plugin := _plugin():
            orthanc = stack.enter_context(orthanc_site(folder, plugin))
            sites.append(fill_orthanc(orthanc, arguments.peer_instances, files))
        sites.append(stack.enter_context(bare_site(folder / "files")))
        for site in sites:
            settle(site)
        print(f"{arguments.instances:,} instances here, {arguments.peer_instances:,} in Orthanc\n")
        print("| request | server | median | CPU ms | gateway is faster by | its CPU |\n|---|---|---|---|---|---|")
        for case in CASES:
            if arguments.only in case.title:
                print(compare(case, sites, arguments.repetitions), flush=True)


def _plugin() -> Path | None:
    if not shutil.which("Orthanc"):
        return None
    found = [path / "libOrthancDicomWeb.so" for path in PLUGINS]
    return next((path for path in found if path.exists()), None)


if __name__ == "__main__":
    main()
