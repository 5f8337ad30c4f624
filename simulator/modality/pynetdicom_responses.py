"""A message queue for associations that pynetdicom requests: responses go to the `send_*` call that waits for them.

Without it one call of some thousand waits in vain until its timeout, with a quick peer.

Not for: associations that a peer requests; there pynetdicom's own thread makes the calls.
"""

import queue

from pynetdicom import evt
from pynetdicom.dimse_primitives import DimseServiceType

Message = tuple[int, DimseServiceType] | tuple[None, None]
"""Presentation context and message; neither, to wake up a call whose association has ended."""


class Messages(queue.Queue[Message]):
    """The peer's messages in order of arrival; replaces `Association.dimse.msg_queue`."""

    # pynetdicom (3.0.4) has a thread for each association that serves the peer's requests, and pauses it while a
    # `send_*` call waits for its response. The thread may take one more message after it was paused; when that is the
    # response, it drops it. The thread never blocks and a call always does, which distinguishes the two.

    def get(self, block: bool = True, timeout: float | None = None) -> Message:
        """The first message; if not `block`, only when it is a request.

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
"""To be among the `evt_handlers` of `AE.associate`. It acts when the connection opens, so the queue is still empty."""
