"""The database floor: durable writes that share commits, snapshots, migrations."""

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.errors import DatabaseNotReady, OutOfResources
from gateway.sqlite import Database, utc_text
from tests.tools.waiting import PATIENCE_SECONDS


def schema(folder: Path, *scripts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, script in enumerate(scripts, start=1):
        (folder / f"{number:04d}_step.sql").write_text(script)
    return folder


NOTES = (
    "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;\nCREATE INDEX note_text ON note (text);\n"
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path / "x.db", schema(tmp_path / "schema", NOTES))
    database.migrate()
    return database


def notes(database: Database) -> list[str]:
    with database.read() as conn:
        return [row["text"] for row in conn.execute("SELECT text FROM note ORDER BY id")]


def test_a_time_is_written_as_utc_with_milliseconds() -> None:
    assert utc_text(datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)) == "2026-11-22T01:02:03.456Z"


def test_a_change_is_there_after_the_block(database: Database) -> None:
    with database.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES ('a')")
    assert notes(database) == ["a"]


def test_a_change_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ValueError, match="stop"), database.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES ('a')")
        raise ValueError("stop")
    assert notes(database) == []


def test_every_writer_is_synced_to_disk_and_enforces_foreign_keys(database: Database) -> None:
    with database.write() as conn:
        facts = [
            conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode", "foreign_keys")
        ]
    assert facts == [2, "wal", 1]


def test_threads_that_write_at_once_share_commits_and_a_failing_one_spoils_none(database: Database) -> None:
    with database.read() as conn:
        before = conn.execute("PRAGMA data_version").fetchone()[0]
    barrier = threading.Barrier(16)
    failed: list[int] = []

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(25):
            try:
                with database.write() as conn:
                    conn.execute("INSERT INTO note (text) VALUES (?)", (f"{number}/{turn}",))
                    if number % 4 == 0:
                        raise ValueError("mine alone")
            except ValueError:
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {f"{number}/{turn}" for number in range(16) for turn in range(25) if number % 4}
    assert set(notes(database)) == kept
    assert len(failed) == 100
    assert before is not None


def test_a_full_disk_refuses_every_change_of_the_batch_and_recovers(database: Database) -> None:
    with database.write() as conn:
        pages = conn.execute("PRAGMA page_count").fetchone()[0]
    writer = database._writer  # the limit is a property of the one writing connection
    assert writer is not None
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutOfResources), database.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES (?)", ("x" * 100_000,))
    assert notes(database) == []
    writer.execute("PRAGMA max_page_count = 1000000")
    with database.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES ('again')")
    assert notes(database) == ["again"]


def test_a_transaction_that_ended_by_itself_fails_for_all_who_share_it_and_the_next_one_works(
    database: Database,
) -> None:
    inside, outcomes = threading.Event(), []

    def share() -> None:
        try:
            with database.write() as conn:
                conn.execute("INSERT INTO note (text) VALUES ('shared')")
                inside.set()
                while not database._waiting:  # the other one has to be in the queue to share this transaction
                    pass
        except sqlite3.Error as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=share)
    thread.start()
    assert inside.wait(PATIENCE_SECONDS)
    with pytest.raises(sqlite3.OperationalError, match="no such savepoint"), database.write() as conn:
        conn.execute("ROLLBACK")  # as SQLite does after an error that somebody did not let through
    thread.join()
    assert outcomes == ["no such savepoint: part"]
    with database.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES ('next')")
    assert notes(database) == ["next"]


def test_a_file_that_cannot_be_opened_for_reading_is_out_of_resources(database: Database) -> None:
    database.path.rename(database.path.with_suffix(".away"))
    with pytest.raises(OutOfResources, match="cannot be used now"), database.read():
        pass


def test_a_snapshot_does_not_see_a_later_commit(database: Database) -> None:
    with database.read() as conn:
        assert conn.execute("SELECT count(*) FROM note").fetchone()[0] == 0
        with database.write() as writer:
            writer.execute("INSERT INTO note (text) VALUES ('later')")
        assert conn.execute("SELECT count(*) FROM note").fetchone()[0] == 0
    assert notes(database) == ["later"]


def test_data_version_tells_of_a_commit(database: Database) -> None:
    before = database.data_version()
    assert database.data_version() == before
    with database.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES ('a')")
    assert database.data_version() != before


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    folder = schema(tmp_path / "schema", NOTES)
    first = Database(tmp_path / "x.db", folder)
    first.migrate()
    with first.write() as conn:
        conn.execute("INSERT INTO note (text) VALUES ('kept')")
    first.close()
    schema(folder, NOTES, "ALTER TABLE note ADD COLUMN author TEXT;")
    second = Database(tmp_path / "x.db", folder)
    second.migrate()
    second.migrate()
    with second.read() as conn:
        assert [tuple(row) for row in conn.execute("SELECT text, author FROM note")] == [("kept", None)]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    broken = Database(tmp_path / "x.db", schema(tmp_path / "schema", NOTES, "CREATE TABLE other (a);\nNONSENSE;"))
    with pytest.raises(sqlite3.OperationalError):
        broken.migrate()
    with sqlite3.connect(tmp_path / "x.db") as conn:
        assert conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0


def test_who_does_not_own_the_file_waits_for_its_owner(tmp_path: Path) -> None:
    folder = schema(tmp_path / "schema", NOTES)
    guest = Database(tmp_path / "x.db", folder)
    with pytest.raises(DatabaseNotReady, match="does not exist yet"):
        guest.check()
    Database(tmp_path / "x.db", folder).migrate()
    guest.check()
    schema(folder, NOTES, "ALTER TABLE note ADD COLUMN author TEXT;")
    with pytest.raises(DatabaseNotReady, match="another schema"):
        Database(tmp_path / "x.db", folder).check()


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    newer = Database(tmp_path / "x.db", schema(tmp_path / "new", NOTES, "CREATE TABLE other (a INTEGER) STRICT;"))
    newer.migrate()
    newer.close()
    with pytest.raises(DatabaseNotReady, match="newer version"):
        Database(tmp_path / "x.db", schema(tmp_path / "old", NOTES)).migrate()
