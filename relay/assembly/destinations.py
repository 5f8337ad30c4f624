"""Makes the destinations for events and full images from a site's settings, with their quotas.

Not here: sending (`relay.hybrid.sender`, `relay.delivery.servicebus`, `relay.delivery.https_api`), when an entry leaves
(`relay.delivery.delivery`), what a limit means (`relay.delivery.quota`).
"""

from datetime import datetime
from functools import partial

from pacs import Archive
from relay.assembly import cloud_link
from relay.delivery.delivery import Destination
from relay.delivery.https_api import SECONDS, Api, HttpsDestination, ManageDestination, fixed_token
from relay.delivery.hybrid import HybridDestination
from relay.delivery.quota import IMAGES, Quota, limits
from relay.setting_types import DestinationName
from relay.settings import RelaySettings, revealed

MOST_BYTES = {"servicebus": 192 * 1024}
"""Bytes of the largest message of a destination that has a limit. Service Bus Standard takes 256 KiB with the
properties, which it counts by rules of its own."""


def allowance(settings: RelaySettings) -> Quota:
    """What may leave to one destination, and when."""
    return Quota(
        rates=limits(settings.rates), budgets=limits(settings.budgets), clock=lambda: datetime.now().astimezone()
    )


def destination(name: DestinationName, settings: RelaySettings, archive: Archive, own: Quota) -> Destination:
    """A destination for events; images leave at the rate that `own` allows."""
    match name:
        case "hybrid":
            return HybridDestination(cloud_link.sender(settings, settings.events_hybrid_connection))
        case "https":  # the same token and address as for `manage`: one cloud, two contracts
            token = fixed_token(revealed(settings.api_token))
            return HttpsDestination(settings.api_url, token, egress=cloud_link.egress(settings))
        case "manage":
            token = fixed_token(revealed(settings.api_token))
            return ManageDestination(
                settings.api_url,
                token,
                opened=archive.content,
                rate=lambda: own.rate(IMAGES),
                egress=cloud_link.egress(settings),
            )
        case "servicebus":
            return servicebus(settings)


def servicebus(settings: RelaySettings) -> Destination:
    """The Service Bus queue or topic that the settings describe."""
    from relay.delivery import servicebus as bus  # noqa: PLC0415 - the client library is large
    from relay.hybrid.entra import machine_identity  # noqa: PLC0415 - the same

    transport = bus.TRANSPORTS[settings.servicebus_transport]
    egress = cloud_link.egress(settings)
    outward = bus.egress_options(cloud_link.servicebus_host(settings), egress, transport=transport)
    if text := revealed(settings.servicebus_connection_string):
        connect = bus.by_connection_string(text, transport=transport, outward=outward)
    else:
        identity = partial(machine_identity, settings.client_id, egress)
        connect = bus.by_identity(
            settings.servicebus_namespace, transport=transport, credential=identity, outward=outward
        )
    return bus.ServiceBusDestination(connect, entity=settings.servicebus_queue, sessions=settings.servicebus_sessions)


def image_api(settings: RelaySettings) -> Api | None:
    """The cloud's API that takes full images; None when there is none."""
    if not (settings.api_url and settings.api_token):
        return None
    return Api(
        settings.api_url, fixed_token(revealed(settings.api_token)), seconds=SECONDS, egress=cloud_link.egress(settings)
    )
