"""Dispatch of DIMSE requests to the handlers of an `Application`, and the sequence of answers. No sockets.

Not for: C-STORE, whose data set is streamed (`acceptor`). Refusals pass through.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

from pydicom import Dataset

from gateway.dicom.application import Application, AttributesHandler, Request, progressed, response
from gateway.dicom.dimse import Command, CommandField
from gateway.dicom.store_suboperations import StoreSender
from gateway.errors import Unsupported

Answer = tuple[Command, Dataset | bytes | None]
"""A response and its data set, which may be encoded already."""

_LOOK_SECONDS = 0.001
"""How often a query looks for its C-CANCEL between answers, because a look is a system call and takes as long as an
answer."""

_NOT_SUPPORTED = 0x0001
"""Requested optional attributes are not supported: the warning of N-GET, of the MPPS Retrieve class for one (PS3.4
F.8.2.1.4)."""

_HANDLERS: dict[int, str] = {
    CommandField.N_CREATE: "handle_create",
    CommandField.N_SET: "handle_set",
    CommandField.N_GET: "handle_get",
    CommandField.N_ACTION: "handle_action",
}
"""Which handler of an `Application` serves an N-service."""


def answers(application: Application, request: Request, sender: StoreSender) -> Iterator[Answer]:
    """Serve one request. `sender` stores on the requesting peer, for C-GET. Raises Unsupported, and as handlers do."""
    field = request.command.command_field
    if field == CommandField.C_ECHO:
        yield response(request.command, 0x0000), None
    elif field == CommandField.C_FIND:
        yield from _found(application, request)
    elif field in (CommandField.C_GET, CommandField.C_MOVE):
        yield from _retrieved(application, request, sender)
    else:
        yield _attributes(application, request)


def name(command_field: int) -> str:
    """The usual name of a command, such as C-FIND."""
    known = CommandField.__members__.values()
    return CommandField(command_field).name.replace("_", "-") if command_field in known else f"{command_field:04X}H"


def _found(application: Application, request: Request) -> Iterator[Answer]:
    """C-FIND (PS3.4 C.4.1): one pending answer per match, FE00 if cancelled, 0000 at the end."""
    if application.handle_find is None:
        raise _not_served(request)
    pending: dict[int, Command] = {}
    look_again = 0.0
    for match in application.handle_find(request):
        if match.status not in pending:  # one command for all answers of a status, which is packed once
            pending[match.status] = response(request.command, match.status, has_data_set=True)
        yield pending[match.status], match.data_set
        if (now := time.monotonic()) < look_again:
            continue
        look_again = now + _LOOK_SECONDS
        if request.is_cancelled():
            yield response(request.command, 0xFE00), None
            return
    yield response(request.command, 0x0000), None


def _retrieved(application: Application, request: Request, sender: StoreSender) -> Iterator[Answer]:
    """C-GET and C-MOVE (PS3.4 C.4.2, C.4.3): one answer after each sub-operation."""
    if application.handle_retrieve is None:
        raise _not_served(request)
    for progress in application.handle_retrieve(request, sender):
        yield progressed(request.command, progress)


def _attributes(application: Application, request: Request) -> Answer:
    handle: AttributesHandler | None = getattr(application, _HANDLERS.get(request.command.command_field, ""), None)
    if handle is None:
        raise _not_served(request)
    result = handle(request)
    answer = response(request.command, 0x0000, has_data_set=result is not None)
    if lacking := _lacking(request.command, result):
        answer = replace(answer, status=_NOT_SUPPORTED, attribute_identifier_list=lacking)
    return answer, result


def _lacking(request: Command, result: Dataset | None) -> tuple[int, ...]:
    """The requested attributes that the answer of an N-GET lacks."""
    wanted = request.attribute_identifier_list if request.command_field == CommandField.N_GET else None
    return tuple(tag for tag in wanted or () if result is None or tag not in result)


def _not_served(request: Request) -> Unsupported:
    return Unsupported(f"{name(request.command.command_field)} is not served here.")
