"""Where the tokens come from that the service is shown: signed with a shared access key, or given by Entra ID.

Nothing here is ever logged: a token's text, a key and a certificate are left out of every `repr`, and an error of the
identity library is repeated by its kind only, because its text may quote what it was given.

Not here: what a token says (`relay.hybrid.protocol.sign`), and when a new one is wanted (`relay.hybrid.channel`).
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
    """Where tokens come from. Raises CloudError when there is none to be had now."""

    async def token(self, audience: str) -> Token: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class SasTokens:
    """Signs a token with a shared access key whenever one is wanted."""

    key_name: str
    key: str = field(repr=False)
    lifetime: float = 3600  # seconds; the service refuses what ends within a minute, the listener renews at half

    async def token(self, audience: str) -> Token:
        return sign(audience, self.key_name, self.key, expires_at=int(time.time() + self.lifetime))

    async def close(self) -> None:
        """Nothing is held."""


class Credential(Protocol):
    """What the identity library's asynchronous credentials are to us."""

    async def get_token(self, *scopes: str) -> AccessToken: ...

    async def close(self) -> None: ...


class EntraTokens:
    """Asks Entra ID for a token, whatever the audience: its rights are roles on the hybrid connection.

    The header takes the token as it is; `Authorization: Bearer` on a listener's handshake is not understood.
    """

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def token(self, audience: str) -> Token:  # noqa: ARG002 - a key's token is bound to it, this one is not
        try:
            given = await self._credential.get_token(SCOPE)
        except AzureError as error:
            raise CloudError(
                f"Entra ID gave no token for Azure Relay ({type(error).__name__}). Check the identity of this machine, "
                "its certificate, and the way to login.microsoftonline.com.",
                permanent=False,
            ) from error
        return Token(given.token, given.expires_on)

    async def close(self) -> None:
        await self._credential.close()
