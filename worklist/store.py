"""`Worklist`: the items and performed steps of a site. A method that returns has its change on disk.

A performed step, the move of its items and the event for the cloud are one transaction; so are a change of an item and
the record of its action. Not for: the rules of items (`items`) and steps (`mpps`), SQL (`item_rows`, `step_rows`),
matching (`gateway.query.matching`), visibility (`visibility`), expiry (`expiry`).
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Self

from pydicom.dataset import Dataset

from gateway import outbox
from gateway.dataset.dicom_json import from_data_set, to_data_set
from gateway.errors import Conflict, NotFound, OutOfResources
from gateway.outbox import Owner
from gateway.outbox.changed_exams import mark_changed
from gateway.query import matching
from gateway.query.conditions import AnyOf, where
from gateway.sqlite import Database, utc_text
from worklist import item_rows, mpps, step_rows
from worklist.item_rows import KEYS, PAGE, STATION
from worklist.items import LOCAL, ActionOrigin, Item, ItemState, new_study, performed_state
from worklist.mpps import Step
from worklist.step_rows import Performed
from worklist.visibility import Visibility, first_day, unsatisfied


class Found(NamedTuple):
    """An item to be answered: its data set in DICOM JSON, and its station if it names none itself."""

    data_set: str
    station: str


class Worklist(Owner):
    """The worklist's database. `open` it in the worklist process, `attach` in any other, `close` it."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open as the owner: create the file or bring it to the newest schema."""
        database = _database(path)
        database.migrate()
        return cls(database)

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Open beside the owner. Raises DatabaseNotReady while the file is not at the schema this program needs."""
        database = _database(path)
        database.check()
        return cls(database)

    # --- items

    def schedule(self, item: Item, *, action_id: str, content_hash: str, now: datetime, asked_at: str = "") -> Item:
        """Put an item on the worklist and fix its study. Once per action: a repeat gives the stored item.

        The same accession number under another action is the same item if nothing differs; a cancelled item of the same
        participant is scheduled anew. Raises Conflict when the action id was used for another content, the accession
        number for another item, or the study for another participant; no item on the worklist is ever replaced.
        """
        origin = ActionOrigin(action_id, content_hash, asked_at)
        return self._once(origin, lambda conn: _schedule(conn, item, origin, now=now), now=now)

    def update(self, item: Item, *, now: datetime, origin: ActionOrigin = LOCAL) -> Item:
        """Replace the content of an item that is scheduled; its study stays. Raises NotFound, or Conflict."""
        return self._change(item.accession_number, lambda stored: stored.updated(item), origin, now=now)

    def reschedule(
        self, accession_number: str, *, date: str, time: str, now: datetime, origin: ActionOrigin = LOCAL
    ) -> Item:
        """Give an open item another date (YYYYMMDD) and time (HHMMSS), wall time of the site.

        Raises NotFound, InvalidValue, or Conflict when the item is no longer open.
        """
        return self._change(accession_number, lambda item: item.rescheduled(date=date, time=time), origin, now=now)

    def change_status(
        self, accession_number: str, status: ItemState, *, now: datetime, origin: ActionOrigin = LOCAL
    ) -> Item:
        """Move an item for the cloud or an operator. Raises NotFound, or Conflict when `items.MOVES` forbids it."""
        return self._change(accession_number, lambda item: item.moved(status), origin, now=now)

    def cancel(self, accession_number: str, *, now: datetime, origin: ActionOrigin = LOCAL) -> Item:
        """Take an item off the worklist. Raises NotFound, or Conflict when it has begun."""
        return self.change_status(accession_number, "cancelled", now=now, origin=origin)

    def item(self, accession_number: str) -> Item:
        """One item. Raises NotFound."""
        with self._database.read() as conn:
            return item_rows.expect_item(conn, accession_number)

    def items_of(self, *, study_instance_uid: str, accession_number: str = "") -> list[Item]:
        """The items that have this study or this accession number, in the order of their numbers."""
        with self._database.read() as conn:
            return item_rows.items_with(conn, study_instance_uid, accession_number)

    def items(self, *, date: str | None = None, state: ItemState | None = None) -> list[Item]:
        """All items in clinic order, or only those of one day (YYYYMMDD), or in one state."""
        with self._database.read() as conn:
            rows = item_rows.rows(conn, date=date, state=state)
        return [item_rows.read_item(row) for row in rows]

    def expect_unused(self, origin: ActionOrigin) -> None:
        """Raise Conflict when an action id was carried out with another content."""
        with self._database.read() as conn:
            item_rows.done(conn, origin)

    def find(
        self, values: Mapping[str, str], *, calling_ae_title: str, visibility: Visibility | None = None
    ) -> Iterator[Found]:
        """Find the items that match a query (`Identifier.values`) and are visible to the modality, in clinic order.

        Without `visibility` the default rule holds. Each page is one state of the worklist. Raises InvalidQuery before
        the first item, OutOfResources after as many as the rule's limit.
        """
        visibility = visibility or Visibility(calling_ae_title)
        station = visibility.station(_station(values, calling_ae_title))
        wanted = visibility.conditions(matching.conditions_on(values, KEYS))
        expression, parameters = where(wanted)
        parameters |= {"station": station, "date": first_day(wanted)}
        return _within(self._found(expression, parameters), visibility.rule.limit)

    def _found(self, expression: str, parameters: dict[str, str]) -> Iterator[Found]:
        # A page at a time, because a slow peer, or one that takes thousands of answers, must neither hold a transaction
        # open nor take memory.
        behind = {"date": parameters["date"], "time": "", "accession_number": ""}
        while True:
            with self._database.read() as conn:
                rows = item_rows.page(conn, expression, {**parameters, **behind})
            for row in rows:
                yield Found(row["data_set"], parameters["station"])
            if len(rows) < PAGE:
                return
            behind = {name: rows[-1][name] for name in behind}

    def explain(self, values: Mapping[str, str], visibility: Visibility) -> Iterator[tuple[Item, tuple[str, ...]]]:
        """Yield every item in clinic order with the reasons why `find` would not answer it; none if it would.

        A reason is a sentence. Raises InvalidQuery.
        """
        query = matching.conditions_on(values, KEYS)
        station = visibility.station(_station(values, visibility.calling_ae_title))
        with self._database.read_at_length() as conn:
            rows = item_rows.whole_rows(conn)
        verdicts = (
            visibility.why_not(query, dict(row), stations=json.loads(row["station_ae_titles"]), station=station)
            for row in rows
        )
        yield from zip(map(item_rows.read_item, rows), unsatisfied(verdicts, visibility.rule.limit), strict=True)

    # --- performed steps

    def begin(self, mpps_instance_uid: str, data_set: Dataset, *, now: datetime) -> None:
        """Store a step that a modality has begun (N-CREATE). Raises the Refusals of `mpps.begin`."""
        given = from_data_set(data_set)
        with self._database.write() as conn:
            stored = step_rows.find_step(conn, mpps_instance_uid)
            self._keep(conn, stored, mpps.begin(stored, mpps_instance_uid, given), now=now)

    def change(self, mpps_instance_uid: str, data_set: Dataset, *, now: datetime) -> None:
        """Store a modality's update of its step (N-SET). Raises the Refusals of `mpps.change`."""
        given = from_data_set(data_set)
        with self._database.write() as conn:
            stored = step_rows.find_step(conn, mpps_instance_uid)
            self._keep(conn, stored, mpps.change(stored, given), now=now)

    def close_step(self, mpps_instance_uid: str, *, by: str, because: str, now: datetime) -> Step:
        """End a step whose modality will not: it is DISCONTINUED, and its event names the person and the reason.

        The end is `now` in its own zone, which has to be the site's. Raises NotFound, NoLongerUpdatable.
        """
        with self._database.write() as conn:
            stored = step_rows.find_step(conn, mpps_instance_uid)
            closed = mpps.close(stored, by=by, because=because, now=now)
            self._keep(conn, stored, closed, now=now)
        return closed

    def step(self, mpps_instance_uid: str) -> Dataset:
        """The step as its modality described it (N-GET). Raises NotFound."""
        with self._database.read() as conn:
            step = step_rows.find_step(conn, mpps_instance_uid)
        if step is None:
            raise NotFound("No performed procedure step has this UID.")
        return to_data_set(step.data_set)

    def steps(self, accession_number: str) -> list[Step]:
        """All steps that performed an item, in the order they began."""
        with self._database.read() as conn:
            return step_rows.steps_of(conn, accession_number)

    def open_steps(self) -> list[tuple[Step, str]]:
        """All steps in progress with the time (UTC text) they were announced, the oldest first."""
        with self._database.read() as conn:
            return step_rows.open_steps(conn)

    def began_last(self) -> str:
        """The time of the newest N-CREATE (UTC text); '' when there was none."""
        with self._database.read() as conn:
            return step_rows.began_last(conn)

    def performed(self, accession_number: str) -> Performed:
        """The instances that the steps of an item, or of an accession number that was never scheduled, report."""
        with self._database.read() as conn:
            return step_rows.performed(conn, accession_number)

    # --- inside a transaction

    def _once(self, origin: ActionOrigin, change: Callable[[sqlite3.Connection], Item], *, now: datetime) -> Item:
        """Carry out an action once; for a repeat return the item of the action."""
        with self._database.write() as conn:
            done = item_rows.done(conn, origin)
            item = change(conn) if done is None else done
            if done is None and origin.action_id:
                item_rows.note_action(conn, origin, item, now=now)
        return item

    def _change(
        self, accession_number: str, change: Callable[[Item], Item], origin: ActionOrigin, *, now: datetime
    ) -> Item:
        def apply(conn: sqlite3.Connection) -> Item:
            stored = item_rows.expect_item(conn, accession_number)
            changed = change(stored.requested(origin))
            _refuse_shared_study(conn, changed)
            return _update(conn, stored, changed, now=now)

        return self._once(origin, apply, now=now)

    def _keep(self, conn: sqlite3.Connection, stored: Step | None, step: Step, *, now: datetime) -> None:
        if step is stored:
            return
        # Fixed at the first store, because all events of a step must have one subject to stay in order.
        if stored is None:
            step = replace(step, told_as=step_rows.told_as(conn, step))
        step_rows.save_step(conn, step, now=now)
        if stored is None:
            step_rows.link(conn, step)
        for accession_number in step_rows.performed_numbers(conn, step):
            mark_changed(conn, accession_number=accession_number, at=utc_text(now))
        if stored is None or step.status != stored.status:
            for item in item_rows.items_of(conn, step.mpps_instance_uid):
                _update(conn, item, replace(item, state=_performed_state(conn, item)), now=now)
            self.outbox.put_event(conn, mpps.event(step), now=now)


