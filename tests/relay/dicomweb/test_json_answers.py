"""Data sets on their way out: written through as text, they are what reading and writing them would make."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataset.dicom_json import DicomJson
from relay.dicomweb.json_answers import dumped, published, published_text

ADDRESS = "http://van7.example/dicom-web/studies/1.2/bulkdata"

TRICKY = ['"BulkDataURI":"', '"00080005":{"vr":"CS"}', "BulkDataURI", "\\", '"', "}", "é", "\u2028", "]}"]
PLAIN = st.sampled_from(TRICKY) | st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)
ELEMENT = st.one_of(
    st.builds(lambda values: {"vr": "LO", "Value": values}, st.lists(PLAIN, min_size=1, max_size=3)),
    st.builds(lambda tag: {"vr": "OW", "BulkDataURI": tag}, st.sampled_from(["7FE00010", "00880200/1/7FE00010"])),
)
CHARACTER_SET = st.sampled_from(
    [
        {"vr": "CS"},
        {"vr": "CS", "Value": ["ISO_IR 100"]},
        {"vr": "CS", "Value": ["", "ISO 2022 IR 87"]},
        {"vr": "CS", "Value": ['x"}']},
        {"vr": "CS", "Value": [None, "ISO 2022 IR 87"]},
    ]
)
ITEM = st.fixed_dictionaries(
    {}, optional={"00080005": CHARACTER_SET, "00100010": ELEMENT, "7FE00010": ELEMENT, "00091010": ELEMENT}
)
DATA_SET = st.builds(
    lambda outer, items: outer | {"00880200": {"vr": "SQ", "Value": items}}, ITEM, st.lists(ITEM, max_size=2)
)


@given(DATA_SET)
def test_as_text_it_becomes_the_same_as_by_reading(data_set: DicomJson) -> None:
    assert json.loads(published_text(dumped(data_set), ADDRESS)) == published(data_set, ADDRESS)


def test_what_is_no_text_is_replaced() -> None:
    assert json.loads(dumped({"a": "x\udc00y", "b": 2**70})) == {"a": "x?y", "b": 2**70}


@pytest.mark.parametrize("host", ['van"7', "van\\7"])
def test_an_odd_host_breaks_nothing(host: str) -> None:
    data_set: DicomJson = {"7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"}}
    assert json.loads(published_text(dumped(data_set), f"http://{host}")) == published(data_set, f"http://{host}")
