"""A thousand, a hundred thousand, a million instances: `tests/benchmarks/scale [--sizes 1000,100000,1000000]`.

One archive grows from size to size. An exam is really received, and its rows are entered again and again with all that
is another exam's own: without files, and all but the newest events delivered. At each size the archive is opened,
asked, and sent to through the real way in; the table has the median and the 99th percentile of each, and the ratio of
the medians of the largest to the smallest size. The goal is 2. Every question has as many answers at each size.

Four views make an exam, there are 40 exams a day, a participant comes back on the next day, and UIDs are random.
"""

import argparse
import logging
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import structlog
from pydicom import Dataset

from gateway.query.conditions import Kind
from gateway.query.matching import column_value
from gateway.sqlite import utc_text
from pacs import Archive
from pacs.archive.receiving import ObjectOrigin
from simulator.exam import phantom
from tests.durability.objects import EXPLICIT
from tests.pacs.archive.test_attributes import encoded

Row = dict[str, object]

VIEWS = ("RCC", "LCC", "RMLO", "LMLO")
EXAMS_A_DAY = 40
FIRST_DAY = date(2005, 1, 3)
BATCH = 10_000
"""Exams that share a transaction while the archive is filled."""

FIRST_ID = -10_000_000
"""Below those of the objects that are really received, which SQLite counts up from the highest."""

OPEN_ENTRIES = 200
"""So many events wait, at every size: a line that is slow, not one that is gone."""

QUESTIONS = 200
SENDERS, SENT_EACH = 4, 40
SURNAMES = (
    "SMITH",
    "JONES",
    "TAYLOR",
    "BROWN",
    "PATEL",
    "WILLIAMS",
    "O'NEILL",
    "KHAN",
    "MÜLLER",
    "NOWAK",
    "EVANS",
    "LI",
)
GIVEN = ("ANNA", "MARY", "PRIYA", "SUSAN", "ZOË", "FATIMA", "JANE", "OLGA", "MEI", "RUTH", "EMMA", "CLAIRE")


