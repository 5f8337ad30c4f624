"""A pacs process that is killed at random moments while several machines send to it, again and again.

A campaign is lives on one data folder after another: start, check everything, send, SIGKILL. What was not acknowledged
is sent again in the next life, as a machine does it. All that is random comes from the seed, except the system's own.
"""

import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from simulator.site import free_port
from tests.durability import objects
from tests.durability.truth import Folder, faults, rows
from tests.durability.zygote import Pacs, Zygote
from tests.tools.raw_peer import RawPeer
from tests.tools.waiting import wait_until

SENDERS = 4
LIVES_OF_A_FOLDER = 20
"""After so many kills a campaign goes on in an empty folder: making the first database is killed too, and checking all
of a folder after every start stays quick."""

MOST_OF_A_LIFE = 15
"""Objects that are acknowledged in one life, at most, before the kill. Counted, so that a slow machine gets as far."""

LAST_MOMENT = 0.02
"""Seconds from the last of them to the kill, at most: twice as long as a small object takes."""

KILLED_AT_START = 0.15
"""The share of lives that end while the process starts, cleans up or has just begun to listen."""


@dataclass
class Tally:
    """What a campaign did and saw."""

    kills: int = 0
    acknowledged: int = 0
    sent_again: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The figures, one a line."""
        facts = {
            "kills": self.kills,
            "objects acknowledged": self.acknowledged,
            "sent again after a kill": self.sent_again,
            **{f"killed, leaving {state}": count for state, count in sorted(self.states.items())},
            "lost": sum("lost" in fault for fault in self.faults),
            "partial or otherwise wrong": sum("lost" not in fault for fault in self.faults),
        }
        return "\n".join(f"{name:<48}{value:>8}" for name, value in facts.items())


class Machines:
    """Several senders, each with an association of its own, and what they were told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.acknowledged: set[int] = set()
        self.begun: set[int] = set()
        self.refused: list[str] = []

    def send(self, numbers: list[int]) -> list[threading.Thread]:
        """Begin to send these objects; each thread ends when all are sent or the connection breaks."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in numbers:
            waiting.put(number)
        threads = [threading.Thread(target=self._send, args=(waiting,)) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        return threads

    def _send(self, waiting: "queue.SimpleQueue[int]") -> None:
        # What a killed process looks like from outside: a reset, an end in the middle of an answer, nobody there.
        gone = suppress(OSError, AssertionError, IndexError)
        with gone, RawPeer(self.port, objects.SOP_CLASS, objects.EXPLICIT) as peer, suppress(queue.Empty):
            while True:
                self._send_one(peer, waiting.get_nowait())

    def _send_one(self, peer: RawPeer, number: int) -> None:
        data = objects.data_set(number)
        self.begun.add(number)
        answer = peer.store(objects.SOP_CLASS, objects.uid(number), data)
        if answer.status == 0x0000:
            self.acknowledged.add(number)
        else:
            self.refused.append(f"{objects.uid(number)} was refused: {answer.status:04X} {answer.error_comment}")


def campaign(zygote: Zygote, folder: Path, *, kills: int, seed: int, progress: Callable[[Tally], None]) -> Tally:
    """Kill so many times. Stops at the first folder that is not as it must be, and leaves it for a look."""
    tally, chance = Tally(), Random(seed)
    while tally.kills < kills and not tally.faults:
        data = folder / f"data{tally.kills}"
        _Lives(zygote, Folder(data), chance, tally).lead(min(LIVES_OF_A_FOLDER, kills - tally.kills))
        progress(tally)
        if not tally.faults:
            shutil.rmtree(data)
    return tally


class _Lives:
    """One data folder and the processes that live and die on it."""

    def __init__(self, zygote: Zygote, folder: Folder, chance: Random, tally: Tally) -> None:
        self.zygote = zygote
        self.folder = folder
        self.chance = chance
        self.tally = tally
        self.machines = Machines(free_port())
        self.acknowledged_before = tally.acknowledged
        self.left: dict[str, bool] = {}

    def lead(self, kills: int) -> None:
        for _ in range(kills):
            if self.chance.random() < KILLED_AT_START:
                self._die_young()
            else:
                self._live_and_die()
            self.tally.kills += 1
            if self.tally.faults:
                return
        self._live_on()

    def _die_young(self) -> None:
        pacs = self._start()
        time.sleep(self.chance.uniform(0, 0.05))
        pacs.kill()

    def _live_and_die(self) -> None:
        pacs = self._started()
        threads = self.machines.send(self._numbers())
        enough = len(self.machines.acknowledged) + self.chance.randint(0, MOST_OF_A_LIFE)
        wait_until(lambda: len(self.machines.acknowledged) >= enough or not any(each.is_alive() for each in threads))
        time.sleep(self.chance.uniform(0, LAST_MOMENT))
        pacs.kill()
        for thread in threads:
            thread.join()
        kept = {path.stem for path in self.folder.kept()}
        self.left = {(name := part.split(".")[0]): name in kept for part in self.folder.incoming()}

    def _live_on(self) -> None:
        """The last start: everything that was ever begun is sent again, and then everything is there."""
        pacs = self._started()
        for thread in self.machines.send(sorted(self.machines.begun)):
            thread.join()
        self._check()
        missing = self.machines.begun - self.machines.acknowledged
        self.tally.faults += [f"{objects.uid(number)} was not taken when sent again" for number in sorted(missing)]
        pacs.kill()

    def _start(self) -> Pacs:
        return self.zygote.start(self.folder.path, self.machines.port)

    def _started(self) -> Pacs:
        pacs = self._start()
        pacs.wait_until_listening()
        self._count_states()
        self._check()
        return pacs

    def _numbers(self) -> list[int]:
        """What was begun and not acknowledged, some that are there already, and new ones, more than can be sent."""
        again = sorted(self.machines.begun - self.machines.acknowledged)
        self.tally.sent_again += len(again)
        known = self.chance.sample(sorted(self.machines.acknowledged), min(2, len(self.machines.acknowledged)))
        next_number = max(self.machines.begun, default=-1) + 1
        return [*again, *known, *range(next_number, next_number + 200)]

    def _check(self) -> None:
        self.tally.acknowledged = self.acknowledged_before + len(self.machines.acknowledged)
        self.tally.faults += self.machines.refused
        self.tally.faults += faults(self.folder, self.machines.begun, self.machines.acknowledged)

    def _count_states(self) -> None:
        """How far the receipts had come that the last kill has cut off: what lay there then, what has a row now."""
        known = rows(self.folder)
        with_row = {self.folder.place(uid).stem for uid in known}
        for name, was_linked in self.left.items():
            if name in with_row:
                self.tally.states["a row, its name still in incoming"] += 1
            else:
                self.tally.states["a file in its place without a row" if was_linked else "an unfinished file"] += 1
        self.left = {}
        told = {objects.uid(number) for number in self.machines.acknowledged}
        self.tally.states["everything but the answer"] += len(set(known) - told)
