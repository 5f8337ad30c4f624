"""Token, listener and echo over Hybrid Connections: the last steps of `link_check`, and `echo_once` for `site_check`.

Not for: the connection below (`cloud_connection`), and not for the order of the steps (`link_check`).
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from time import time

from gateway.hops import Note, Nothing, Observed
from operations.checks import relay_request
from relay.assembly import cloud_link
from relay.hybrid.errors import explain
from relay.hybrid.exchange import LinkLimits
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import Endpoint, endpoint
from relay.settings import RelaySettings

LISTENS_WITHIN = 20.0
"""Seconds in which the service has to accept a listener."""


def token(note: Note, settings: RelaySettings, at: Endpoint) -> None:
    """Get a token for the hybrid connection, and report how long it is valid. Raises the credential's errors."""

    async def ask() -> float:
        source = cloud_link.tokens(settings)
        try:
            return (await source.token(at.audience)).expires_at
        finally:
            await source.close()

    left = asyncio.run(ask()) - time()
    note.detail = f"Credential {settings.credential}, good for {left / 60:.0f} minutes."


def echo(note: Note, settings: RelaySettings) -> None:
    """Read listener and echo from the relay's health; when it does not run, listen and echo here. Raises Observed."""
    # A relay that runs reports its own listener and echo, because a second listener would take messages from it.
    try:
        report = json.loads(relay_request.get(settings, "/healthz"))
    except OSError:
        note.detail = asyncio.run(_listen_and_echo(settings))
        return
    found = report["checks"].get("hybrid_connection", {"ok": False, "detail": "The relay has no link: restart it."})
    if not found["ok"]:
        raise Observed(f"The relay reports: {found['detail']}")
    proven = f"an echo or a message came through at {found['proven_at']}." if found["proven_at"] else ""
    note.detail = f"The relay listens; {proven} {found['detail']}".strip()


def echo_once(note: Note, settings: RelaySettings) -> None:
    """Send one echo through the cloud to the relay that runs here. Raises Nothing when no link is configured."""
    if not settings.listens:
        raise Nothing("No hybrid connection is configured.")
    asyncio.run(_sent_back(settings))
    note.detail = "The message came back by way of the cloud."


async def _sent_back(settings: RelaySettings) -> None:
    echo = cloud_link.echo(settings)
    try:
        await echo()
    finally:
        await echo.close()


async def _listen_and_echo(settings: RelaySettings) -> str:
    echo = cloud_link.echo(settings)
    listener = _only_echo(settings)
    running = asyncio.create_task(listener.run())
    try:
        await _let_in(listener)
        await echo()
    except TimeoutError as error:
        raise Observed(listener.state.last_error or explain(error).text) from error
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await echo.close()
    return "The relay does not run. A listener of this command was let in, and its echo came back."


def _only_echo(settings: RelaySettings) -> HybridListener:
    async def answer(text: str) -> str:
        message = json.loads(text)
        if isinstance(message, dict) and message.get("action_type") == "echo":
            return json.dumps({"status": "echo", "payload": message})
        # Busy: the sender repeats the action, and the relay gets it when it runs again.
        return json.dumps({"status": "error", "code": "busy", "message": "The relay does not run."})

    return HybridListener(
        endpoint(settings.namespace, settings.hybrid_connection),
        cloud_link.tokens(settings),
        on_message=answer,
        limits=replace(LinkLimits(), listeners=1),
        egress=cloud_link.egress(settings),
    )


async def _let_in(listener: HybridListener) -> None:
    async with asyncio.timeout(LISTENS_WITHIN):
        while listener.state.connected_since is None:
            if listener.state.last_error:
                raise Observed(listener.state.last_error)
            await asyncio.sleep(0.05)
