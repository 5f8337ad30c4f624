"""A DICOMweb request, read off aiohttp's: UIDs, root, accepted media types. And the paths of the resources.

Not here: what is accepted and offered (`relay.dicomweb.negotiation`), query strings (`relay.dicomweb.qido`).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aiohttp import web

from relay.access.middleware import USER
from relay.access.users import CLOUD
from relay.dicomweb import negotiation, qido
from relay.dicomweb.negotiation import MediaRange, Offer

ROOT = "/dicom-web"
STUDY = "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
FRAMES = INSTANCE + "/frames/{frames}"

KEYS: Mapping[str, str] = MappingProxyType(
    {"study": qido.STUDY_INSTANCE_UID, "series": qido.SERIES_INSTANCE_UID, "instance": qido.SOP_INSTANCE_UID}
)
"""The UIDs in a path by name, with their attributes in DICOM JSON."""


def uids(request: web.Request) -> tuple[str, ...]:
    """Return the UIDs of the path, from the study down. Raises InvalidQuery for a malformed one."""
    return tuple(qido.uid(request.match_info[name]) for name in KEYS if name in request.match_info)


def root(request: web.Request) -> str:
    """Return the absolute URL of the DICOMweb root, without a final slash: as the client wrote it, or for a request
    that `relay.cloud.dicomweb_proxy` passes on, as the cloud's client did.
    """
    # Only the cloud's own credential may set X-Forwarded-Root. Anyone else could make our answers link to a host of
    # his choice.
    user = request.get(USER)
    if user is not None and user.name == CLOUD and (forwarded := request.headers.get("X-Forwarded-Root")):
        return f"{forwarded}{ROOT}"
    return f"{request.scheme}://{_host(request)}{ROOT}"


def accepted(request: web.Request) -> tuple[MediaRange, ...]:
    """Return the accepted media types, of the query parameter `accept` or else of the header. Raises NotAcceptable."""
    return negotiation.accepted(request.headers.get("Accept", ""), request.query.get("accept", ""))


def json_type(request: web.Request) -> str:
    """Choose the media type of DICOM JSON. Raises NotAcceptable."""
    return choice(request, [Offer(media_type) for media_type in negotiation.JSON_TYPES]).media_type


def choice(request: web.Request, offers: Sequence[Offer]) -> Offer:
    """Choose the offer that the client prefers. Raises NotAcceptable."""
    return negotiation.choose(offers, accepted(request))


def _host(request: web.Request) -> str:
    # dicomweb-client leaves the port out of Host, which shows when it names our own address.
    address, port = request.get_extra_info("sockname", ("", 0))[:2]
    return f"{address}:{port}" if request.host == address else request.host
