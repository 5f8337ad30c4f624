"""A file of appointments for the worklist: a JSON list (or one object) whose entries are any of

* worklist items as the cloud writes them: `{"accession_number": ..., "participant": {...}, ...}`
* whole actions of the cloud: `{"action_type": "worklist.create_item", "action_id": ..., "parameters": {...}}`
* whole data sets in DICOM JSON: `{"00080050": {"vr": "SH", "Value": [...]}, ...}`

The whole file is checked before anything is scheduled: one wrong entry refuses all.

Not for: actions of the cloud (`relay.cloud.commands`, with the same models).
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import InvalidValue, Refusal, Unsupported
from gateway.messages import LOCAL_ACTION, CreateItem, CreateTestItem
from relay import protocol
from worklist import Item

_TAG = re.compile(r"[0-9A-Fa-f]{8}")


@dataclass(frozen=True)
class Appointment:
    """One entry, as `Worklist.schedule` takes it."""

    item: Item
    action_id: str
    content_hash: str


def read(path: Path) -> list[Appointment]:
    """Read a file of appointments. Raises InvalidValue naming the entry and the field, never its value."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InvalidValue(f"{path} is not JSON.") from None
    entries = content if isinstance(content, list) else [content]
    return [_appointment(entry, f"{path.name}, entry {number}") for number, entry in enumerate(entries, start=1)]


def _appointment(entry: object, where: str) -> Appointment:
    try:
        if not isinstance(entry, dict):
            raise InvalidValue("An object was expected.")
        if "action_type" in entry:
            return _from_action(entry)
        return _from_data_set(entry) if all(map(_TAG.fullmatch, entry)) else _from_item(entry)
    except Refusal as refusal:
        # Of the same type, because programs go by its code.
        raise type(refusal)(f"{where}: {refusal}") from None


def _from_action(entry: dict[str, object]) -> Appointment:
    action = protocol.decode(entry)
    if not isinstance(action, CreateItem | CreateTestItem):
        raise Unsupported("Only actions that create an item can be read from a file.")
    item = action.parameters.worklist_item
    here = item.model_copy(update={"scheduled": protocol.site_time(item.scheduled, cloud=None)})
    scheduled = Item.from_message(
        here,
        action_id=action.action_id,
        appointment_id=action.source_reference.appointment_id,
    )
    return Appointment(scheduled, action.action_id, protocol.content_hash(action))


def _from_item(entry: dict[str, object]) -> Appointment:
    action = {"action_type": "worklist.create_item", "parameters": {"worklist_item": entry}}
    return _from_action({**action, "action_id": _local_id(entry)})


def _from_data_set(entry: dict[str, object]) -> Appointment:
    return Appointment(Item.from_dicom_json(entry), _local_id(entry), _fingerprint(entry))


def _local_id(entry: dict[str, object]) -> str:
    """The id of an action that is not the cloud's."""
    # Of the content, so that the same file again repeats its actions and changes nothing.
    return f"{LOCAL_ACTION}{_fingerprint(entry)[:32]}"


def _fingerprint(entry: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
