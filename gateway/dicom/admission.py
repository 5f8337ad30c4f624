"""Admission: accept or reject an association request before anything is negotiated (PS3.8 7.1). Pure.

Checked in this order; the first check that fails is the reason for the peer and the log:

1. Protocol version, application context, called AE title.
2. Calling AE title and address, by the list of callers. The gateway's own echo needs no place on the list.
3. Room: among all associations, those of its address, those of its AE title. Some places are kept for echoes.

Not for: presentation contexts (`gateway.dicom.negotiation`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from gateway.dicom.application import VERIFICATION, ListenerLimits
from gateway.dicom.negotiation import APPLICATION_CONTEXT, AssociateRequest, Rejection
from gateway.remote_ae import Caller

OWN_TITLE = "GATEWAY_HEALTH"
"""AE title of the gateway when it checks its own ports."""


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
    """Is it this gateway's check of its own port? `at` is the address that was called."""
    # It passes a strict list of callers, which must not make a site look broken. A caller from the address it calls is
    # on this machine, and Verification alone discloses nothing.
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
    # Result, source and reason are those of PS3.8 Table 9-21.
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
    # An echo has places of its own, because it is how people and monitors find out whether a service that seems stuck
    # is alive. As many echoes take no place away from other associations.
    kept = limits.echoes if is_echo(request) else 0
    count = len if kept else partial(_beside_echoes, limits.echoes)
    if (number := count(taken)) >= limits.associations + kept:
        return _full(f"{number} associations are open already", "GATEWAY_MAX_ASSOCIATIONS")
    # A machine that leaks associations must not take the places of others.
    for name, ours in (("address", address), ("ae_title", request.calling_ae_title)):
        same = count([slot for slot in taken if getattr(slot, name) == ours])
        if same >= limits.associations_per_peer + kept:
            full = f"{same} associations with {ours!r} are open already"
            return _full(full, "GATEWAY_MAX_ASSOCIATIONS_PER_PEER")
    return None


def _beside_echoes(kept: int, taken: Collection[Slot]) -> int:
    """How many places are taken besides those that are kept for echoes."""
    return len(taken) - min(kept, sum(slot.is_echo for slot in taken))


def _full(what: str, setting: str) -> Rejection:
    """PS3.8 Table 9-21: rejected for now, local limit exceeded."""
    return Rejection(2, 3, 2, f"{what}, which is the limit ({setting}); the peer may try again.")
