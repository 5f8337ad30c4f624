"""How fast images are taken, beside DCMTK's storescp and Orthanc: `tests/benchmarks/store [--repetitions N]`.

Every repetition starts each server on an empty archive, lets DCMTK's storescu send the same files over one association
or a share of them over each of several, and reads the server's processor time and peak memory from /proc. Servers take
turns within a repetition, and the ratios are medians of the paired values. This gateway always does all its work
(check, hash, sync, index, outbox) before Success, and has its folders as after its first night (`Files.lay_out`);
"tuned" peers have TCP_NODELAY=1, and storescp writes as received (+B). A client "with Nagle" is storescu as shipped,
which writes each PDU in two pieces. A server that is not installed is left out.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import generate_uid

from pacs.archive.files import Files
from simulator.exam import phantom

OURS = "gateway"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A storage SCP: how it is started on a port and a folder, and what the environment of it and its clients is."""

    name: str
    program: str
    tuned: bool = True

    def command(self, port: int, folder: Path) -> list[str]:
        if self.program == OURS:
            archive_files = Files(folder / "instances")
            archive_files.open()
            archive_files.lay_out(stop=lambda: False)
            archive_files.close()
            return [sys.executable, "-m", "pacs"]
        if self.program == "storescp":
            return ["storescp", *(["+B"] if self.tuned else []), "-od", str(folder), str(port)]
        (folder / "orthanc.json").write_text(json.dumps(_orthanc(port, folder)))
        return ["Orthanc", str(folder / "orthanc.json")]

    def environment(self, port: int, folder: Path) -> dict[str, str]:
        settings = {"GATEWAY_DATA_DIR": str(folder), "PACS_PORT": str(port), "PACS_HOST": "127.0.0.1", "PACS_AET": "X"}
        return {**os.environ, **(settings if self.program == OURS else {}), **self.client_environment()}

    def client_environment(self) -> dict[str, str]:
        return {"TCP_NODELAY": "1"} if self.tuned else {}


SERVERS = (
    Server(OURS, OURS),
    Server("Orthanc", "Orthanc"),
    Server("storescp tuned", "storescp"),
    Server("storescp as shipped", "storescp", tuned=False),
)


@dataclass(frozen=True)
class Case:
    """What is sent, and how: the files of a folder of this name, by so many clients at once."""

    title: str
    files: str
    unit: str
    associations: int = 1
    is_nagle: bool = False
    most_repetitions: int = 100
    without: str = ""
    """A server that is left out: storescp as shipped waits 40 ms or more for each small object, which takes minutes."""


CASES = (
    Case("12 mammograms of 17 MB over one association", "mammograms", "MB/s"),
    Case("12 mammograms of 17 MB over two associations", "mammograms", "MB/s", associations=2),
    Case("12 mammograms of 17 MB over four associations", "mammograms", "MB/s", associations=4),
    Case("60 objects of 0.5 MB over one association", "medium", "1/s"),
    Case("400 objects of 9 kB over one association", "small", "1/s", without="storescp as shipped"),
    Case("400 objects of 9 kB over two associations", "small", "1/s", associations=2, without="storescp as shipped"),
    Case("400 objects of 9 kB over four associations", "small", "1/s", associations=4, without="storescp as shipped"),
    Case("40 objects of 9 kB over one association, a client with Nagle", "few", "1/s", is_nagle=True),
    Case("One tomosynthesis object of 1 GB", "large", "MB/s", most_repetitions=3),
)


@dataclass(frozen=True)
class Run:
    """What one server did with one set of files: seconds, objects, bytes, processor seconds, peak memory in MB."""

    seconds: float
    objects: int
    size: int
    cpu: float
    memory: float
    growth: float

    @property
    def rate(self) -> float:
        return self.size / 1e6 / self.seconds

    @property
    def pace(self) -> float:
        return self.objects / self.seconds


def _orthanc(port: int, folder: Path) -> dict[str, object]:
    return {
        "DicomAet": "X",
        "DicomPort": port,
        "HttpServerEnabled": False,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
    }


def copies(data_set: Dataset, folder: Path, count: int) -> Path:
    """Write a data set several times under UIDs of its own."""
    folder.mkdir()
    for number in range(count):
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        data_set.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
    return folder


