"""Remedies: one sentence for each kind of refusal, which says how a site can correct it. Pure.

A kind is the `kind` of a rejected association (`gateway.dicom.negotiation.Rejection`), or the `code` of a refusal
(`gateway.errors`).

Not for: the reason of a refusal, which its own sentence gives (`gateway.refusals.log`).
"""

from collections.abc import Mapping
from types import MappingProxyType

TLS, BROKEN, NO_CONTEXT, CROWDED, FAILED = "tls", "broken_protocol", "no_context", "crowded", "failed"

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "called_ae_title": "Correct the called AE title (the name of this gateway) in the machine's settings.",
        "calling_ae_title": "If this machine may connect, add its AE title (and address) to GATEWAY_CALLING_AETS and "
        "restart the service. If not, find out what it is.",
        "no_room": "Look for a machine that opens connections and does not close them. If all are needed, raise the "
        "setting that is named.",
        CROWDED: "Something connects and then says nothing, such as a port scan or a monitor: find this address.",
        "application_context": "This is no DICOM peer: find out what connects from this address.",
        "protocol_version": "This peer speaks another version of DICOM's protocol: ask its maker.",
        NO_CONTEXT: "The machine wants something this port does not serve: check that it calls the worklist's port for "
        "worklist and MPPS and the archive's port for images. A maker's own class can be added with "
        "PACS_PRIVATE_CLASSES.",
        TLS: "'gateway tls check --connect HOST:PORT' explains certificates and versions from this side.",
        BROKEN: "If it happens again, ask the machine's maker, with the lines of this association in the journal. From "
        "an unknown address it is a port scan.",
        FAILED: "This is a fault of the gateway: send 'gateway diagnostics' to support.",
        "invalid_query": "Correct the query or its character set on the machine; 'gateway worklist explain' shows what "
        "would match.",
        "invalid_data_set": "The object is damaged or incomplete: send it again. If that fails, ask its maker.",
        "class_mismatch": "The machine announces one kind of object and sends another: ask its maker.",
        "invalid": "The machine sends a value that the standard does not allow here: ask its maker.",
        "missing_attribute": "The machine leaves out what the standard demands here: ask its maker.",
        "missing_value": "The machine leaves empty what the standard demands here: ask its maker.",
        "not_allowed": "The machine changes what may not be changed any more: ask its maker.",
        "not_found": "The machine asks for something that is not here. A step that was begun while the gateway was "
        "away has to be ended by hand on the machine.",
        "conflict": "For an image, page Quarantine shows both copies and what can be decided. Otherwise the machine "
        "uses an identifier twice: ask its maker.",
        "final": "The step is over. Begin a new one on the machine.",
        "out_of_resources": "Make room on the volume ('gateway prune', page Storage). The machine still has what was "
        "refused, and sends it again.",
        "not_acceptable": "The object cannot be sent in a form the machine takes: add transfer syntaxes there.",
        "too_large": "The request is larger than is taken in one piece: divide it.",
        "unsupported": "The machine, or the cloud, asks for something this gateway does not do: see CONFORMANCE.md.",
        "unknown_destination": "Add the destination to PACS_PEERS, and restart gateway-pacs.",
        "no_such_action": "The machine asks for something this gateway does not do: see CONFORMANCE.md.",
        "duplicate_transaction": "The machine uses a Transaction UID twice: ask its maker.",
    }
)

CLOUD = "cloud_"
"""Prefix of the kinds of refused cloud actions; a site cannot correct these."""

OF_THE_CLOUD = (
    "The cloud was told why. If an appointment is missing, tell the cloud team this sentence and the action id."
)

OTHERWISE = "The journal of this process has more."


def remedy(kind: str) -> str:
    """The remedy of a refusal of this kind."""
    return OF_THE_CLOUD if kind.startswith(CLOUD) else REMEDIES.get(kind, OTHERWISE)