@dataclass(frozen=True)
class Exam:
    """One exam of the site, all of it from its number."""

    number: int

    @property
    def day(self) -> date:
        return FIRST_DAY + timedelta(days=self.number // EXAMS_A_DAY)

    @property
    def patient_id(self) -> str:
        day, place = divmod(self.number, EXAMS_A_DAY)
        return f"999{day // 2 * EXAMS_A_DAY + place:07d}"

    @property
    def patient_name(self) -> str:
        chance = Random(self.patient_id)
        return f"{chance.choice(SURNAMES)}-{chance.randrange(1_000_000)}^{chance.choice(GIVEN)}"

    @property
    def study_instance_uid(self) -> str:
        return f"2.25.{Random(self.number).getrandbits(120)}"

    def received_at(self, view: int) -> str:
        moment = datetime.combine(self.day, datetime.min.time(), UTC) + timedelta(hours=8)
        return utc_text(moment + timedelta(seconds=600 * (self.number % EXAMS_A_DAY) + 20 * view))

    def rows(self, samples: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
        """Its rows: those of the sample exam, with all that is its own, and what is as long as its own."""
        study = {
            "id": FIRST_ID + self.number,
            "study_instance_uid": self.study_instance_uid,
            "patient_id": self.patient_id,
            "patient_name": column_value(Kind.NAME, self.patient_name),
            "accession_number": f"ACC{self.number:08d}",
            "study_date": f"{self.day:%Y%m%d}",
            "first_received_at": self.received_at(0),
            "last_received_at": self.received_at(3),
        }
        yield "study", samples["study"] | study
        series = {"id": FIRST_ID + self.number, "study_id": study["id"]}
        yield "series", samples["series"] | series | {"series_instance_uid": f"{self.study_instance_uid}9"}
        for view, at in ((view, self.received_at(view)) for view in range(len(VIEWS))):
            uid, number = f"{self.study_instance_uid}{view}", FIRST_ID + len(VIEWS) * self.number + view
            own = {"series_id": series["id"], "sop_instance_uid": uid, "received_at": at}
            yield "instance", samples["instance"] | own
            told = {"subject": self.study_instance_uid, "delivered_at": at}
            event = {"id": number, "message_id": uid, "sequence": view + 1, "created_at": at}
            yield "outbox", samples["outbox"] | told | event
            yield "outbox_duty", samples["outbox_duty"] | told | {"entry_id": number, "due_at": at}


def sample(archive: Archive) -> dict[str, Row]:
    """Take one exam through the real way in; a row of each table is the sample of all others."""
    for view in VIEWS:
        _take(archive, _image(view))
    found = {}
    with archive.read() as conn:
        for table in _TABLES:
            found[table] = dict(conn.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1").fetchone())
    del found["instance"]["id"]
    return found


def fill(archive: Archive, before: int, size: int) -> None:
    """Enter exams until so many instances are there; of their events all but the last are delivered.

    By a connection of its own with a large cache and large transactions, which is what makes it quick.
    """
    samples = sample(archive)
    exams = (Exam(number) for number in range(before // len(VIEWS), size // len(VIEWS)))
    with closing(sqlite3.connect(archive.database_path)) as conn:
        conn.execute("PRAGMA cache_size = -500000")  # kB
        while batch := list(islice(exams, BATCH)):
            with conn:
                _enter(conn, (row for exam in batch for row in exam.rows(samples)))
            print(f"\r{batch[-1].number * 4 + 4} instances", end="", file=sys.stderr, flush=True)
        with conn:
            for statement in _TELL_ALL_BUT_THE_LAST:
                conn.execute(statement, {"waiting": OPEN_ENTRIES})
    print("\r\033[K", end="", file=sys.stderr)


_TABLES = ("study", "series", "instance", "outbox", "outbox_duty")
_LAST = "(SELECT id FROM outbox ORDER BY id DESC LIMIT :waiting)"
_TELL_ALL_BUT_THE_LAST = (
    "UPDATE outbox_duty SET delivered_at = due_at WHERE delivered_at IS NULL AND parked_at IS NULL",
    "UPDATE outbox SET delivered_at = created_at WHERE delivered_at IS NULL AND parked_at IS NULL",
    f"UPDATE outbox_duty SET delivered_at = NULL WHERE entry_id IN {_LAST}",
    f"UPDATE outbox SET delivered_at = NULL WHERE id IN {_LAST}",
)
_SUMS = (
    "UPDATE total SET study_count = study_count + :study, series_count = series_count + :series,"
    " instance_count = instance_count + :instance, byte_count = byte_count + :bytes"
)


def _enter(conn: sqlite3.Connection, rows: Iterable[tuple[str, Row]]) -> None:
    by_table: dict[str, list[Row]] = {table: [] for table in _TABLES}
    for table, row in rows:
        by_table[table].append(row)
    for table, several in by_table.items():
        columns = ", ".join(several[0])
        values = ", ".join(f":{column}" for column in several[0])
        conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", several)
    counts = {table: len(several) for table, several in by_table.items()}
    conn.execute(_SUMS, {**counts, "bytes": sum(int(str(row["size_bytes"])) for row in by_table["instance"])})


def questions(archive: Archive, size: int, chance: Random) -> Mapping[str, Callable[[], object]]:
    """What is asked of an archive, each about something else every time."""

    def exam() -> Exam:
        return Exam(chance.randrange(size // len(VIEWS)))

    def now() -> datetime:
        return datetime(2100, 1, 1, tzinfo=UTC)

    return {
        "studies by PatientID": lambda: archive.find("STUDY", _query(PatientID=exam().patient_id)),
        "studies by AccessionNumber": lambda: archive.find("STUDY", _query(AccessionNumber=f"ACC{exam().number:08d}")),
        "studies of a day, first 25": lambda: archive.find("STUDY", _query(StudyDate=f"{exam().day:%Y%m%d}"), limit=25),
        "studies from a day on, first 25": lambda: archive.find(
            "STUDY", _query(StudyDate=f"{exam().day:%Y%m%d}-"), limit=25
        ),
        "studies by whole name": lambda: archive.find("STUDY", _query(PatientName=exam().patient_name), limit=25),
        "newest 25 studies": lambda: archive.find("STUDY", Dataset(), limit=25),
        "series of a study": lambda: archive.find("SERIES", _query(StudyInstanceUID=exam().study_instance_uid)),
        "instances of a study": lambda: archive.find("IMAGE", _query(StudyInstanceUID=exam().study_instance_uid)),
        "metadata of a study": lambda: list(archive.metadata(exam().study_instance_uid)),
        "one instance": lambda: archive.instance(f"{exam().study_instance_uid}2"),
        "latest 20 instances": lambda: archive.latest(20),
        "statistics": archive.statistics,
        "outbox: what is due, 50": lambda: archive.outbox.due(now(), limit=50),
        "outbox: the oldest open": archive.outbox.oldest_open,
        "outbox: counts": archive.outbox.counts,
    }


def _query(**keys: str) -> Dataset:
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def measured(folder: Path, size: int) -> dict[str, list[float]]:
    """Milliseconds of a start, of every question, and of a receipt with four senders at once."""
    times = {"start": [_start(folder) for _ in range(9)]}
    with opened(folder) as archive:
        for name, ask in questions(archive, size, Random(size)).items():
            ask()
            times[name] = [_milliseconds(ask) for _ in range(QUESTIONS)]
        times["receive, 4 at once"] = receive(archive)
    return times


@contextmanager
def opened(folder: Path) -> Iterator[Archive]:
    """The archive of a folder, as the pacs process has it."""
    with closing(Archive.open(folder / "pacs.db", folder / "instances")) as archive:
        yield archive


def _start(folder: Path) -> float:
    started = time.perf_counter()
    with opened(folder):
        return (time.perf_counter() - started) * 1e3


def receive(archive: Archive) -> list[float]:
    """Take small objects through the real way in, several at a time; milliseconds of each."""
    times: list[float] = []

    def send() -> None:
        mine = _image("RCC")
        mine.StudyInstanceUID = f"2.25.{Random().getrandbits(120)}"
        for _ in range(SENT_EACH):
            mine.SOPInstanceUID = f"2.25.{Random().getrandbits(120)}"
            times.append(_take(archive, mine))

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _take(archive: Archive, data_set: Dataset) -> float:
    body = memoryview(encoded(data_set, EXPLICIT))
    origin = ObjectOrigin(data_set.SOPClassUID, data_set.SOPInstanceUID, EXPLICIT, "MAMMO_1", "000000000000")
    started = time.perf_counter()
    receiving = archive.receive(origin, now=datetime.now(UTC))
    receiving.write(body)
    receiving.finish()
    return (time.perf_counter() - started) * 1e3


def _image(view: str) -> Dataset:
    return phantom.mammogram(view, rows=64, columns=48)


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def table(results: Mapping[int, Mapping[str, list[float]]]) -> str:
    """Medians and 99th percentiles in milliseconds."""
    sizes = list(results)
    lines = ["| ms, p50 / p99 | " + " | ".join(f"{size:,}" for size in sizes) + " | growth of p50 |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for name in results[sizes[0]]:
        cells = [f"{statistics.median(results[size][name]):.2f} / {_high(results[size][name]):.2f}" for size in sizes]
        growth = statistics.median(results[sizes[-1]][name]) / statistics.median(results[sizes[0]][name])
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {growth:.2f} x |")
    return "\n".join(lines)


def _high(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def main() -> None:
    """Grow, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,100000,1000000", help="instances, rising, comma list")
    parser.add_argument("--folder", type=Path, help="on which volume; default: the one of temporary files")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    results: dict[int, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.folder) as name:
        for before, size in pairwise([0, *map(int, arguments.sizes.split(","))]):
            grow(Path(name), before, size)
            results[size] = measured(Path(name), size)
    print("\n" + table(results))


def grow(folder: Path, before: int, size: int) -> None:
    """Fill up from one size to the next and say how fast that was."""
    started = time.perf_counter()
    with opened(folder) as archive:
        fill(archive, before, size)
    rate = (size - before) / (time.perf_counter() - started)
    print(f"{size:,} instances, {rate:,.0f}/s entered, index {_megabytes(folder):,.0f} MB", flush=True)


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("pacs.db*")) / 1e6


if __name__ == "__main__":
    main()
