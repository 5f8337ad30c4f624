"""An association that a quick peer rejects is rejected for pynetdicom as well, with the peer's reason.

Without it one rejection of some hundred is told as a connection that failed.

Not for: associations that a peer requests.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ


def requested(
    associate: Callable[..., Association],
    *where: Any,
    evt_handlers: Sequence[evt.EventHandlerType] = (),
    **how: Any,
) -> Association:
    """Call `associate`, an `AE.associate`, with these arguments; the association says so if it was rejected.

    Then `is_rejected` is true, `is_aborted` is not, and `acceptor.primitive` has result, source and reason of the
    A-ASSOCIATE-RJ (PS3.8 Section 9.3.4).
    """
    # pynetdicom (3.0.4) sends the request in a thread, and looks only then whether it is connected. When the rejection
    # is there sooner, the thread has closed the connection, and pynetdicom takes it for one that never was.
    rejections: list[A_ASSOCIATE_RJ] = []

    def remember(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            rejections.append(event.pdu)

    association = associate(*where, evt_handlers=[(evt.EVT_PDU_RECV, remember), *evt_handlers], **how)
    if rejections and not association.is_rejected:
        association.is_rejected, association.is_aborted = True, False
        association.acceptor.primitive = rejections[0].to_primitive()
    return association
