"""The sending side of a hybrid connection: one message there, one answer back.

Two things are built on it. `HybridDestination` tells the cloud an event over the cloud's own hybrid connection.
`SelfEcho` sends this gateway a message through the service, which proves the whole way a message from the cloud takes.

Not here: when an event is sent again (`relay.delivery`), the listener (`relay.hybrid`), what went wrong in words
(`relay.hybrid_trouble`).
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from gateway.errors import CloudError
from relay.delivery import Event
from relay.hybrid_protocol import MESSAGE_BYTES, Endpoint, Token, sign
from relay.hybrid_trouble import SOCKET_ERRORS, Trouble, closed, explain, refused_connect

DELIVERED = frozenset({"processed", "created", "updated", "ok"})
NEVER = frozenset({"invalid", "unsupported", "conflict"})
"""Codes of an error answer that the same event would get again for ever."""


# --- tokens -----------------------------------------------------------------------------------------------------------


class TokenSource(Protocol):
    """Where tokens come from. Raises CloudError when there is none to be had now."""

    async def token(self, audience: str) -> Token: ...


@dataclass(frozen=True)
class SasTokens:
    """Signs a token with a shared access key whenever one is wanted."""

    key_name: str
    key: str = field(repr=False)
    lifetime: float = 3600  # seconds; the service refuses what ends within a minute, the listener renews at half

    async def token(self, audience: str) -> Token:
        return sign(audience, self.key_name, self.key, expires_at=int(time.time() + self.lifetime))


# --- sending ----------------------------------------------------------------------------------------------------------


class HybridSender:
    """Sends over one hybrid connection, a websocket for each message. Several exchanges may run side by side."""

    def __init__(self, endpoint: Endpoint, tokens: TokenSource, *, timeout: float = 30) -> None:
        self._endpoint = endpoint
        self._tokens = tokens
        self._timeout = timeout
        self._http: aiohttp.ClientSession | None = None

    async def exchange(self, message: str) -> str:
        """Send `message` and give the answer; raises CloudError (passing) unless it came within the timeout."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(message)
        except aiohttp.WSServerHandshakeError as error:
            raise _passing(refused_connect(error.status)) from error
        except CloudError:
            raise
        except SOCKET_ERRORS as error:
            raise _passing(explain(error)) from error

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def _exchange(self, message: str) -> str:
        token = await self._tokens.token(self._endpoint.audience)
        if self._http is None:
            self._http = aiohttp.ClientSession()
        async with self._http.ws_connect(
            self._endpoint.connect_url(),
            headers={"ServiceBusAuthorization": token.text},
            autoclose=False,
            max_msg_size=MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=2),
        ) as ws:
            await ws.send_str(message)
            answer = await ws.receive()
            if answer.type is not aiohttp.WSMsgType.TEXT:
                raise CloudError(f"No answer came. {closed(ws.close_code).text}", permanent=False)
            return str(answer.data)


def _passing(trouble: Trouble) -> CloudError:
    return CloudError(trouble.text, permanent=False)


class SelfEcho:
    """Proves the way in: what this gateway sends as a sender must come back through its own listener, unchanged.

    Needs a key that may send as well as listen. Call it; it raises CloudError when the proof failed.
    """

    def __init__(self, sender: HybridSender, *, new_id: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._sender = sender
        self._new_id = new_id

    async def __call__(self) -> None:
        payload: dict[str, object] = {"schema_version": 1, "action_type": "echo", "action_id": self._new_id()}
        answer = _object(await self._sender.exchange(json.dumps(payload)))
        if answer != {"status": "echo", "payload": payload}:
            raise CloudError("The echo of this gateway's own message came back changed.", permanent=False)

    async def close(self) -> None:
        await self._sender.close()


class HybridDestination:
    """Tells events over a hybrid connection on which the cloud listens. Delivered is what it answers as processed."""

    def __init__(self, sender: HybridSender) -> None:
        self._sender = sender

    async def send(self, event: Event) -> None:
        judge(await self._sender.exchange(event.text))

    async def close(self) -> None:
        await self._sender.close()


def judge(answer: str) -> None:
    """Return when `answer` confirms the event; otherwise raise CloudError, permanent if it can never be confirmed."""
    fields = _object(answer)
    status, code = _word(fields.get("status")), _word(fields.get("code"))
    if status in DELIVERED:
        return
    if status == "error" and code in NEVER:
        raise CloudError(f"The cloud refused the event for good with code {code}.", permanent=True)
    raise CloudError(f"The cloud did not confirm the event (status: {status}, code: {code}).", permanent=False)


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CloudError("The answer is not a JSON object.", permanent=False)
    return value


def _word(value: object) -> str:
    # Only what looks like one of our words is repeated: the peer's free text may name a participant.
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 32 else "no word"
