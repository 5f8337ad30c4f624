"""How long the server takes for each page on a full day: `tests/benchmarks/pages`.

60 appointments, each reported as completed, with the four views of a whole mammogram's header (240 images). A page is
asked for over HTTP, one request after the other; "first" is the first request after the start, which reads every data
set. Before each other request an image has come ("changed"), or nothing has ("same"); medians of `--times`, and the
processor time of the process, server and client, of a request after a change.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import structlog
from pydicom import Dataset

from simulator.exam.exam import SCREENING_VIEWS, Exam
from simulator.exam.phantom import mammogram
from tests.relay import served
from tests.relay.served import Site
from worklist import Item

APPOINTMENTS = 60
EXTRA = Exam(accession_number="EXTRA")
"""Of nobody on the list."""
NUMBERS = count(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    times = parser.parse_args().times
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    study = exam(0).study_uid
    with (
        tempfile.TemporaryDirectory() as folder,
        served.site(Path(folder), images(), map(appointment, range(60))) as site,
    ):
        for number in range(APPOINTMENTS):
            site.worklist.change_status(f"DAY{number:03}", "in_progress", now=served.NOW)
            site.worklist.change_status(f"DAY{number:03}", "completed", now=served.NOW)
        print(f"{'page':<24}{'first ms':>10}{'changed ms':>12}{'same ms':>9}{'CPU ms':>8}{'kB':>6}")
        for path in ("/board", "/", "/board?wall", "/studies", f"/studies/{study}", "/board?q=day001"):
            measure(site, path, times)


def measure(site: Site, path: str, times: int) -> None:
    first, _ = asked(site, path)
    same = statistics.median(asked(site, path)[0] for _ in range(times))
    changed, busy = [], []
    for _ in range(times):
        served.receive(
            site.archive, mammogram("RCC", EXTRA, instance_number=next(NUMBERS), rows=64, columns=48), site.folder
        )
        before = time.process_time()
        changed.append(asked(site, path)[0])
        busy.append((time.process_time() - before) * 1000)
    name, size = (path if len(path) < 24 else "/studies/{uid}"), asked(site, path)[1]
    print(
        f"{name:<24}{first:>10.1f}{statistics.median(changed):>12.1f}{same:>9.1f}{statistics.median(busy):>8.1f}"
        f"{size / 1000:>6.0f}"
    )


def asked(site: Site, path: str) -> tuple[float, int]:
    """How many milliseconds a page takes, and how long it is."""
    began = time.perf_counter()
    answer = site.get(path, accept="text/html")
    assert answer.status == 200, answer.body
    return (time.perf_counter() - began) * 1000, len(answer.body)


def exam(number: int) -> Exam:
    return Exam(accession_number=f"DAY{number:03}")


def images() -> Iterator[Dataset]:
    for number in range(APPOINTMENTS):
        for view in SCREENING_VIEWS:
            yield mammogram(view, exam(number), rows=64, columns=48)


def appointment(number: int) -> Item:
    values = {"PatientName": "PHANTOM^SYNTHETIC", "PatientBirthDate": "19700101"}
    return served.item(f"DAY{number:03}", StudyInstanceUID=exam(number).study_uid, **values)


if __name__ == "__main__":
    main()
