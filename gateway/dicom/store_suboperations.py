"""C-STORE sub-operations (PS3.4 C.4.2, C.4.3): objects sent to a peer over an association that exists already.

Used by C-GET, over the requesting peer's own association, and by associations of ours (`gateway.dicom.requestor`). The
data set goes from its file to the socket in pieces, so an object of any size takes a megabyte of memory.

Not for: the choice of objects and their form, the evaluation of answers (`pacs.query_retrieve.retrieve`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import BinaryIO

from gateway.dicom import dimse, pdu
from gateway.dicom.dimse import Command, CommandField
from gateway.dicom.negotiation import AcceptedContext
from gateway.errors import NotAcceptable


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One object to be stored on a peer: the next `size_bytes` of `data` are its data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: BinaryIO
    size_bytes: int


class StoreSender:
    """Sends C-STORE requests, one at a time, in the contexts of which the peer is SCP.

    `send` puts bytes on the wire, `answer` waits for the response to a message id; both raise as their association
    does. `originator` is the AE title and message id of the C-MOVE that caused it, if there is one.
    """

    def __init__(
        self,
        contexts: Iterable[AcceptedContext],
        *,
        max_length: int,
        send: Callable[[bytes], None],
        answer: Callable[[int], Command],
        originator: tuple[str, int] | None = None,
    ) -> None:
        self._contexts = {
            (context.abstract_syntax, context.transfer_syntax): context.context_id
            for context in contexts
            if context.peer_is_scp
        }
        self._max_length = max_length
        self._send = send
        self._answer = answer
        self._originator = originator or (None, None)
        self._message_ids = cycle(range(1, 0x10000))  # VR US; a retrieval may have more objects than that

    def syntaxes(self, sop_class_uid: str) -> frozenset[str]:
        """The transfer syntaxes in which the peer takes objects of a class."""
        return frozenset(syntax for uid, syntax in self._contexts if uid == sop_class_uid)

    def store(self, outgoing: Outgoing) -> Command:
        """Send one object and return the peer's response. Raises NotAcceptable when there is no context for it."""
        context_id = self._contexts.get((outgoing.sop_class_uid, outgoing.transfer_syntax_uid))
        if context_id is None:
            raise NotAcceptable("The peer accepted no presentation context for this object.")
        request = self._request(outgoing)
        packed = dimse.pack_command(request)
        self._send(pdu.pack_data(context_id, packed, is_command=True, max_length=self._max_length))
        for pdus in pdu.pack_stream(context_id, outgoing.data, outgoing.size_bytes, max_length=self._max_length):
            self._send(pdus)
        assert request.message_id is not None
        return self._answer(request.message_id)

    def _request(self, outgoing: Outgoing) -> Command:
        calling_ae_title, message_id = self._originator
        return Command(
            command_field=CommandField.C_STORE,
            message_id=next(self._message_ids),
            priority=0,
            command_data_set_type=1,
            affected_sop_class_uid=outgoing.sop_class_uid,
            affected_sop_instance_uid=outgoing.sop_instance_uid,
            move_originator_application_entity_title=calling_ae_title,
            move_originator_message_id=message_id,
        )