@contextmanager
def serving(server: Server) -> Iterator[tuple[int, int]]:
    """Run a server on an empty folder; gives its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="store-"))
    process = subprocess.Popen(
        server.command(port, folder),
        env=server.environment(port, folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        echo = ["echoscu", "-aec", "X", "127.0.0.1", str(port)]
        if subprocess.run(echo, check=False, capture_output=True).returncode == 0:
            return
        if process.poll() is not None:
            raise RuntimeError(f"The server on port {port} ended with {process.returncode}.")
        time.sleep(0.05)
    raise RuntimeError(f"The server on port {port} does not answer.")


def measured(server: Server, folder: Path, case: Case) -> Run:
    """Send a folder, over as many associations as the case has, and say what it took."""
    files = sorted(folder.iterdir())
    shares = [files[number :: case.associations] for number in range(case.associations)]
    with serving(server) as (port, pid):
        cpu, memory = _cpu(pid), _memory(pid)
        # Of its own accord storescu does not propose tomosynthesis; asked for what is needed, it reads all files first.
        proposed = ["--required"] if case.files == "large" else []
        send = ["storescu", *proposed, "--max-send-pdu", "131072", "-aec", "X", "127.0.0.1", str(port)]
        environment = {**os.environ, **({} if case.is_nagle else server.client_environment())}
        started = time.perf_counter()
        clients = [subprocess.Popen([*send, *map(str, share)], env=environment) for share in shares]
        codes = [client.wait(600) for client in clients]
        seconds = time.perf_counter() - started
        if any(codes):
            raise RuntimeError(f"storescu ended with {codes} against {server.name}; send to it by hand to see why.")
        size = sum(file.stat().st_size for file in files)
        peak = _memory(pid)
        return Run(seconds, len(files), size, _cpu(pid) - cpu, peak, peak - memory)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def compare(case: Case, folder: Path, servers: Sequence[Server], repetitions: int) -> list[Run]:
    """Let the servers take turns and print the medians, with the paired ratios to this gateway; gives its runs."""
    runs: dict[str, list[Run]] = {server.name: [] for server in servers}
    for _ in range(repetitions):
        for server in servers:
            runs[server.name].append(measured(server, folder, case))
    print(f"\n{case.title}, {repetitions} repetitions, medians\n")
    print(f"| server | {case.unit} | CPU s/GB | CPU ms/object | peak MB | growth MB | gateway is faster by | its CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for name, several in runs.items():
        print(_row(name, several, runs[OURS], case.unit), flush=True)
    return runs[OURS]


def _row(name: str, several: list[Run], ours: list[Run], unit: str) -> str:
    def median(*values: float) -> float:
        return statistics.median(values)

    speed = median(*(run.rate if unit == "MB/s" else run.pace for run in several))
    faster = median(*(theirs.seconds / mine.seconds for theirs, mine in zip(several, ours, strict=True)))
    cpu = median(*(mine.cpu / max(theirs.cpu, 0.01) for theirs, mine in zip(several, ours, strict=True)))
    return (
        f"| {name} | {speed:.0f} | {median(*(run.cpu / run.size * 1e9 for run in several)):.2f}"
        f" | {median(*(run.cpu / run.objects * 1e3 for run in several)):.2f}"
        f" | {median(*(run.memory for run in several)):.0f} | {median(*(run.growth for run in several)):.0f}"
        f" | {faster:.2f} x | {cpu:.2f} x |"
    )


def make(folder: Path, *, large_gb: float) -> None:
    """Write what the cases send."""
    copies(phantom.mammogram("RCC"), folder / "mammograms", 12)
    copies(phantom.mammogram("RCC", rows=500, columns=500), folder / "medium", 60)
    copies(phantom.mammogram("RCC", rows=56, columns=56), folder / "small", 400)
    copies(phantom.mammogram("RCC", rows=56, columns=56), folder / "few", 40)
    if large_gb:
        (folder / "large").mkdir()
        frames = round(large_gb * 1e9 / (2456 * 1996 * 2))
        phantom.write_large_tomosynthesis(folder / "large" / "1.dcm", frames=frames)


def main() -> None:
    """Measure every case, or those whose title has the words given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--large-gb", type=float, default=1.0, help="size of the tomosynthesis object, 0 leaves it out")
    parser.add_argument("--only", default="", help="the cases whose title has these words")
    arguments = parser.parse_args()
    servers = [server for server in SERVERS if server.program == OURS or shutil.which(server.program)]
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="store-files-") as name:
        make(Path(name), large_gb=arguments.large_gb)
        for case in CASES:
            if arguments.only in case.title and (Path(name) / case.files).exists():
                repetitions = min(case.most_repetitions, arguments.repetitions)
                others = [server for server in servers if server.name != case.without]
                ours = compare(case, Path(name) / case.files, others, repetitions)
                seconds[case.title] = statistics.median(run.seconds for run in ours)
    one, *several = (case.title for case in CASES if case.files == "mammograms")
    for title in several:
        if {one, title} <= seconds.keys():
            print(f"\n{title}: {seconds[one] / seconds[title]:.2f} x one association")


if __name__ == "__main__":
    main()
