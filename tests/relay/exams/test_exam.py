"""Views of images and what an exam looks like against the worklist."""

from dataclasses import dataclass, field, replace

import pytest

from gateway.messages import Finding
from relay.dicom_json import DicomJson
from relay.exams.exam import NOTHING_PERFORMED, ExamState, belongs, exam, judgement
from relay.exams.views import count, hanging, image
from worklist import Performed

PRESENTATION, PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMOSYNTHESIS, SECONDARY = "1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.7"
CODES = {"CC": "399162004", "MLO": "399368009", "ML": "399260004"}
FOUR = ("RCC", "LCC", "RMLO", "LMLO")


@dataclass(frozen=True)
class Scheduled:
    """A worklist item as `exams` sees it."""

    accession_number: str = "ACC-1"
    participant_id: str = "9990000018"
    birth_date: str = "19620504"
    study_instance_uid: str = "1.2"
    state: str = "in_progress"
    data_set: DicomJson = field(default_factory=dict)


def value(vr: str, *values: object) -> dict[str, object]:
    return {"vr": vr, "Value": list(values)}


def picture(name: str, *modifiers: str, number: int = 1, sop_class: str = PRESENTATION, **others: object) -> DicomJson:
    """One instance by the name of its view; keyword arguments `x00280010=...` overrule."""
    view = {
        "00080100": value("SH", CODES.get(name[1:], "0")),
        "00540222": value("SQ", *[{"00080100": value("SH", code)} for code in modifiers]),
    }
    data_set = {
        "00080016": value("UI", sop_class),
        "00080018": value("UI", f"1.2.3.{number}"),
        "00080050": value("SH", "ACC-1"),
        "00100020": value("LO", "999 000 0018"),
        "00100030": value("DA", "19620504"),
        "0020000D": value("UI", "1.2"),
        "0020000E": value("UI", "1.2.3"),
        "00200062": value("CS", name[0]),
        "00280010": value("US", 3328),
        "00540220": value("SQ", view),
    }
    return data_set | {key[1:].upper(): given for key, given in others.items()}


def four() -> list[DicomJson]:
    return [picture(name, number=number) for number, name in enumerate(FOUR)]


def test_a_whole_exam_has_four_views_and_no_findings() -> None:
    seen = exam(Scheduled(), four())
    assert (seen.present, seen.missing, seen.findings) == (FOUR, (), ())
    assert seen.views == {"RCC": 1, "LCC": 1, "RMLO": 1, "LMLO": 1}


def test_missing_views_are_named() -> None:
    assert exam(Scheduled(), four()[1:3]).missing == ("RCC", "LMLO")


@pytest.mark.parametrize(
    ("code", "view"),
    [("399162004", "CC"), ("R-10242", "CC"), ("399368009", "MLO"), ("R-10226", "MLO"), ("R-1024A", "XCCL")],
)
def test_the_view_is_decided_by_its_code_old_or_new(code: str, view: str) -> None:
    assert image(picture("RXX", x00540220=value("SQ", {"00080100": value("SH", code)}))).name == f"R{view}"


def test_view_position_speaks_where_no_code_is_known() -> None:
    assert image(picture("LXX", x00185101=value("CS", "MLO"))).name == "LMLO"
    assert image(picture("LXX", x00185101=value("CS", "AP"))).name == "L"


def test_a_disagreement_of_code_and_position_is_found_and_the_code_counts() -> None:
    seen = image(picture("RCC", x00185101=value("CS", "MLO")))
    assert (seen.name, [finding.code for finding in seen.findings]) == ("RCC", ["view_conflict"])


def test_the_side_of_a_multi_frame_object_is_in_its_shared_groups() -> None:
    anatomy = value("SQ", {"00209071": value("SQ", {"00209072": value("CS", "L")})})
    seen = image(
        picture("RCC", sop_class=TOMOSYNTHESIS, x00200062={"vr": "CS"}, x52009229=anatomy, x00280008=value("IS", "50"))
    )
    assert (seen.name, seen.kind, seen.frames) == ("LCC", "tomosynthesis", 50)


def test_the_laterality_of_the_series_comes_last_and_its_disagreement_is_found() -> None:
    assert image(picture("RCC", x00200062={"vr": "CS"}, x00200060=value("CS", "L"))).name == "LCC"
    seen = image(picture("RCC", x00200060=value("CS", "L")))
    assert (seen.name, [finding.code for finding in seen.findings]) == ("RCC", ["laterality_conflict"])


def test_a_second_take_without_a_modifier_is_a_repeat() -> None:
    seen = exam(Scheduled(), [*four(), picture("RCC", number=9)])
    assert seen.views["RCC"] == 2
    assert seen.findings == (
        Finding(code="repeated_view", text="RCC was taken 2 times without a view modifier."),
    )  # fmt: skip


