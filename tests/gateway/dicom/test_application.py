"""gateway.dicom.application: data sets read from messages."""

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.data_sets import decode, encode
from gateway.errors import InvalidDataSet


def asked() -> Dataset:
    step = Dataset()
    step.Modality, step.ScheduledProcedureStepStartDate = "MG", "20261122"
    data_set = Dataset()
    data_set.AccessionNumber, data_set.PatientName = "", "DOE^JANE"
    data_set.ScheduledProcedureStepSequence = [step]
    data_set.RequestedProcedureID = "R1"
    return data_set


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("is_undefined_length", [False, True])
def test_a_data_set_that_ends_within_an_element_cannot_be_read(
    transfer_syntax: str, *, is_undefined_length: bool
) -> None:
    whole, between = asked(), {0}
    whole["ScheduledProcedureStepSequence"].is_undefined_length = is_undefined_length
    part = Dataset()
    for element in whole:
        part.add(element)
        between.add(len(encode(part, transfer_syntax)))
    data = encode(whole, transfer_syntax)
    read = set()
    for length in range(len(data) + 1):
        try:
            decode(data[:length], transfer_syntax)
        except InvalidDataSet as error:
            assert str(error) == "The data set ends in the middle of an element."
            continue
        read.add(length)
    assert read == between


@pytest.mark.parametrize("padding", [b"\0", b"\0\0"])
def test_zeros_behind_a_data_set_are_padding(padding: bytes) -> None:
    assert decode(encode(asked(), ExplicitVRLittleEndian) + padding, ExplicitVRLittleEndian) == asked()
