"""Azure Service Bus as a destination for events: the place, and an honest first form.

One task at a time uses the one sender, which is opened before it sends: the official client loses messages when several
coroutines share a sender that is not open yet. On a link that is half open its own send hangs for minutes, so every
send has a limit of ours, and after any error the client is thrown away and made anew for the next event.

Still to be done and proven against a broker: sessions, thumbnails by reference when a message would be too large,
credentials other than a connection string.

Not here: when an event is sent again (`relay.delivery`). Imported only when chosen; the client library is large.
"""

import asyncio

from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError, ServiceBusAuthenticationError

from gateway.errors import CloudError
from relay.delivery import Event

SECONDS = 30.0
"""For one send with its opening; the client may try twice within it."""


class ServiceBusDestination:
    """Sends each event as one message to a queue or topic; the broker's duplicate detection knows it by message_id."""

    def __init__(
        self,
        connection_string: str,
        *,
        queue: str,
        transport: TransportType = TransportType.AmqpOverWebsocket,  # port 443, through proxies
        seconds: float = SECONDS,
    ) -> None:
        self._connection_string = connection_string
        self._queue = queue
        self._transport = transport
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._client: ServiceBusClient | None = None
        self._sender: ServiceBusSender | None = None

    async def send(self, event: Event) -> None:
        message = ServiceBusMessage(
            event.text, message_id=event.message_id, subject=event.message_type, content_type="application/json"
        )
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    await (await self._open()).send_messages(message)
            except MessageSizeExceededError as error:
                raise CloudError("The event is larger than what Service Bus takes.", permanent=True) from error
            except (AzureError, OSError, TimeoutError, ValueError) as error:
                await self.close()
                raise CloudError(_words(error), permanent=False) from error

    async def close(self) -> None:
        """Let go of the connection, also of one that does not answer any more."""
        client, self._client, self._sender = self._client, None, None
        if client is None:
            return
        try:
            async with asyncio.timeout(5):
                await client.close()
        except (AzureError, OSError, TimeoutError):
            pass  # it is dead, which is why it is being closed

    async def _open(self) -> ServiceBusSender:
        if self._sender is None:
            self._client = ServiceBusClient.from_connection_string(
                self._connection_string,
                transport_type=self._transport,
                retry_total=1,
                try_timeout=self._seconds / 3,
            )
            self._sender = self._client.get_queue_sender(self._queue)
            await self._sender.__aenter__()
        return self._sender


def _words(error: Exception) -> str:
    if isinstance(error, ServiceBusAuthenticationError):
        return "Service Bus refused the credentials. Check the connection string and its Send right."
    if isinstance(error, TimeoutError):
        return "Service Bus did not answer in time."
    return f"Service Bus could not be used ({type(error).__name__})."
