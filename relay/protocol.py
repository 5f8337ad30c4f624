"""The messages of the cloud as pure functions: text to action, answer to text, outbox entry to envelope.

A message that cannot be understood is refused in one sentence that names the field and the expected value.

Not here: the shapes (`gateway.messages`), carrying out an action (`relay.cloud.commands`).
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import NoReturn
from zoneinfo import ZoneInfo

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import InvalidValue, MissingAttribute, Refusal, Unsupported
from gateway.messages import ACTIONS, Action, ActionReference, Envelope, Scheduled
from gateway.outbox import Entry
from gateway.sqlite import utc_text
from worklist import ActionOrigin

Json = dict[str, object]

NO_ACTION = "no-op"
"""The action type of a message that has none."""

LONGEST_NAME = 64
"""Characters of an unknown action's name that we repeat."""

_EXPECTED = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be a text",
    "string_unicode": "must be a text",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def parse(text: str) -> Json:
    """Read a message as a JSON object. Raises InvalidValue."""
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidValue("The message is not JSON.") from None
    if not isinstance(message, dict):
        raise InvalidValue("The message must be a JSON object.")
    return message


def decode(message: Mapping[str, object]) -> Action:
    """Read a message as an action.

    Raises Unsupported for an action we do not know, MissingAttribute or InvalidValue naming the fields that are wrong.
    """
    action_type = message.get("action_type") or NO_ACTION
    model = ACTIONS.get(action_type) if isinstance(action_type, str) else None
    if model is None:
        raise Unsupported(f"Unsupported action: {_printable(action_type)}")
    try:
        return model.model_validate(message)
    except ValidationError as error:
        raise _refusal(error) from None


def claimed_action_id(message: Mapping[str, object]) -> str | None:
    """The action id for the answer, also when the rest of the message makes no sense; None if it has none."""
    action_id = message.get("action_id")
    return action_id if isinstance(action_id, str) and len(action_id) <= 128 else None


def encode(answer: Mapping[str, object]) -> str:
    """Write an answer as one JSON text."""
    return json.dumps(answer, separators=(",", ":"), allow_nan=False)


def refused(refusal: Refusal, *, action_id: str | None) -> Json:
    """The answer to an action that was not done."""
    return {"status": "error", "code": refusal.code, "message": str(refusal), "action_id": action_id}


def content_hash(action: Action) -> str:
    """Digest of an action's content, by which a repeat differs from another request under the same id.

    Left out are the fields that vary between two sendings (time, sender), unknown keys, and defaults.
    """
    # Without defaults, so that a newer version of this program recognises what an older one has done.
    content = action.model_dump(
        mode="json", exclude_defaults=True, exclude={"schema_version", "action_id", "timestamp", "source_system"}
    )
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def origin(action: Action, *, now: datetime) -> ActionOrigin:
    """The origin of an action, as the worklist stores it."""
    return ActionOrigin(action.action_id, content_hash(action), asked_at(action.timestamp, now=now))


def asked_at(timestamp: str, *, now: datetime) -> str:
    """When an action was made, UTC text; '' when its time is not RFC 3339 with a zone.

    It orders requests about one item and nothing else.
    """
    try:
        moment = datetime.fromisoformat(timestamp)
        # A time in the future is a wrong clock, and must not turn away every request until then.
        return utc_text(min(moment, now)) if moment.tzinfo else ""
    except (ValueError, OverflowError):
        return ""


def site_time(scheduled: Scheduled, *, cloud: tzinfo | None, site: tzinfo | None = None) -> Scheduled:
    """Convert an appointment to the wall time of the site, which a worklist has (PS3.5 6.2, TM).

    A message that names its zone is converted from it, any other from `cloud`; None means that the cloud sends the
    site's wall time already. `site` None is the zone of this computer.
    """
    zone = ZoneInfo(scheduled.timezone) if scheduled.timezone else cloud
    if zone is None:
        return scheduled
    there = datetime.strptime(scheduled.date + scheduled.time.ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=zone)
    here = there.astimezone(site)
    return scheduled.model_copy(
        update={"date": here.strftime("%Y%m%d"), "time": here.strftime("%H%M%S"), "timezone": ""}
    )


def envelope(entry: Entry, *, site: str, action_id: str | None, parameters: Json) -> Envelope:
    """Put an entry into the envelope of every event; the same entry always gives the same message."""
    return Envelope(
        message_id=entry.message_id,
        message_type=entry.message_type,
        timestamp=entry.created_at,
        site=site,
        sequence=entry.sequence,
        source_reference=ActionReference(action_id=action_id),
        parameters=parameters,
    )


def _refuse_constant(_name: str) -> NoReturn:
    # Python reads NaN and Infinity, JSON has none (RFC 8259 section 6), and our answer may have to repeat them.
    raise ValueError


def _refusal(error: ValidationError) -> Refusal:
    # Without the input: values are patient data, and the sentence ends up in logs on both sides.
    details = error.errors(include_url=False, include_input=False)
    kind = MissingAttribute if details[0]["type"] == "missing" else InvalidValue
    return kind("; ".join(_sentence(detail) for detail in details) + ".")


def _sentence(detail: ErrorDetails) -> str:
    expected = _EXPECTED.get(detail["type"], "cannot be used").format(**detail.get("ctx", {}))
    return f"{'.'.join(str(part) for part in detail['loc'])} {expected}"


def _printable(action_type: object) -> str:
    text = action_type if isinstance(action_type, str) else type(action_type).__name__
    return "".join(character if character.isprintable() else "?" for character in text[:LONGEST_NAME])
