"""Responses of a peer stay with the call that waits for them, in associations that pynetdicom requests.

pynetdicom (3.0.4) has a thread for each association that serves the peer's requests, and pauses it while a `send_*`
call waits for its response. The thread may take one more message after it was told to pause. When that is the response,
the thread drops it and the call waits in vain until its timeout: one call of some thousand, with a quick peer. The
thread looks for messages without waiting, and a call waits; so the queue gives responses only to those who wait.

Not for: associations that a peer requests; the thread itself makes the calls there.
"""

import queue

from pynetdicom import evt
from pynetdicom.dimse_primitives import DimseServiceType

Message = tuple[int, DimseServiceType] | tuple[None, None]
"""Presentation context and message; neither, to wake up a call whose association has ended."""


class Messages(queue.Queue[Message]):
    """What came from the peer, in order; to be put in the place of `Association.dimse.msg_queue`."""

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """The first message, whatever it is if `block`, and only if it is a request if not.

        `timeout` in seconds; None waits for ever. Raises queue.Empty when there is none, or none in time.
        """
        if block:
            return super().get(timeout=timeout)
        with self.mutex:
            if not self.queue or not _is_request(self.queue[0]):
                raise queue.Empty
            message: Message = self.queue.popleft()
            return message


def _is_request(message: Message) -> bool:
    return message[1] is not None and message[1].MessageIDBeingRespondedTo is None


def _use_messages(event: evt.Event) -> None:
    event.assoc.dimse.msg_queue = Messages()


LEAVE_RESPONSES: evt.EventHandlerType = (evt.EVT_CONN_OPEN, _use_messages)
"""To be among the `evt_handlers` of `AE.associate`. It acts on the open connection before anything is said there, so no
message is in the queue yet."""
