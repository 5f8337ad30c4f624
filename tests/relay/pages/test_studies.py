"""What people type into a search becomes a query or a refusal, whatever they type."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidQuery
from pacs import Archive
from relay.exams.evidence import Evidence
from relay.exams.holding import HoldRules
from relay.exams.instances import Instances
from relay.pages.studies import Studies, identifier, name_pattern, wanted
from tests.relay import served
from tests.relay.exams.judging import opened
from tests.relay.served import STUDY, Site
from worklist import Worklist

FIELDS = ("name", "participant", "accession", "since", "until", "modality", "page")
TYPED = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="*?^=\\[],-.0123456789 aÄ\0\u202e", max_size=20),
    st.sampled_from(["2026-11-22", "20261122", "MG", "1", "999 000 0018"]),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served.site(tmp_path_factory.mktemp("site"), [served.mammogram("RCC", 1)]) as running:
        yield running


def quick_look(archive: Archive, worklist: Worklist) -> Studies:
    evidence = Evidence(archive, worklist, holding=HoldRules(archive, worklist))
    return Studies(archive, Instances(archive), evidence, viewer=Path())


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), TYPED))
@example({"name": "\\"})
@example({"accession": "\ud800"})
@example({"modality": "a\\b"})
@example({"page": "0" * 5000})
@example({"page": "000000001" + "9" * 40})
def test_whatever_is_typed_is_searched_or_refused(site: Site, typed: dict[str, str]) -> None:
    studies = quick_look(site.archive, site.worklist)
    try:
        found = studies.search(wanted(typed))
    except InvalidQuery as refusal:
        assert str(refusal).endswith(".")
    else:
        assert len(found.lines) <= 1


@pytest.mark.parametrize(
    ("typed", "pattern"),
    [
        ("", ""),
        ("smith", "*smith*"),
        ("Smith, Ann", "*Smith*Ann*"),
        ("  smith   ann ", "*smith*ann*"),
        ("SMITH^A*", "SMITH^A*"),
        ("sm?th", "sm?th"),
        (",", ""),
    ],
)
def test_a_name_is_looked_for_anywhere_unless_wildcards_say_where(typed: str, pattern: str) -> None:
    assert name_pattern(typed) == pattern


def test_a_search_asks_for_what_was_typed_and_for_nothing_else() -> None:
    typed = {"name": "smith", "participant": "999 000 0018", "since": "2026-11-01", "modality": "mg", "page": "2"}
    asked = {element.keyword: str(element.value) for element in identifier(wanted(typed))}
    assert asked == {
        "PatientName": "*smith*", "PatientID": "9990000018", "StudyDate": "20261101-", "ModalitiesInStudy": "MG",
    }  # fmt: skip


def findings(folder: Path, *scheduled: str, **attributes: str) -> dict[str, list[str]]:
    """What the page of a study says of its one image, by the number of the exam."""
    with closing(opened(folder)) as exams:
        for number in scheduled:
            exams.schedule(number, **({} if number == "ACC-1" else {"StudyInstanceUID": "2.25.9"}))
        exams.store("RCC", **attributes)
        shown = quick_look(exams.archive, exams.worklist).study(STUDY)
    return {exam.accession_number: [each.code for each in exam.findings] for exam in shown.exams}


def test_a_study_says_what_is_wrong_with_the_exam_that_it_was_scheduled_for(tmp_path: Path) -> None:
    assert findings(tmp_path, "ACC-1", AccessionNumber="ACC-9")["ACC-1"][0] == "accession_mismatch"


def test_a_study_under_the_number_of_another_exam_says_what_is_wrong_with_both(tmp_path: Path) -> None:
    found = findings(tmp_path, "ACC-1", "ACC-2", AccessionNumber="ACC-2")
    assert found == {"ACC-1": ["accession_mismatch"], "ACC-2": ["study_mismatch"]}


def test_a_study_that_no_item_belongs_to_has_no_exam(tmp_path: Path) -> None:
    assert findings(tmp_path) == {}
