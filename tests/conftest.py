"""What all tests have in common: clients without two races of pynetdicom's, and children that Ctrl-C reaches."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings
from pynetdicom import AE, evt
from pynetdicom.association import Association

from simulator.modality.pynetdicom_rejection import requested
from simulator.modality.pynetdicom_responses import LEAVE_RESPONSES

# Without a deadline for each example, because 200 ms say how busy the machine is and not whether a property holds.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def steady_associations() -> Iterator[None]:
    """Close both races (`simulator.modality.pynetdicom_*`) in every association that a test requests."""
    stock = AE.associate

    def associate(*where: Any, evt_handlers: Sequence[evt.EventHandlerType] | None = None, **how: Any) -> Association:
        return requested(stock, *where, evt_handlers=[LEAVE_RESPONSES, *(evt_handlers or ())], **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AE, "associate", associate)
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C mean the same to every child, also when the tests are run in the background of a script.

    A shell has SIGINT ignored there, children inherit that, and Python then makes no KeyboardInterrupt of it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
