"""A rejection that comes before pynetdicom looks whether it is connected."""

import threading

from pynetdicom import AE, evt

from gateway.dicom.application import VERIFICATION, Application
from gateway.dicom.listener import Listener
from simulator.modality.pynetdicom_rejection import requested
from tests.tools.waiting import PATIENCE_SECONDS


def test_a_rejection_is_one_however_quickly_it_comes() -> None:
    entity, closed = AE("MAMMO"), threading.Event()
    entity.add_requested_context(VERIFICATION)
    quick = [
        (evt.EVT_CONN_CLOSE, lambda _event: closed.set()),
        (evt.EVT_REQUESTED, lambda _event: closed.wait(PATIENCE_SECONDS)),  # the moment before pynetdicom looks
    ]
    with Listener(Application(ae_title="SCREENING_PACS", contexts={}), host="127.0.0.1", port=0) as listener:
        association = requested(entity.associate, "127.0.0.1", listener.port, ae_title="ANOTHER", evt_handlers=quick)
    answer = association.acceptor.primitive
    assert answer is not None
    assert (association.is_rejected, association.is_aborted, association.is_established) == (True, False, False)
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)
