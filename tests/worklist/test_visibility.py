"""worklist.visibility: what a peer is shown, and that an explanation says the same as an answer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import OutOfResources
from tests.worklist.samples import NOW, answered, item, query, scheduled, values
from worklist import Worklist
from worklist.items import ItemState
from worklist.visibility import PeerRule, Station, Visibility, VisibilityRule, VisibilityRules, Window, unsatisfied

LONDON = ZoneInfo("Europe/London")


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    """A for anybody, B for MAMMO1, C for MAMMO1 and MAMMO2, D for CT1 and already completed."""
    opened = Worklist.open(tmp_path / "worklist.db")
    for number, (name, stations) in enumerate(
        {"A": [], "B": ["MAMMO1"], "C": ["MAMMO1", "MAMMO2"], "D": ["CT1"]}.items()
    ):
        station = {"00400100": {"vr": "SQ", "Value": [{"00400001": {"vr": "AE", "Value": stations}}]}}
        made = item(name, dicom=station if stations else {}, scheduled=scheduled("20261122", f"{9 + number:02}0000"))
        opened.schedule(made, action_id=name, content_hash="h", now=NOW)
    opened.change_status("D", "completed", now=NOW)
    yield opened
    opened.close()


def found(worklist: Worklist, visibility: Visibility, station: str = "", **step: str) -> list[tuple[str, str]]:
    """The accession numbers a query finds, and for which station they say they are."""
    identifier = query({"ScheduledStationAETitle": station, **step}, AccessionNumber="")
    return [
        (str(answer.AccessionNumber), str(answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle))
        for answer in answered(
            worklist, identifier, calling_ae_title=visibility.calling_ae_title, visibility=visibility
        )
    ]


@pytest.mark.parametrize(
    ("calling", "station", "asked", "expected"),
    [
        ("MAMMO1", "open", "", "ABC"),
        ("MAMMO1", "open", "MAMMO2", "AC"),
        ("MAMMO1", "calling", "", "ABC"),
        ("MAMMO1", "calling", "OTHER", "ABC"),
        ("MAMMO2", "calling", "MAMMO1", "AC"),
        ("MAMMO2", "calling", "", "AC"),
        ("MAMMO1", "strict", "", "BC"),
        ("MAMMO1", "strict", "MAMMO2", "C"),
        ("MAMMO2", "strict", "", "C"),
        ("VAN", "strict", "", ""),
    ],
)
def test_a_station_sees_what_its_rule_lets_it_see(
    worklist: Worklist, calling: str, station: Station, asked: str, expected: str
) -> None:
    visibility = Visibility(calling, VisibilityRule(station=station))
    assert "".join(name for name, _ in found(worklist, visibility, asked)) == expected


def test_an_item_for_any_station_is_for_the_caller_whatever_it_asked(worklist: Worklist) -> None:
    visibility = Visibility("MAMMO2", VisibilityRule(station="calling"))
    assert found(worklist, visibility, "OTHER")[0] == ("A", "MAMMO2")


@pytest.mark.parametrize(("states", "expected"), [(("completed",), "D"), (("scheduled", "completed"), "ABCD")])
def test_which_states_are_shown_is_a_choice(worklist: Worklist, states: tuple[str, ...], expected: str) -> None:
    assert "".join(name for name, _ in found(worklist, Visibility("CT1", VisibilityRule(states=states)))) == expected


@pytest.mark.parametrize(
    ("now", "window", "expected"),
    [
        ("2026-11-22T09:30", "any", "ABC"),
        ("2026-11-22T09:30", "-1h..+30d", None),
        ("2026-11-22T09:30", "-1h..+1h", "AB"),
        ("2026-11-22T09:30", "-1h..", "ABC"),
        ("2026-11-22T10:30", "-1h..", "BC"),
        ("2026-11-22T10:30", "..+0h", "AB"),
        ("2026-11-22T23:59", "today", "ABC"),
        ("2026-11-23T00:00", "today", ""),
        ("2026-11-23T00:00", "-1d..+0d", "ABC"),
    ],
)
def test_items_are_shown_in_a_window_around_now(
    worklist: Worklist, now: str, window: str, expected: str | None
) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"a window is written any, today, -12h\.\.\+24h or"):
            Window.parse(window)
        return
    book = VisibilityRules(VisibilityRule(window=Window.parse(window)), site=LONDON)
    visibility = book.for_peer("MAMMO1", now=datetime.fromisoformat(now).replace(tzinfo=LONDON))
    assert "".join(name for name, _ in found(worklist, visibility)) == expected


@pytest.mark.parametrize(
    ("now", "window", "expected"),
    [
        # 29 March 2026: 01:00 becomes 02:00. 25 October 2026: 02:00 becomes 01:00. Clocks in London.
        ("2026-03-29T00:30Z", "-1h..+1h", (("20260328", "233000.000000"), ("20260329", "023000.000000"))),
        ("2026-10-25T00:30Z", "-1h..+1h", (("20261025", "003000.000000"), ("20261025", "013000.000000"))),
        ("2026-10-24T23:30Z", "today", (("20261025", "000000.000000"), ("20261025", "235960.999999"))),
        ("2026-03-28T23:30Z", "-0d..+1d", (("20260328", "000000.000000"), ("20260329", "235960.999999"))),
    ],
)
def test_a_window_counts_hours_as_they_go_by_and_days_as_they_are_written(
    now: str, window: str, expected: object
) -> None:
    assert Window.parse(window).bounds(datetime.fromisoformat(now), site=LONDON) == expected


def test_a_query_gets_as_many_answers_as_its_rule_allows_and_is_told_that_there_are_more(worklist: Worklist) -> None:
    answers = answered(worklist, query(AccessionNumber=""), visibility=Visibility("X", VisibilityRule(limit=2)))
    names = [str(next(answers).AccessionNumber) for _ in range(2)]
    with pytest.raises(OutOfResources) as refused:
        next(answers)
    assert (names, refused.value.dimse_status, refused.value.comment) == (
        ["A", "B"], 0xA700, "More than 2 items match; ask for a day, a name or an id.",
    )  # fmt: skip
    assert len(found(worklist, Visibility("X", VisibilityRule(limit=3)))) == 3


def test_what_differs_for_a_peer_is_read_and_the_rest_is_as_usual() -> None:
    usual = VisibilityRule("calling", ("scheduled",), Window(1, 2, "h"), 7)
    assert PeerRule.parse("VAN 7 = station : open ; limit:9;").over(usual) == VisibilityRule(
        "open", ("scheduled",), Window(1, 2, "h"), 9
    )
    assert PeerRule.parse("VAN 7").over(usual) == usual


def test_everything_that_keeps_an_item_from_being_answered_is_said_in_a_sentence(worklist: Worklist) -> None:
    period = (("20261122", "093000.000000"), ("20261122", "235960.999999"))
    visibility = Visibility("MAMMO1", VisibilityRule(station="strict", limit=1), period)
    verdicts = {
        each.accession_number: reasons
        for each, reasons in worklist.explain(
            values(query({"Modality": "MG"}, PatientName="*", PatientID="9990001112")), visibility
        )
    }
    assert verdicts == {
        "A": (
            "It is on 20261122 at 090000, outside MAMMO1's window from 20261122 093000 to 20261122 235960.",
            "It names no station, and MAMMO1 is shown its own items only.",
        ),
        "B": (),
        "C": ("It would be answer 2, and 1 are given.",),
        "D": (
            "It is completed, and MAMMO1 is shown what is scheduled or in_progress.",
            "It is for CT1, and MAMMO1 is shown its own items only.",
        ),
    }


def test_a_key_that_does_not_match_is_named_and_its_value_is_not(worklist: Worklist) -> None:
    identifier = query(
        {
            "Modality": "CT",
            "ScheduledStationAETitle": "MAMMO2",
            "ScheduledProcedureStepStartDate": "20261123-20261124",
            "ScheduledProcedureStepStartTime": "08-09",
        },
        PatientName="JONES*",
        PatientID="7",
    )
    [_, (_, reasons), *_] = worklist.explain(values(identifier), Visibility("MAMMO1"))
    assert reasons == (
        "PatientName does not match.",
        "PatientID does not match.",
        "ScheduledStationAETitle does not match: it is for MAMMO1.",
        "Modality does not match.",
        "ScheduledProcedureStepStartDate and ScheduledProcedureStepStartTime together do not match.",
    )


def test_the_limit_counts_answers() -> None:
    assert list(unsatisfied(iter([(), ("no",), (), ()]), 2)) == [
        (), ("no",), (), ("It would be answer 3, and 2 are given.",),
    ]  # fmt: skip


_STATIONS = st.sampled_from(["", "MAMMO1", "MAMMO2", "CT1", "M*", "?AMMO1"])
_STATES: list[ItemState] = ["scheduled", "in_progress", "completed", "discontinued", "cancelled"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worklist]:
    opened = Worklist.open(tmp_path_factory.mktemp("many") / "worklist.db")
    for number in range(40):
        stations = (["MAMMO1"], ["MAMMO2", "CT1"], [], ["CT1"])[number % 4]
        station = {"00400100": {"vr": "SQ", "Value": [{"00400001": {"vr": "AE", "Value": stations}}]}}
        made = item(
            f"ACC{number:02}",
            dicom=station if stations else {},
            scheduled=scheduled(f"202611{20 + number % 5}", f"{number % 24:02}3000"),
            procedure={"modality": ("MG", "CT")[number % 3 == 0]},
        )
        opened.schedule(made, action_id=str(number), content_hash="h", now=NOW)
        if _STATES[number % 7 % 5] != "scheduled":
            opened.change_status(made.accession_number, _STATES[number % 7 % 5], now=NOW)
    yield opened
    opened.close()


@given(
    rule=st.builds(
        VisibilityRule,
        station=st.sampled_from(["open", "calling", "strict"]),
        states=st.lists(st.sampled_from(_STATES), min_size=1, max_size=3).map(tuple),
        window=st.builds(
            Window, st.none() | st.integers(0, 30), st.none() | st.integers(0, 30), st.sampled_from(["d", "h"])
        ),
        limit=st.sampled_from([0, 1, 5, 100]),
    ),
    calling=st.sampled_from(["MAMMO1", "MAMMO2", "CT1", "VAN"]),
    step=st.fixed_dictionaries(
        {},
        optional={
            "ScheduledStationAETitle": _STATIONS,
            "Modality": st.sampled_from(["", "MG", "C?"]),
            "ScheduledProcedureStepStartDate": st.sampled_from(["", "20261122", "20261121-20261123", "-20261121"]),
            "ScheduledProcedureStepStartTime": st.sampled_from(["", "08-12", "0930-"]),
        },
    ),
    name=st.sampled_from(["", "SMITH*", "JONES"]),
    hours=st.integers(-72, 72),
)
@settings(max_examples=150, deadline=None)
def test_an_explanation_says_the_same_as_an_answer(
    many: Worklist, *, rule: VisibilityRule, calling: str, step: dict[str, object], name: str, hours: int
) -> None:
    visibility = VisibilityRules(rule, site=UTC).for_peer(calling, now=NOW + timedelta(hours=hours))
    identifier = query(step, PatientName=name, AccessionNumber="")
    names = []
    try:
        for answer in answered(many, identifier, calling_ae_title=calling, visibility=visibility):
            names.append(str(answer.AccessionNumber))
    except OutOfResources:
        assert len(names) == rule.limit
    assert [
        each.accession_number for each, reasons in many.explain(values(identifier), visibility) if not reasons
    ] == names
