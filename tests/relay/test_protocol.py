"""The language spoken with the cloud: what is understood, and how a refusal names the field and never the value."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refusal, Unsupported
from gateway.messages import CreateItem, Envelope, Health, Scheduled
from gateway.outbox import Entry
from relay import protocol
from relay.protocol import Json

ACTION_ID = "5f0c1d6e-6f0e-4a53-9a6f-0d1f6a1c0001"


def create(**changes: object) -> Json:
    """A create action; a change names the place in the item, levels divided by two underscores."""
    item: Json = {
        "accession_number": "ACC202611220001",
        "participant": {"nhs_number": "9990000017", "name": "EXAMPLE^ANNA", "birth_date": "19680412", "sex": "F"},
        "scheduled": {"date": "20261122", "time": "101500"},
        "procedure": {"modality": "MG", "study_description": "Screening mammography"},
    }
    for path, value in changes.items():
        inner = item
        *levels, last = path.split("__")
        for level in levels:
            found = inner[level]
            assert isinstance(found, dict)
            inner = found
        inner[last] = value
    return {
        "schema_version": 1,
        "action_type": "worklist.create_item",
        "action_id": ACTION_ID,
        "timestamp": "2026-11-22T08:00:00Z",
        "parameters": {"worklist_item": item},
    }


def without(message: Json, *path: str) -> Json:
    first, *rest = path
    inner = message[first]
    if rest:
        assert isinstance(inner, dict)
        return {**message, first: without(inner, *rest)}
    return {key: value for key, value in message.items() if key != first}


def refusal(message: Json) -> tuple[str, str]:
    with pytest.raises(Refusal) as caught:
        protocol.decode(message)
    return caught.value.code, str(caught.value)


# --- parse ------------------------------------------------------------------------------------------------------------


def test_an_object_is_read() -> None:
    assert protocol.parse('{"action_type": "health"}') == {"action_type": "health"}


@pytest.mark.parametrize(
    "text", ["", "{", "hello", '{"a": NaN}', '{"a": -Infinity}', "[" * 100_000, '{"a":1}x', "\x00"]
)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match=r"^The message is not JSON\.$"):
        protocol.parse(text)


@pytest.mark.parametrize("text", ["[]", "null", '"echo"', "17", "true"])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match=r"^The message must be a JSON object\.$"):
        protocol.parse(text)


# --- decode -----------------------------------------------------------------------------------------------------------


def test_a_known_action_is_understood() -> None:
    action = protocol.decode(create(accession_number=" ACC1 "))
    assert isinstance(action, CreateItem)
    assert action.action_id == ACTION_ID
    assert action.parameters.worklist_item.accession_number == "ACC1"
    assert isinstance(protocol.decode({"action_type": "health"}), Health)


@pytest.mark.parametrize(
    ("message", "code", "sentence"),
    [
        ({}, "unsupported", "Unsupported action: no-op"),
        ({"action_type": "no-op"}, "unsupported", "Unsupported action: no-op"),
        ({"action_type": "image.request"}, "unsupported", "Unsupported action: image.request"),
        ({"action_type": ["echo"]}, "unsupported", "Unsupported action: list"),
        ({"action_type": "a\nb" + "x" * 99}, "unsupported", "Unsupported action: a?b" + "x" * 61),
        (
            without(create(), "action_id"),
            "missing_attribute",
            "action_id is missing.",
        ),
        (
            without(create(), "parameters", "worklist_item", "participant", "name"),
            "missing_attribute",
            "parameters.worklist_item.participant.name is missing.",
        ),
        (
            without(create(), "parameters", "worklist_item", "accession_number"),
            "missing_attribute",
            "parameters.worklist_item.accession_number is missing.",
        ),
        (
            create(accession_number="ACC-SECRET-1234567"),
            "invalid",
            "parameters.worklist_item.accession_number must have at most 16 characters.",
        ),
        (
            create(scheduled__date="22.11.2026"),
            "invalid",
            "parameters.worklist_item.scheduled.date must be a date of the calendar written YYYYMMDD.",
        ),
        (
            create(participant__sex="SECRET"),
            "invalid",
            "parameters.worklist_item.participant.sex must be 'M', 'F', 'O' or ''.",
        ),
        (
            create(participant="SECRET"),
            "invalid",
            "parameters.worklist_item.participant must be an object.",
        ),
        (
            create(participant__name=17),
            "invalid",
            "parameters.worklist_item.participant.name must be a text.",
        ),
        (
            create(accession_number="", procedure__modality="secret"),
            "invalid",
            "parameters.worklist_item.accession_number must not be empty; "
            "parameters.worklist_item.procedure.modality must hold upper case letters, digits, spaces and underscores "
            "only.",
        ),
        (
            create(dicom={"SECRET^NAME": {"vr": "PN"}}),
            "invalid",
            "parameters.worklist_item.dicom must be DICOM JSON: eight hexadecimal digits naming an object with its vr "
            "(PS3.18 F.2).",
        ),
        (
            {**create(), "schema_version": 2},
            "invalid",
            "schema_version must be 1.",
        ),
        (
            {**create(), "action_id": "../../x"},
            "invalid",
            "action_id must be 1 to 128 letters, digits, dots, colons, hyphens and underscores.",
        ),
    ],
)
def test_a_refusal_names_the_field_and_what_was_expected(message: Json, code: str, sentence: str) -> None:
    assert refusal(message) == (code, sentence)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
SECRET = "S3CRET"


@given(
    field=st.sampled_from(
        [
            "accession_number",
            "participant",
            "participant__nhs_number",
            "participant__name",
            "participant__birth_date",
            "participant__sex",
            "scheduled",
            "scheduled__date",
            "scheduled__time",
            "scheduled__timezone",
            "procedure__modality",
            "procedure__study_description",
            "dicom",
        ]
    ),
    value=JSON.map(lambda value: [SECRET, value]) | st.just({SECRET: SECRET}) | st.just(SECRET * 20),
)
def test_no_refusal_ever_repeats_a_value(field: str, value: object) -> None:
    with pytest.raises(Refusal) as caught:
        protocol.decode(create(**{field: value}))
    assert SECRET not in str(caught.value)


@given(st.text())
def test_any_text_is_an_action_or_a_refusal(text: str) -> None:
    try:
        protocol.decode(protocol.parse(text))
    except Refusal as refused:
        assert str(refused)


@given(st.dictionaries(st.text(), JSON), st.sampled_from(["echo", "health", "worklist.update_status", "x", None, 5]))
def test_any_object_is_an_action_or_a_refusal(message: Json, action_type: object) -> None:
    try:
        protocol.decode({**message, "action_type": action_type})
    except Refusal as refused:
        assert str(refused)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "action_id"),
    [({"action_id": "a"}, "a"), ({}, None), ({"action_id": 5}, None), ({"action_id": "x" * 129}, None)],
)
def test_an_answer_carries_the_id_that_was_claimed(message: Json, action_id: str | None) -> None:
    assert protocol.claimed_action_id(message) == action_id


def test_a_refusal_is_answered_in_one_shape() -> None:
    answer = protocol.encode(protocol.refused(Unsupported("Unsupported action: x"), action_id="a"))
    assert answer == '{"status":"error","code":"unsupported","message":"Unsupported action: x","action_id":"a"}'


def test_half_a_surrogate_pair_can_be_echoed() -> None:
    text = r'{"action_type":"echo","half":"\ud83d"}'
    assert protocol.encode(protocol.parse(text)) == text


# --- content ----------------------------------------------------------------------------------------------------------


def content(message: Json) -> str:
    return protocol.content_hash(protocol.decode(message))


def test_a_repeat_has_the_same_content_whatever_its_envelope_says() -> None:
    repeat = {**create(), "timestamp": "later", "source_system": "other", "unknown": 1}
    assert content(create()) == content(repeat) == content(create(scheduled__timezone=""))


@pytest.mark.parametrize(
    "other",
    [
        create(scheduled__time="101501"),
        create(dicom={"001021C0": {"vr": "US", "Value": [4]}}),
        {**create(), "action_type": "worklist.create_test_item"},
        {**create(), "source_reference": {"appointment_id": "2"}},
    ],
)
def test_another_request_has_other_content(other: Json) -> None:
    assert content(create()) != content(other)


def test_the_fingerprint_does_not_change_with_the_program() -> None:
    assert content(create()) == "ad3590b0aef117f380dd1107c042c314dd70b0153c25b88d6e244d8d9d0a93a1"


# --- times ------------------------------------------------------------------------------------------------------------

CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("date", "time", "named", "cloud", "expected"),
    [
        ("20261122", "1015", "", None, ("20261122", "1015")),
        ("20261122", "1015", "", UTC, ("20261122", "111500")),
        ("20261122", "233000", "", UTC, ("20261123", "003000")),
        ("20261122", "10", "UTC", None, ("20261122", "110000")),
        ("20260701", "101500", "Europe/London", UTC, ("20260701", "101500")),
        ("99981231", "235959", "UTC", None, ("99990101", "005959")),
    ],
)
def test_an_appointment_is_put_into_the_sites_wall_time(
    date: str, time: str, named: str, cloud: timezone | None, expected: tuple[str, str]
) -> None:
    there = Scheduled(date=date, time=time, timezone=named)
    here = protocol.site_time(there, cloud=cloud, site=CET)
    assert (here.date, here.time) == expected


@pytest.mark.parametrize(
    ("utc", "here"),
    [
        # 29 March 2026: at 01:00 clocks in London go to 02:00. 25 October 2026: at 02:00 they go back to 01:00.
        (("20260329", "003000"), ("20260329", "003000")),
        (("20260329", "010000"), ("20260329", "020000")),
        (("20260701", "230000"), ("20260702", "000000")),
        (("20261025", "000000"), ("20261025", "010000")),
        (("20261025", "003000"), ("20261025", "013000")),
        (("20261025", "013000"), ("20261025", "013000")),
        (("20261025", "020000"), ("20261025", "020000")),
    ],
)
def test_a_cloud_that_sends_utc_is_right_on_the_days_when_clocks_change(
    utc: tuple[str, str], here: tuple[str, str]
) -> None:
    moved = protocol.site_time(Scheduled(date=utc[0], time=utc[1]), cloud=UTC, site=ZoneInfo("Europe/London"))
    assert (moved.date, moved.time) == here


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [("20260329", "013000", ("20260329", "013000")), ("20261025", "013000", ("20261025", "003000"))],
)
def test_a_wall_time_that_is_not_or_is_twice_is_read_by_the_clock_before_the_change(
    date: str, time: str, expected: tuple[str, str]
) -> None:
    moved = protocol.site_time(Scheduled(date=date, time=time, timezone="Europe/London"), cloud=None, site=UTC)
    assert (moved.date, moved.time) == expected


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00.000Z"),
        ("2026-11-22T08:00:00.123456+00:00", "2026-11-22T08:00:00.123Z"),
        ("2026-11-22T09:30:00+01:30", "2026-11-22T08:00:00.000Z"),
        ("2099-01-01T00:00:00Z", "2026-11-22T12:00:00.000Z"),
        ("2026-11-22T08:00:00", ""),
        ("22 Nov 2026", ""),
        ("0001-01-01T00:00:00+14:00", ""),
        ("", ""),
    ],
)
def test_the_time_of_a_request_is_known_if_it_says_so(timestamp: str, expected: str) -> None:
    assert protocol.asked_at(timestamp, now=datetime(2026, 11, 22, 12, tzinfo=UTC)) == expected


# --- envelope ---------------------------------------------------------------------------------------------------------


def test_an_entry_travels_in_an_envelope_that_never_changes() -> None:
    entry = Entry(
        id=7,
        message_id="1.2.3",
        subject="1.2",
        sequence=4,
        message_type="study.image_received",
        priority=2,
        parameters={"ignored": "here"},
        created_at="2026-11-22T08:00:00.000Z",
        destination="cloud",
        attempts=3,
        due_at="2026-11-22T09:00:00.000Z",
        reason="",
    )
    assert protocol.envelope(entry, site="Van 1", action_id="a", parameters={"k": 1}) == Envelope.model_validate(
        {
            "schema_version": 1,
            "message_id": "1.2.3",
            "message_type": "study.image_received",
            "timestamp": "2026-11-22T08:00:00.000Z",
            "source_system": "screening-gateway",
            "site": "Van 1",
            "sequence": 4,
            "source_reference": {"action_id": "a"},
            "parameters": {"k": 1},
        }
    )