def _database(path: Path) -> Database:
    return Database(path, outbox.SCHEMA, files("worklist") / "schema")


# --- what may happen to an item, inside a transaction


def _schedule(conn: sqlite3.Connection, item: Item, origin: ActionOrigin, *, now: datetime) -> Item:
    stored = item_rows.find_item(conn, item.accession_number)
    if stored is not None:
        return _schedule_again(conn, stored, replace(item, action_id=origin.action_id), origin, now=now)
    item = item.with_study(new_study(origin.action_id, item.accession_number))
    _refuse_shared_study(conn, item)
    item = replace(item, action_id=origin.action_id, revision=1, asked_at=origin.asked_at, created_at=utc_text(now))
    return _save(conn, replace(item, state=_performed_state(conn, item)), now=now)


def _schedule_again(conn: sqlite3.Connection, stored: Item, item: Item, origin: ActionOrigin, *, now: datetime) -> Item:
    """Schedule an item whose accession number is known."""
    item = item.with_study(stored.study_instance_uid)
    if item.data_set == stored.data_set and stored.state != "cancelled":
        return stored
    if stored.state != "cancelled" or item.participant_id != stored.participant_id:
        raise Conflict(
            f"Accession number {item.accession_number} is on the worklist with other content; "
            "update, reschedule or cancel that item, or use another accession number."
        )
    anew = stored.requested(origin).moved("scheduled").updated(item)
    return _update(conn, stored, replace(anew, action_id=item.action_id), now=now)


