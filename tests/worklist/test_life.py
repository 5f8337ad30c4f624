"""A worklist under whatever comes in whatever order, over restarts, held against a model that knows no SQL.

The model says in a few lines what PS3.4 F.7 and the rules of items say; after every move the real database has to agree
on every item, every step, and every event that is owed.
"""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.errors import Conflict, NoLongerUpdatable, NotFound, Refusal
from tests.worklist.samples import NOW, begun, ended, item
from worklist import Worklist

NUMBERS = ("A", "B")
STEPS = ("1.1", "1.2", "1.3")


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "worklist.db"
        self.worklist = Worklist.open(self.path)
        self.now = NOW
        self.items: dict[str, str] = {}  # accession number: state
        self.steps: dict[str, tuple[tuple[str, ...], str, str]] = {}  # UID: numbers, content, status
        self.events: list[str] = []
        self.studies: dict[str, str] = {}

    def teardown(self) -> None:
        self.worklist.close()
        self.folder.cleanup()

    # --- moves

    @rule(number=st.sampled_from(NUMBERS))
    def schedule(self, number: str) -> None:
        self.now += timedelta(seconds=1)
        action = f"{number}-{self.now:%H%M%S}"
        made = self.worklist.schedule(item(number), action_id=action, content_hash="h", now=self.now)
        if self.items.get(number) == "cancelled":
            self.items[number] = "scheduled"
        elif number not in self.items:
            self.items[number] = "scheduled"
            self.recall(number)
        assert self.studies.setdefault(number, made.study_instance_uid) == made.study_instance_uid

    @rule(number=st.sampled_from(NUMBERS))
    def cancel(self, number: str) -> None:
        allowed = self.items.get(number) in ("scheduled", "cancelled")
        refusal: type[Refusal] | None = None if allowed else Conflict if number in self.items else NotFound
        self.attempt(refusal, lambda: self.worklist.cancel(number, now=self.now))
        if allowed:
            self.items[number] = "cancelled"

    @rule(
        uid=st.sampled_from(STEPS),
        numbers=st.sampled_from([("A",), ("B",), ("A", "B"), ()]),
        name=st.sampled_from("PQ"),
    )
    def n_create(self, uid: str, numbers: tuple[str, ...], name: str) -> None:
        data_set = begun(numbers[0] if numbers else "")
        data_set.PerformedProcedureStepID = name
        for number in numbers[1:]:
            data_set.ScheduledStepAttributesSequence.append(begun(number).ScheduledStepAttributesSequence[0])
        known = self.steps.get(uid)
        repeated = known is not None and known[:2] == (numbers, name)
        refusal = Conflict if known is not None and not repeated else None
        self.attempt(refusal, lambda: self.worklist.begin(uid, data_set, now=self.now))
        if known is None:
            self.steps[uid] = (numbers, name, "IN PROGRESS")
            self.tell(uid, "in_progress")

    @rule(uid=st.sampled_from(STEPS), status=st.sampled_from(["", "IN PROGRESS", "COMPLETED", "DISCONTINUED"]))
    def n_set(self, uid: str, status: str) -> None:
        data_set = ended(status)
        if not status:
            del data_set.PerformedProcedureStepStatus
        self.move(uid, status, lambda: self.worklist.change(uid, data_set, now=self.now))

    @rule(uid=st.sampled_from(STEPS))
    def close(self, uid: str) -> None:
        self.move(
            uid,
            "DISCONTINUED",
            lambda: self.worklist.close_step(uid, by="J. Smith", because="tube failed", now=self.now),
        )

    @rule()
    def restart(self) -> None:
        self.worklist.close()
        self.worklist = Worklist.open(self.path)

    # --- the model

    def move(self, uid: str, status: str, act: object) -> None:
        known = self.steps.get(uid)
        refusal = NotFound if known is None else None if known[2] == "IN PROGRESS" else NoLongerUpdatable
        self.attempt(refusal, act)
        if known is not None and refusal is None and status not in ("", "IN PROGRESS"):
            self.steps[uid] = (*known[:2], status)
            self.tell(uid, status.lower())

    def tell(self, uid: str, what: str) -> None:
        self.events.append(f"{uid}/{what}")
        for number in self.steps[uid][0]:
            self.recall(number)

    def recall(self, number: str) -> None:
        statuses = {status for numbers, _, status in self.steps.values() if number in numbers}
        if number in self.items and statuses:
            first = next(each for each in ("IN PROGRESS", "COMPLETED", "DISCONTINUED") if each in statuses)
            self.items[number] = first.lower().replace(" ", "_")

    @staticmethod
    def attempt(refusal: type[Refusal] | None, act: object) -> None:
        assert callable(act)
        try:
            act()
        except Refusal as error:
            assert type(error) is refusal, error
        else:
            assert refusal is None, "it should have been refused"

    # --- the comparison

    @invariant()
    def the_database_agrees(self) -> None:
        assert {each.accession_number: each.state for each in self.worklist.items()} == self.items
        for uid, (_, _, status) in self.steps.items():
            assert self.worklist.step(uid).PerformedProcedureStepStatus == status
        owed = sorted(self.worklist.outbox.entries("open"), key=lambda entry: entry.id)
        assert [entry.message_id for entry in owed] == self.events
        for number in NUMBERS:
            mine = {uid for uid, (numbers, _, _) in self.steps.items() if number in numbers}
            assert {each.mpps_instance_uid for each in self.worklist.steps(number)} == mine


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
