"""A volume that loses what was not synced: a recorded run up to any moment, and what a power cut may leave of it.

What survives for certain, and what may or may not:

* The bytes of a file up to its last `fsync` or `fdatasync` are there. Of what was written since, each sector of 512
  bytes is as after any number of the writes to it: none, some, all.
* Names (create, link, rename, unlink, make a folder) are there in one of two ways. ORDERED, as file systems with a
  journal have it (ext4, XFS): all names up to some moment not before the last sync of anything. STRICT, what POSIX
  promises and no more: a change of a folder's names is there once that folder was synced; of the others any subset.
  A rename is never half done.
* A sync covers what came back before it was called, and counts when it comes back.

SQLite's shared memory (`-shm`) is left out: it is memory, and is made anew by whoever opens the database first.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO
from pathlib import Path
from random import Random

from pydicom.filereader import read_dataset

from tests.durability.calls import Call

SECTOR = 512


class Names(Enum):
    """How names survive, see above."""

    ORDERED = "ordered"
    STRICT = "strict"


@dataclass(eq=False)
class File:
    """What lies behind a name, or several."""

    synced: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, int, bytes]] = field(default_factory=list)  # when, offset, data
    length: int = 0

    def sync(self, before: int) -> None:
        for _, offset, data in (write for write in self.unsynced if write[0] < before):
            _put(self.synced, offset, data)
        self.unsynced = [write for write in self.unsynced if write[0] >= before]

    def remains(self, chance: Random) -> bytes:
        """The content after a cut."""
        content, writes, survivors = bytearray(self.synced), list(self._sectors()), dict[int, int]()
        for sector, _, _ in writes:
            survivors[sector] = survivors.get(sector, 0) + 1
        survivors = {sector: chance.randint(0, count) for sector, count in survivors.items()}
        for sector, offset, data in writes:
            if survivors[sector]:
                survivors[sector] -= 1
                _put(content, offset, data)
        return bytes(content)

    def _sectors(self) -> Iterator[tuple[int, int, bytes]]:
        for _, offset, data in self.unsynced:
            at = 0
            while at < len(data):
                sector = (offset + at) // SECTOR
                end = min(len(data), (sector + 1) * SECTOR - offset)
                yield sector, offset + at, data[at:end]
                at = end


@dataclass
class Change:
    """One change of names: `gone` loses its file, `new` gets `file` (None: a folder)."""

    when: int
    gone: str = ""
    new: str = ""
    file: File | None = None
    durable: bool = False

    def folders(self) -> set[str]:
        return {name.rpartition("/")[0] for name in (self.gone, self.new) if name}


class Volume:
    """One folder, replayed call by call. `answered` are the SOP Instance UIDs for which Success was sent."""

    def __init__(self, root: Path, names: Names) -> None:
        self.root = str(root)
        self.names = names
        self.answered: list[str] = []
        self._changes: list[Change] = []
        self._now: dict[str, File | None] = {"": None}
        self._open: dict[int, tuple[str, File | None]] = {}
        self._positions: dict[int, int] = {}

    def restart(self) -> None:
        """The next calls are those of another process."""
        self._open.clear()

    def replay(self, call: Call) -> None:
        """Let one more call have happened."""
        if call.result >= 0:
            _ACTS[call.name](self, call)

    def remains(self, folder: Path, chance: Random) -> None:
        """Write what a power cut now would leave into a folder that does not exist yet."""
        written: dict[File, Path] = {}
        for name, file in sorted(self._surviving(chance).items()):
            path = folder / name
            if name and not path.parent.is_dir():
                continue  # its folder did not survive
            if file is None:
                path.mkdir()
            elif file in written:
                path.hardlink_to(written[file])
            else:
                path.write_bytes(file.remains(chance))
                written[file] = path

    def _surviving(self, chance: Random) -> dict[str, File | None]:
        left: dict[str, File | None] = {"": None}
        for change in self._survivors(chance):
            left.pop(change.gone, None) if change.gone else None
            if change.new:
                left[change.new] = change.file
        return {name: file for name, file in left.items() if not name.endswith("-shm")}

    def _survivors(self, chance: Random) -> list[Change]:
        if self.names is Names.STRICT:
            return [change for change in self._changes if change.durable or chance.random() < 0.5]
        durable = sum(change.durable for change in self._changes)
        return self._changes[: chance.randint(durable, len(self._changes))]

    # ---- the calls ---------------------------------------------------------------------------------------------------

    def _openat(self, call: Call) -> None:
        path = self._name(call.texts()[0])
        if path is None:
            self._open.pop(call.result, None)
            return
        if path not in self._now:
            assert "O_CREAT" in call.arguments, f"{path} was opened and never made"
            self._change(Change(call.ended, new=path, file=File()))
        self._open[call.result] = (path, self._now[path])
        self._positions[call.result] = 0

    def _write(self, call: Call) -> None:
        descriptor, file = call.numbers()[0], self._file(call)
        if file is not None:
            position = self._positions[descriptor]
            self._put(file, call, position)
            self._positions[descriptor] = position + call.result

    def _pwrite(self, call: Call) -> None:
        file = self._file(call)
        if file is not None:
            self._put(file, call, call.numbers()[-1])

    def _close(self, call: Call) -> None:
        self._open.pop(call.numbers()[0], None)

    def _ftruncate(self, call: Call) -> None:
        path, file = self._open.get(call.numbers()[0], ("", None))
        if file is not None and not path.endswith("-shm"):
            assert file.length == call.numbers()[1], "a checkpoint may only cut the database to the length it has"

    def _fsync(self, call: Call) -> None:
        if call.numbers()[0] not in self._open:
            return
        path, file = self._open[call.numbers()[0]]
        if file is not None:
            file.sync(call.began)
        for change in self._changes:
            if change.when < call.began and (
                self.names is Names.ORDERED or (file is None and path in change.folders())
            ):
                change.durable = True

    def _mkdir(self, call: Call) -> None:
        if (path := self._name(call.texts()[0])) is not None:
            self._change(Change(call.ended, new=path))

    def _link(self, call: Call) -> None:
        old, new = map(self._name, call.texts())
        if old is not None and new is not None:
            self._change(Change(call.ended, new=new, file=self._now[old]))

    def _rename(self, call: Call) -> None:
        old, new = map(self._name, call.texts())
        if old is not None and new is not None:
            self._change(Change(call.ended, gone=old, new=new, file=self._now[old]))

    def _unlink(self, call: Call) -> None:
        if (path := self._name(call.texts()[0])) is not None:
            self._change(Change(call.ended, gone=path))

    def _sendto(self, call: Call) -> None:
        if (uid := success(call)) is not None:
            self.answered.append(uid)

    def _change(self, change: Change) -> None:
        self._changes.append(change)
        if change.gone:
            del self._now[change.gone]
        if change.new:
            self._now[change.new] = change.file

    def _file(self, call: Call) -> File | None:
        return self._open.get(call.numbers()[0], ("", None))[1]

    def _put(self, file: File, call: Call, offset: int) -> None:
        (data,) = call.texts()
        assert len(data) >= call.result, "the log does not hold all that was written"
        file.length = max(file.length, offset + call.result)
        file.unsynced.append((call.began, offset, data[: call.result]))

    def _name(self, path: bytes) -> str | None:
        """A path below the root, '' for the root itself; None for any other."""
        text = path.decode()
        return text[len(self.root) + 1 :] if text == self.root or text.startswith(self.root + "/") else None


_ACTS: Mapping[str, Callable[[Volume, Call], None]] = {
    "openat": Volume._openat,
    "close": Volume._close,
    "write": Volume._write,
    "pwrite64": Volume._pwrite,
    "ftruncate": Volume._ftruncate,
    "fsync": Volume._fsync,
    "fdatasync": Volume._fsync,
    "mkdir": Volume._mkdir,
    "mkdirat": Volume._mkdir,
    "link": Volume._link,
    "linkat": Volume._link,
    "rename": Volume._rename,
    "renameat": Volume._rename,
    "renameat2": Volume._rename,
    "unlink": Volume._unlink,
    "unlinkat": Volume._unlink,
    "sendto": Volume._sendto,
}


def success(call: Call) -> str | None:
    """The SOP Instance UID of the C-STORE response with status 0000 that a call sends."""
    for data in call.texts():
        if data[:1] == b"\x04" and len(data) > 12:  # P-DATA-TF with one value: the PDU header, its own, a command set
            command = read_dataset(BytesIO(data[12:]), True, True)
            if (command.get("CommandField"), command.get("Status")) == (0x8001, 0x0000):
                return str(command.AffectedSOPInstanceUID)
    return None


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
