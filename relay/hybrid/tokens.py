"""Tokens for the service: signed with a shared access key, or issued by Entra ID.

Nothing here is ever logged: a token's text, a key and a certificate are left out of every `repr`.

Not here: the contents of a token (`relay.hybrid.protocol.sign`), when it is renewed (`relay.hybrid.channel`).
"""

import time
from dataclasses import dataclass, field
from typing import Protocol

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError

from gateway.errors import CloudError
from relay.hybrid.protocol import Token, sign

SCOPE = "https://relay.azure.net/.default"
"""The resource that Entra's tokens for Azure Relay are for."""


class TokenSource(Protocol):
    """A source of tokens. Raises CloudError when none can be had now."""

    async def token(self, audience: str) -> Token: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class SasTokens:
    """Signs each token with a shared access key."""

    key_name: str
    key: str = field(repr=False)
    lifetime: float = 3600  # seconds; the service refuses what ends within a minute, the listener renews at half

    async def token(self, audience: str) -> Token:
        return sign(audience, self.key_name, self.key, expires_at=int(time.time() + self.lifetime))

    async def close(self) -> None:
        """No connection is open."""


class Credential(Protocol):
    """The part of the identity library's asynchronous credentials that is used here."""

    async def get_token(self, *scopes: str) -> AccessToken: ...

    async def close(self) -> None: ...


class EntraTokens:
    """Gets tokens from Entra ID, the same for every audience: its rights are roles on the hybrid connection.

    The token goes into `ServiceBusAuthorization` as it is; on a listener's handshake the service does not understand
    `Authorization: Bearer`.
    """

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def token(self, audience: str) -> Token:  # noqa: ARG002 - a key's token is bound to it, this one is not
        try:
            given = await self._credential.get_token(SCOPE)
        except AzureError as error:  # named by its kind only, because its text may quote the certificate
            raise CloudError(
                f"Entra ID gave no token for Azure Relay ({type(error).__name__}). Check the identity of this machine, "
                "its certificate, and the way to login.microsoftonline.com.",
                permanent=False,
            ) from error
        return Token(given.token, given.expires_on)

    async def close(self) -> None:
        await self._credential.close()
