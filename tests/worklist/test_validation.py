"""worklist.validation: what a data set may hold. What is refused of each VR is in `test_items`."""

import pytest

from gateway.dataset.dicom_json import DicomJson, element, sequence, tag
from gateway.errors import InvalidValue
from worklist.validation import checked


@pytest.mark.parametrize("key", ["0010", "patient", "00100010x", ""])
def test_a_key_that_is_no_tag_is_refused(key: str) -> None:
    with pytest.raises(InvalidValue):
        checked({key: {"vr": "LO"}})


def test_what_may_be_held_is_given_back_as_it_is() -> None:
    data_set: DicomJson = {
        tag("PatientName"): element("PatientName", "Müller^Ève"),
        tag("RequestedProcedureCodeSequence"): sequence({tag("CodeValue"): element("CodeValue", "1")}),
    }
    assert checked(data_set) == data_set
