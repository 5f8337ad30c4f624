"""Who is given what of the messages that come on an association of pynetdicom's."""

import queue
import threading

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO

from gateway.dicom.application import VERIFICATION, Application
from gateway.dicom.listener import Listener
from simulator.modality.pynetdicom_responses import LEAVE_RESPONSES, Message, Messages


def message(*, message_id: int | None = None, responds_to: int | None = None) -> Message:
    echo = C_ECHO()
    echo.MessageID, echo.MessageIDBeingRespondedTo = message_id, responds_to
    return 1, echo


REQUEST, RESPONSE, WAKE_UP = message(message_id=7), message(responds_to=7), (None, None)


def test_everything_is_given_in_order_to_who_waits() -> None:
    messages = Messages()
    for each in (RESPONSE, REQUEST, WAKE_UP):
        messages.put(each)
    assert [messages.get(timeout=0.1) for _ in range(3)] == [RESPONSE, REQUEST, WAKE_UP]
    with pytest.raises(queue.Empty):
        messages.get(timeout=0.01)


@pytest.mark.parametrize("first", [RESPONSE, WAKE_UP])
def test_who_only_looks_is_given_requests_until_something_is_for_who_waits(first: Message) -> None:
    messages = Messages()
    for each in (REQUEST, first, REQUEST):
        messages.put(each)
    assert messages.get(block=False) == REQUEST
    with pytest.raises(queue.Empty):
        messages.get(block=False)
    assert messages.get(timeout=0.1) == first
    assert messages.get(block=False) == REQUEST
    with pytest.raises(queue.Empty):
        messages.get(block=False)


def looking(association: Association, stop: threading.Event) -> threading.Thread:
    """Look for messages as the thread of an association does, without ever pausing."""

    def look() -> None:
        while not stop.is_set():
            association.dimse.get_msg(block=False)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


def test_no_call_loses_its_response_to_a_thread_that_never_pauses() -> None:
    entity, stop = AE("MAMMO"), threading.Event()
    entity.dimse_timeout = 5
    entity.add_requested_context(VERIFICATION)
    with Listener(Application(ae_title="SCREENING_PACS", contexts={}), host="127.0.0.1", port=0) as listener:
        association = entity.associate(
            "127.0.0.1", listener.port, ae_title="SCREENING_PACS", evt_handlers=[LEAVE_RESPONSES]
        )
        thread = looking(association, stop)
        statuses = [association.send_c_echo().get("Status") for _ in range(100) if association.is_established]
        stop.set()
        thread.join()
        association.release()
    assert statuses == [0x0000] * 100
