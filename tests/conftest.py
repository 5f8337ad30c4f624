"""What all tests have in common: pynetdicom's clients without the race that costs one of some thousand requests."""

from collections.abc import Iterator

import pytest
from pynetdicom import AE

from gateway.dicom.pynetdicom_race import steady


@pytest.fixture(scope="session", autouse=True)
def steady_clients() -> Iterator[None]:
    """Close the race (`gateway.dicom.pynetdicom_race`) in every association that a test requests."""
    stock = AE.associate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AE, "associate", lambda *args, **kwargs: steady(stock(*args, **kwargs)))
        yield
