"""What people type into a search becomes a query or a refusal, whatever they type."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidQuery
from relay.evidence import Evidence
from relay.holding import Holding
from relay.instances import Instances
from relay.studies import Studies, identifier, name_pattern, wanted
from tests.relay import served
from tests.relay.served import Site

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


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), TYPED))
@example({"name": "\\"})
@example({"accession": "\ud800"})
@example({"modality": "a\\b"})
@example({"page": "0" * 5000})
@example({"page": "000000001" + "9" * 40})
def test_whatever_is_typed_is_searched_or_refused(site: Site, typed: dict[str, str]) -> None:
    evidence = Evidence(site.archive, site.worklist, holding=Holding(site.archive, site.worklist))
    studies = Studies(site.archive, site.worklist, Instances(site.archive), evidence, viewer=Path())
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
