"""The sending side of a hybrid connection: one message there, one answer back.

`SelfEcho` sends a message to this gateway itself, which proves the whole route of a message from the cloud.

Not here: events (`relay.delivery.hybrid`), the listener (`relay.hybrid.listener`), errors in words
(`relay.hybrid.errors`).
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping

import aiohttp

from gateway.errors import CloudError
from relay.egress import DIRECT, Egress
from relay.hybrid.errors import SOCKET_ERRORS, LinkError, closed, explain, refused_connect
from relay.hybrid.protocol import MESSAGE_BYTES, Endpoint
from relay.hybrid.tokens import TokenSource

TIMEOUT = 30.0
"""Seconds that an exchange may take; the cloud's own sender waits no longer."""

ECHO_TIMEOUT = 15.0
"""Seconds that an echo may take: the service has spikes of 3 to 7, and a deaf listener would take 30."""

ONLY_TO = "Microsoft-Relay-AllowedListeners"
"""Header with the ids of the listeners that may take a sender. Undocumented; Microsoft's own tests use it."""


class HybridSender:
    """Sends over one hybrid connection, a websocket for each message. Several exchanges may run side by side."""

    def __init__(
        self, endpoint: Endpoint, tokens: TokenSource, *, egress: Egress = DIRECT, timeout: float = TIMEOUT
    ) -> None:
        self._endpoint = endpoint
        self._tokens = tokens
        self._egress = egress
        self._timeout = timeout
        self._http: aiohttp.ClientSession | None = None

    async def exchange(self, message: str, *, listener_id: str = "") -> str:
        """Send `message` and return the answer; raises CloudError (passing) unless it came within the timeout.

        With `listener_id` the message goes to that listener only; without that listener the service answers as if there
        were none. A service that ignores the header chooses any.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(message, {ONLY_TO: listener_id} if listener_id else {})
        except aiohttp.WSServerHandshakeError as error:
            raise LinkError(refused_connect(error.status)) from error
        except CloudError:
            raise
        except SOCKET_ERRORS as error:
            raise LinkError(explain(error)) from error

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
        await self._tokens.close()

    async def _exchange(self, message: str, headers: Mapping[str, str]) -> str:
        token = await self._tokens.token(self._endpoint.audience)
        if self._http is None:
            self._http = aiohttp.ClientSession()
        url = self._endpoint.connect_url()
        async with self._http.ws_connect(
            url,
            headers={"ServiceBusAuthorization": token.text, **headers},
            proxy=self._egress.proxy_for(url),
            ssl=self._egress.tls_for(url) or True,
            autoclose=False,
            max_msg_size=MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=2),
        ) as ws:
            await ws.send_str(message)
            answer = await ws.receive()
            if answer.type is not aiohttp.WSMsgType.TEXT:
                raise CloudError(f"No answer came. {closed(ws.close_code).text}", permanent=False)
            return str(answer.data)


class SelfEcho:
    """Proves the route from the cloud: a message sent by this gateway must come back through its listener, unchanged.

    Needs a key that may send as well as listen. Call it with the id of a listener, or with '' for any of them; it
    raises CloudError when the proof failed.
    """

    def __init__(self, sender: HybridSender, *, new_id: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._sender = sender
        self._new_id = new_id

    async def __call__(self, listener_id: str = "") -> None:
        payload: dict[str, object] = {"schema_version": 1, "action_type": "echo", "action_id": self._new_id()}
        answer = json_object(await self._sender.exchange(json.dumps(payload), listener_id=listener_id))
        if answer != {"status": "echo", "payload": payload}:
            raise CloudError("The echo of this gateway's own message came back changed.", permanent=False)

    async def close(self) -> None:
        await self._sender.close()


def json_object(text: str) -> dict[str, object]:
    """Read an answer. Raises CloudError (passing) unless it is a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CloudError("The answer is not a JSON object.", permanent=False)
    return value
