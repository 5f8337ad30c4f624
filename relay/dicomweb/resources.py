"""What a DICOMweb request asks, read off aiohttp's request: UIDs, root, what is accepted. Also where resources are."""

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
"""The places of UIDs in an address, with their attributes in DICOM JSON."""


def uids(request: web.Request) -> tuple[str, ...]:
    """The UIDs of the address, from the study down. Raises InvalidQuery for what is none."""
    return tuple(qido.uid(request.match_info[name]) for name in KEYS if name in request.match_info)


def root(request: web.Request) -> str:
    """The address of the DICOMweb root as the client writes it, or this relay for the cloud
    (`relay.cloud.dicomweb_proxy`).

    Nobody else is believed about it: whoever could would send others, by what is answered, where he likes.
    """
    user = request.get(USER)
    if user is not None and user.name == CLOUD and (forwarded := request.headers.get("X-Forwarded-Root")):
        return f"{forwarded}{ROOT}"
    return f"{request.scheme}://{_host(request)}{ROOT}"


def accepted(request: web.Request) -> tuple[MediaRange, ...]:
    """What the client takes; the query parameter goes before the header."""
    return negotiation.accepted(request.headers.get("Accept", ""), request.query.get("accept", ""))


def json_type(request: web.Request) -> str:
    """Which type of DICOM JSON the client wants. Raises NotAcceptable."""
    return choice(request, [Offer(media_type) for media_type in negotiation.JSON_TYPES]).media_type


def choice(request: web.Request, offers: Sequence[Offer]) -> Offer:
    """Which form the client likes best. Raises NotAcceptable."""
    return negotiation.choose(offers, accepted(request))


def _host(request: web.Request) -> str:
    """The Host header; dicomweb-client leaves its port out, which is seen when it names our own address."""
    address, port = request.get_extra_info("sockname", ("", 0))[:2]
    return f"{address}:{port}" if request.host == address else request.host
