"""A requester of storage commitment that is called: pynetdicom as the SCU that takes N-EVENT-REPORT on its own port."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from gateway.remote_ae import Peer
from tests.tools.waiting import wait_until


def taking(*, scu: bool | None = False, scp: bool | None = True, syntax: str = "1.2.840.10008.1.2.1") -> AE:
    """An application that lets its caller be SCU and SCP of storage commitment; None for both: it answers no roles."""
    entity = AE("MAMMO")
    entity.add_supported_context(StorageCommitmentPushModel, syntax, scu_role=scu, scp_role=scp)
    return entity


class CalledRequester:
    """What it heard, and how each association went; `answer` gives the status of the response to a report."""

    def __init__(self, answer: Callable[[evt.Event], int] = lambda _report: 0x0000) -> None:
        self.heard: list[evt.Event] = []
        """Each report; an event has `request`, `context`, `assoc`, `event_type` and `event_information`."""
        self.went: list[str] = []
        """Of each association: accepted; released or aborted. Nothing of one that was rejected."""
        self._answer = answer

    @contextmanager
    def listening(self, entity: AE) -> Iterator[Peer]:
        """Be MAMMO at a port of this machine, until every association has ended."""
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_N_EVENT_REPORT, self._take),
            (evt.EVT_ACCEPTED, lambda _event: self.went.append("accepted")),
            (evt.EVT_RELEASED, lambda _event: self.went.append("released")),
            (evt.EVT_ABORTED, lambda _event: self.went.append("aborted")),
        ]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        try:
            yield Peer("MAMMO", "127.0.0.1", server.server_address[1])
            wait_until(lambda: not self.went or self.went[-1] != "accepted", "the end of every association")
        finally:
            server.shutdown()

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self.heard.append(event)
        return self._answer(event), None

    @property
    def transactions(self) -> list[str]:
        """The Transaction UID of each report."""
        return [str(event.event_information.TransactionUID) for event in self.heard]