@pytest.mark.parametrize("modifier", ["399163009", "399055006", "R-102D2", "399197002", "unknown-code"])
def test_a_view_with_a_modifier_is_an_extra_and_does_not_stand_for_its_view(modifier: str) -> None:
    seen = exam(Scheduled(), [picture("RCC", modifier)])
    assert (seen.views["RCC"], len(seen.extras), seen.missing) == (0, 1, FOUR)


def test_a_partial_view_is_an_extra() -> None:
    seen = exam(Scheduled(), [*four(), picture("RCC", number=9, x00281350=value("CS", "YES"))])
    assert (seen.views["RCC"], len(seen.extras), seen.findings) == (1, 1, ())


def test_implant_displaced_views_are_counted_beside_the_four() -> None:
    displaced = [picture(name, "399209000", number=10 + number) for number, name in enumerate(FOUR)]
    seen = exam(Scheduled(), [*four(), *displaced])
    assert seen.views == seen.implant_displaced == dict.fromkeys(FOUR, 1)
    assert (seen.extras, seen.findings) == ((), ())


def test_raw_processed_and_tomosynthesis_of_one_exposure_are_one() -> None:
    objects = [
        picture("RCC", number=1, sop_class=PROCESSING),
        picture("RCC", number=2, sop_class=PRESENTATION),
        picture("RCC", number=3, sop_class=TOMOSYNTHESIS),
        picture("RCC", number=4, x00080008=value("CS", "DERIVED", "PRIMARY", "", "GENERATED_2D")),
    ]
    seen = exam(Scheduled(), objects)
    assert (seen.views["RCC"], seen.findings) == (1, ())
    assert [each.kind for each in seen.images] == ["for processing", "for presentation", "tomosynthesis", "synthetic"]


def test_an_order_for_one_side_expects_two_views_and_finds_the_other_side() -> None:
    item = Scheduled(data_set={"00400100": value("SQ", {"00200060": value("CS", "L")})})
    assert exam(item, []).expected == ("LCC", "LMLO")
    assert [finding.code for finding in exam(item, four()).findings] == ["laterality_mismatch"]


@pytest.mark.parametrize(
    ("item", "finding"),
    [
        (
            Scheduled(participant_id="9990000026"),
            Finding(code="patient_mismatch", text="Patient ID of 4 images differs from the worklist."),
        ),
        (
            Scheduled(birth_date="19700101"),
            Finding(code="birth_date_mismatch", text="Patient's Birth Date of 4 images differs from the worklist."),
        ),
        (
            Scheduled(accession_number="ACC-2"),
            Finding(code="accession_mismatch", text="Accession Number of 4 images differs from the worklist."),
        ),
        (
            Scheduled(study_instance_uid="1.9"),
            Finding(code="study_mismatch", text="Study Instance UID of 4 images differs from the worklist."),
        ),
    ],
)
def test_what_differs_from_the_worklist_is_found_and_named_without_patient_data(
    item: Scheduled, finding: Finding
) -> None:
    assert exam(item, four()).findings == (finding,)


def test_an_image_without_a_patient_id_is_a_mismatch() -> None:
    assert [f.code for f in exam(Scheduled(), [picture("RCC", x00100020={"vr": "LO"})]).findings] == [
        "patient_mismatch"
    ]


def test_an_image_that_does_not_repeat_the_accession_number_is_none() -> None:
    assert exam(Scheduled(), [picture("RCC", x00080050={"vr": "SH"})]).findings == ()


UNDER_WAY = Performed(steps=1, is_over=False, images=(), others=())
DONE = Performed(steps=1, is_over=True, images=("1", "2", "3", "4"), others=())
GIVEN_UP = replace(DONE, images=(), discontinued_because=("tube failed", ""))

STATES = [
    # The item, what its steps say, how many of the four views are here, how many announced images are not: the exam
    ("scheduled", NOTHING_PERFORMED, 0, 0, "scheduled"),
    ("scheduled", NOTHING_PERFORMED, 3, 0, "in_progress"),  # a machine that reports no steps
    ("scheduled", NOTHING_PERFORMED, 4, 0, "complete"),
    ("in_progress", UNDER_WAY, 0, 0, "in_progress"),
    ("in_progress", UNDER_WAY, 4, 0, "in_progress"),
    ("in_progress", NOTHING_PERFORMED, 0, 0, "in_progress"),  # the cloud said so
    ("completed", DONE, 4, 0, "complete"),
    ("completed", DONE, 3, 1, "incomplete"),
    ("completed", DONE, 4, 1, "incomplete"),
    ("completed", DONE, 0, 4, "incomplete"),
    ("completed", NOTHING_PERFORMED, 3, 0, "incomplete"),
    ("discontinued", GIVEN_UP, 0, 0, "discontinued"),
    ("discontinued", GIVEN_UP, 4, 0, "discontinued"),
    ("cancelled", NOTHING_PERFORMED, 0, 0, "cancelled"),
    ("cancelled", NOTHING_PERFORMED, 1, 0, "in_progress"),
]


