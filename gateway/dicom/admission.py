"""Who is let in: the decision on an association request before anything is negotiated (PS3.8 7.1). Pure.

Asked in this order, and the first that is not answered well is the reason the peer and the log get:

1. Does it speak this protocol, DICOM's application context, and does it mean us (called AE title)?
2. Is it on the list of those who may call, from the address it calls from? The gateway's own echo, by which the health
   report proves a port, needs no place on the list: under OWN_TITLE, from this machine, Verification alone.
3. Is there room: of all associations, of those with its address, of those with its AE title?

Where there is no room, an association that proposes Verification alone is let in all the same, a few at a time: an
echo is how people and monitors find out whether a service that seems stuck is alive. As many echoes take no place
away from anybody else.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from gateway.dicom.application import VERIFICATION, ListenerLimits
from gateway.dicom.negotiation import APPLICATION_CONTEXT, AssociateRequest, Rejection
from gateway.remote_ae import Caller

OWN_TITLE = "GATEWAY_HEALTH"
"""Who the gateway says it is when it proves its own ports."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An association that was let in."""

    address: str
    ae_title: str
    is_echo: bool = False


def is_echo(request: AssociateRequest) -> bool:
    """Is Verification all that is proposed?"""
    return {context.abstract_syntax for context in request.contexts} == {VERIFICATION}


def is_own_echo(request: AssociateRequest, address: str, at: str) -> bool:
    """Does this gateway prove its own port? Who calls from the address that was called (`at`) is on this machine."""
    return address == at and request.calling_ae_title == OWN_TITLE and is_echo(request)


def rejection(
    request: AssociateRequest,
    address: str,
    *,
    at: str,
    ae_title: str,
    callers: Collection[Caller],
    limits: ListenerLimits,
    taken: Collection[Slot],
) -> Rejection | None:
    """Why this association is not taken, or None if it is. It came from `address` and called the address `at`."""
    return (
        _not_understood(request, ae_title)
        or (None if is_own_echo(request, address, at) else _not_listed(request, address, callers))
        or _no_room(request, address, limits, taken)
    )


def _not_understood(request: AssociateRequest, ours: str) -> Rejection | None:
    if not request.protocol_version & 1:
        return Rejection(1, 2, 2, f"The peer speaks version {request.protocol_version} of the protocol, and not 1.")
    if request.application_context != APPLICATION_CONTEXT:
        return Rejection(1, 1, 2, f"The application context {request.application_context!r} is not DICOM's.")
    if request.called_ae_title != ours:
        sentence = f"The peer called {request.called_ae_title!r}, but this is {ours!r}: set it on the modality."
        return Rejection(1, 1, 7, sentence)
    return None


def _not_listed(request: AssociateRequest, address: str, callers: Collection[Caller]) -> Rejection | None:
    title = request.calling_ae_title
    named = [caller for caller in callers if caller.ae_title == title]
    if not callers or any(caller.calls_from(address) for caller in named):
        return None
    if not named:
        return Rejection(1, 1, 3, f"{title!r} is not in GATEWAY_CALLING_AETS; add it if this modality may connect.")
    places = " or ".join(str(caller.network) for caller in named)
    return Rejection(1, 1, 3, f"{title!r} may call from {places} only (GATEWAY_CALLING_AETS), and not from {address}.")


def _no_room(
    request: AssociateRequest, address: str, limits: ListenerLimits, taken: Collection[Slot]
) -> Rejection | None:
    kept = limits.echoes if is_echo(request) else 0
    count = len if kept else partial(_beside_echoes, limits.echoes)
    if (number := count(taken)) >= limits.associations + kept:
        return _full(f"{number} associations are open already", "GATEWAY_MAX_ASSOCIATIONS")
    for name, ours in (("address", address), ("ae_title", request.calling_ae_title)):
        same = count([slot for slot in taken if getattr(slot, name) == ours])
        if same >= limits.associations_per_peer + kept:
            what = f"{same} associations with {ours!r} are open already"
            return _full(what, "GATEWAY_MAX_ASSOCIATIONS_PER_PEER")
    return None


def _beside_echoes(kept: int, taken: Collection[Slot]) -> int:
    """How many places are taken besides those that are kept for echoes."""
    return len(taken) - min(kept, sum(slot.is_echo for slot in taken))


def _full(what: str, setting: str) -> Rejection:
    """PS3.8 Table 9-21: rejected for now, local limit exceeded."""
    return Rejection(2, 3, 2, f"{what}, which is the limit ({setting}); the peer may try again.")
