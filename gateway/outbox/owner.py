"""`Owner`: base of the worklist and the archive, each a database with an outbox and changed exams in it.

Other packages use its verbs and its declared parts. Its transactions are for the row modules of the owner's own
package, which take the owner when they are made (`gateway.sqlite.Transactions`).

Not for: the data of a worklist or an archive (`worklist.store`, `pacs.archive.archive`).
"""

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from gateway.outbox.changed_exams import ChangedExams
from gateway.outbox.entries import Outbox
from gateway.sqlite import Database


class Owner:
    """`outbox` has the events for the cloud, `changed_exams` the exams that changed and were not judged since."""

    outbox: Outbox
    changed_exams: ChangedExams

    def __init__(self, database: Database) -> None:
        self.outbox = Outbox(database)
        self.changed_exams = ChangedExams(database)
        self._database = database  # private, because a holder of the database could write past the verbs

    @property
    def database_path(self) -> Path:
        """The file of the database."""
        return self._database.path

    def data_version(self) -> int:
        """A number that changes with each commit of any process; see `Database.data_version`. Raises OutOfResources."""
        return self._database.data_version()

    def copy_database(self, target: Path) -> None:
        """Write one consistent state of the database to a new, synced file; see `Database.copy`."""
        self._database.copy(target)

    def complaints(self) -> list[str]:
        """What SQLite finds wrong with the database itself; see `Database.complaints`."""
        return self._database.complaints()

    def close(self) -> None:
        """End all connections; no call may be under way."""
        self._database.close()

    # ---- for the rows of its own package -----------------------------------------------------------------------------

    def write(self) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction; see `Database.write`."""
        return self._database.write()

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """One consistent state; see `Database.read`."""
        return self._database.read()

    def read_at_length(self) -> AbstractContextManager[sqlite3.Connection]:
        """One consistent state, for a look at everything; see `Database.read_at_length`."""
        return self._database.read_at_length()