@pytest.mark.parametrize(("item", "performed", "here", "absent", "state"), STATES)
def test_the_state_of_an_exam_follows_from_item_steps_and_images(
    item: str, performed: Performed, here: int, absent: int, state: ExamState
) -> None:
    assert exam(Scheduled(state=item), four()[:here], performed=performed, not_received=absent).state == state


FOUND = [
    ("in_progress", UNDER_WAY, 2, 0, []),  # what is not there yet is not missing
    ("completed", DONE, 4, 0, []),
    ("completed", DONE, 3, 0, ["LMLO is missing."]),
    ("completed", DONE, 4, 1, ["1 of 4 images that the machine says it made has not arrived."]),
    (
        "completed",
        DONE,
        2,
        2,
        ["RMLO is missing.", "LMLO is missing.", "2 of 4 images that the machine says it made have not arrived."],
    ),
    ("discontinued", GIVEN_UP, 1, 0, ["The exam was discontinued: tube failed."]),
    (
        "discontinued",
        replace(GIVEN_UP, discontinued_because=("",)),
        0,
        0,
        ["The exam was discontinued: no reason was given."],
    ),
]


@pytest.mark.parametrize(("item", "performed", "here", "absent", "texts"), FOUND)
def test_what_was_made_and_is_not_here_is_said_in_words_once_the_exam_is_over(
    item: str, performed: Performed, here: int, absent: int, texts: list[str]
) -> None:
    seen = exam(Scheduled(state=item), four()[:here], performed=performed, not_received=absent)
    assert [finding.text for finding in seen.findings] == texts


@pytest.mark.parametrize(("number", "words"), [(1, "1 image has"), (3, "3 images have")])
def test_what_waits_for_a_person_is_said(number: int, words: str) -> None:
    [finding] = exam(Scheduled(), four(), held_back=number).findings
    text = f"{words} to be looked at by a person on site before the cloud is told."
    assert finding == Finding(code="held_back", text=text)


def test_an_image_in_a_study_of_several_items_is_that_ones_whose_number_it_has() -> None:
    items = [Scheduled(), Scheduled(accession_number="ACC-2")]
    for number, owned in (("ACC-1", [True, False]), ("ACC-2", [False, True]), ("TYPED", [True, True])):
        image_of_number = picture("RCC", x00080050=value("SH", number))
        assert [belongs(item, items, image_of_number) for item in items] == owned


def test_the_judgement_of_an_exam_has_an_id_of_its_own_and_the_subject_of_its_images() -> None:
    told = judgement(exam(Scheduled(), four()[:2])).model_copy(update={"revision": 2})
    assert told.model_dump() == {
        "accession_number": "ACC-1",
        "study_instance_uid": "1.2",
        "revision": 2,
        "state": "in_progress",
        "views": {"RCC": 1, "LCC": 1, "RMLO": 0, "LMLO": 0},
        "findings": (),
    }
    assert (told.message_id, told.subject) == (f"1.2/ACC-1/quality/2/{told.digest}", "1.2")
    assert told.digest == told.model_copy(update={"revision": 3}).digest
    assert told.digest != told.model_copy(update={"state": "complete"}).digest


def test_the_last_processed_take_is_shown_and_extras_only_where_nothing_else_is() -> None:
    images = [
        image(picture("RCC", number=1)),
        image(picture("RCC", number=2)),
        image(picture("RCC", number=3, sop_class=PROCESSING)),
        image(picture("LCC", "399163009", number=4)),
        image(picture("RMLO", number=5, sop_class=PROCESSING)),
    ]
    shown = hanging(images)
    assert {view: each and each.sop_instance_uid for view, each in shown.items()} == {
        "RCC": "1.2.3.2",
        "LCC": "1.2.3.4",
        "RMLO": "1.2.3.5",
        "LMLO": None,
    }


@pytest.mark.parametrize("data_set", [{}, {"00540220": {"vr": "SQ"}}, {"00540220": {"Value": [None]}}, {"00200062": 7}])
def test_an_object_that_says_nothing_has_no_view(data_set: DicomJson) -> None:
    seen = image(data_set)
    assert (seen.name, seen.is_standard, seen.has_pixels) == ("", False, False)
    assert count([seen]) == dict.fromkeys(FOUR, 0)
