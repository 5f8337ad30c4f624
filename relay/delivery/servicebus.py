"""Azure Service Bus as a destination for events: a queue or a topic, over AMQP in a websocket or plain AMQP.

The broker recognises a repeat by the message id, if duplicate detection was switched on when the queue was made (a
window of a day is right; Basic has none). A session per subject keeps the order for several consumers, if the queue has
sessions.

Imported only when chosen, because the client library is large. Not here: when an event is sent again
(`relay.delivery.delivery`).
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError
from azure.identity.aio import DefaultAzureCredential
from azure.servicebus import ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    ServiceBusServerBusyError,
)

from gateway.errors import CloudError
from relay.delivery.delivery import Event
from relay.egress import Egress

TRANSPORTS = {"amqp": TransportType.Amqp, "websocket": TransportType.AmqpOverWebsocket}
"""The client's transports by their names in the settings."""

LONGEST_ID = 128
"""Characters of a message id and of a session id."""

SECONDS = 30.0
"""Limit of one send with its opening. On a half-open line the client's own send hangs for minutes; it may try twice."""

CLOSE_SECONDS = 3.0
"""Limit for closing a client; a working one takes a second."""

_PLAIN: Mapping[str, Any] = MappingProxyType({})

Connect = Callable[[float], ServiceBusClient]
"""Makes a client whose single attempts end within so many seconds."""


def by_connection_string(text: str, *, transport: TransportType, outward: Mapping[str, Any] = _PLAIN) -> Connect:
    """Connect with a shared access key; `outward` is what `egress_options` returned."""

    def connect(seconds: float) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(
            text, transport_type=transport, retry_total=1, try_timeout=seconds, **outward
        )

    return connect


def by_identity(
    namespace: str,
    *,
    transport: TransportType,
    credential: Callable[[], AsyncTokenCredential] = DefaultAzureCredential,
    use_tls: bool = True,
    outward: Mapping[str, Any] = _PLAIN,
) -> Connect:
    """Connect as this machine's identity in Entra ID, which needs the role Azure Service Bus Data Sender.

    `use_tls` False is for the stand-in on this machine; a connection string says so by itself.
    """

    def connect(seconds: float) -> ServiceBusClient:
        return ServiceBusClient(
            namespace,
            credential(),
            transport_type=transport,
            retry_total=1,
            try_timeout=seconds,
            use_tls=use_tls,
            **outward,
        )

    return connect


def egress_options(host: str, egress: Egress, *, transport: TransportType) -> Mapping[str, Any]:
    """The client's options for the route that every connection of this site takes (proxy, certificate authorities)."""
    url = f"https://{host}"
    options: dict[str, Any] = {"ssl_context": egress.tls_for(url)}
    # A proxy would turn plain AMQP into the websocket without notice, so plain AMQP gets none; the operator is warned
    # (`relay.assembly.cloud_link.not_by_proxy`).
    proxy = egress.proxy_for(url) if transport is TransportType.AmqpOverWebsocket else None
    if proxy:
        parts = urlsplit(proxy)
        name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        # With its scheme: without one the HTTP client underneath does not take the host for an address.
        options["http_proxy"] = {"proxy_hostname": f"{parts.scheme}://{name}", "proxy_port": parts.port}
        if parts.username:
            password = unquote(parts.password or "")
            options["http_proxy"] |= {"username": unquote(parts.username), "password": password}
    return options


class ServiceBusDestination:
    """Sends each event as one message to the queue or topic `entity`; `sessions` when it was made to need them."""

    def __init__(self, connect: Connect, *, entity: str, sessions: bool = False, seconds: float = SECONDS) -> None:
        self._connect = connect
        self._entity = entity
        self._sessions = sessions
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._client: ServiceBusClient | None = None
        self._sender: ServiceBusSender | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, event: Event) -> None:
        message = self._message(event)
        # One at a time: coroutines that share a sender which is not open yet lose their messages.
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    await (await self._open()).send_messages(message)
            except MessageSizeExceededError as error:
                raise CloudError("The event is larger than what Service Bus takes.", permanent=True) from error
            except Exception as error:  # the client raises TypeError and AttributeError too when its line is cut
                self._drop_client()
                raise CloudError(explain(error, self._entity), permanent=False) from error

    async def close(self) -> None:
        self._drop_client()
        await asyncio.gather(*self._closing)

    def _message(self, event: Event) -> ServiceBusMessage:
        return ServiceBusMessage(
            event.text,
            message_id=_identifier(event.message_id),
            session_id=_identifier(event.subject) if self._sessions else None,
            subject=event.message_type,
            content_type="application/json",
            application_properties={"site": event.envelope.site, "sequence": event.envelope.sequence},
        )

    async def _open(self) -> ServiceBusSender:
        if self._sender is None:
            self._client = self._connect(self._seconds / 3)
            sender = self._client.get_queue_sender(self._entity)  # to the client a topic is the same
            await sender.__aenter__()
            self._sender = sender
        return self._sender

    def _drop_client(self) -> None:
        """Drop the client without waiting; the next event gets a new one."""
        # After an error the client may stay broken, and a dead line takes long to close. This covers the detach after
        # ten idle minutes as well, which the heartbeat of every minute prevents.
        client, self._client, self._sender = self._client, None, None
        if client is not None:
            task = asyncio.create_task(_closed(client))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _closed(client: ServiceBusClient) -> None:
    with suppress(Exception):  # it is dead, which is why it is being closed
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


def _identifier(text: str) -> str:
    """A text as an id of Service Bus."""
    # A digest and not a cut, because two long ids that begin alike must not become one.
    return text if len(text) <= LONGEST_ID else hashlib.sha256(text.encode()).hexdigest()


_WORDS: tuple[tuple[type[Exception], str], ...] = (  # the first that fits; special ones stand before general
    (ServiceBusAuthenticationError, "Service Bus refused the credentials. Check the key or the identity."),
    (ServiceBusAuthorizationError, "Service Bus does not let these credentials send to {entity}. Give them Send."),
    (MessagingEntityNotFoundError, "Service Bus has no queue or topic {entity}. Check the name and the namespace."),
    (MessagingEntityDisabledError, "The queue or topic {entity} is disabled. Enable it in Azure."),
    (ServiceBusQuotaExceededError, "The queue or topic {entity} is full. Its consumer does not keep up."),
    (ServiceBusServerBusyError, "Service Bus is busy and asks to be tried later."),
    (TimeoutError, "Service Bus did not answer in time."),
    (ServiceBusError, "Service Bus cannot be used now ({kind}). Check network, proxy and credentials."),
    (AzureError, "No token for Service Bus can be had ({kind}). Check this machine's identity."),
)


def explain(error: Exception, entity: str) -> str:
    """Say what an error of the client means; its own text is left out, because it has addresses in it."""
    words = "Service Bus cannot be used now ({kind})."
    found = next((text for kind, text in _WORDS if isinstance(error, kind)), words)
    return found.format(entity=entity, kind=type(error).__name__)