def _refuse_shared_study(conn: sqlite3.Connection, item: Item) -> None:
    # Several items may be steps of one study, but never of different participants.
    taken = item_rows.anothers_with_study(conn, item)
    if taken is not None:
        raise Conflict(
            f"The study of item {item.accession_number} is that of another participant's item {taken};"
            " leave StudyInstanceUID out, or use another one."
        )


def _update(conn: sqlite3.Connection, stored: Item, item: Item, *, now: datetime) -> Item:
    """Save a known item, under its next revision if more than the time of the action has changed."""
    if item == stored:
        return stored
    is_same = replace(item, asked_at=stored.asked_at) == stored
    return _save(conn, replace(item, revision=stored.revision + (not is_same)), now=now)


def _save(conn: sqlite3.Connection, item: Item, *, now: datetime) -> Item:
    item = replace(item, updated_at=utc_text(now))
    item_rows.save_item(conn, item)
    mark_changed(
        conn, study_instance_uid=item.study_instance_uid, accession_number=item.accession_number, at=item.updated_at
    )
    return item


def _station(values: Mapping[str, str], calling_ae_title: str) -> str:
    """The station that an item for any station is answered with: the one title in the query, else the calling one."""
    keys = [key for key in KEYS if key.path == STATION]
    match matching.conditions_on(values, keys):
        case [AnyOf(values=(station,))]:
            return station
    return calling_ae_title


def _within(found: Iterator[Found], limit: int) -> Iterator[Found]:
    for number, each in enumerate(found):
        # A failure and not Success, because Success says that these were all, and a participant who is not on the list
        # is not screened. PS3.4 Table K.4-1 has no third status.
        if limit and number == limit:
            raise OutOfResources(f"More than {limit} items match; ask for a day, a name or an id.")
        yield each


def _performed_state(conn: sqlite3.Connection, item: Item) -> ItemState:
    statuses = {step.status for step in step_rows.steps_of(conn, item.accession_number)}
    return performed_state(statuses, otherwise=item.state)
