"""Which of Entra ID's credentials a site has: a managed identity, a certificate, or what the machine has to offer.

Not here: what is done with the tokens (`relay.hybrid.tokens`).
"""

from typing import Any, Literal, TypeAlias

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import CertificateCredential, DefaultAzureCredential, ManagedIdentityCredential

from relay.egress import Egress
from relay.hybrid.tokens import Credential

Kind: TypeAlias = Literal["managed", "certificate", "default"]


class WayOut(AioHttpTransport):  # type: ignore[misc]  # loaded late by its package, so of no type
    """The identity library's requests, by the site's way out and with whom the site trusts.

    What is not encrypted stays on this machine or its host (a managed identity), and goes through no proxy.
    """

    def __init__(self, egress: Egress) -> None:
        super().__init__(use_env_settings=False)
        self._egress = egress
        self.session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        if self.session is None:  # made here, because it belongs to the loop that runs now
            connector = aiohttp.TCPConnector(ssl=self._egress.tls_for("https://") or True)
            jar = aiohttp.DummyCookieJar()
            self.session = aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False)
        await super().open()

    async def send(self, request: Any, **options: Any) -> Any:
        proxy = self._egress.proxy_for(request.url) if request.url.startswith("https://") else None
        return await super().send(request, proxy=proxy, **options)


def credential(kind: Kind, *, tenant_id: str, client_id: str, certificate: str, egress: Egress) -> Credential:
    """Make a credential. `certificate` is PEM text with certificate and key. Raises ValueError when that is neither.

    A managed identity is asked for on this machine (on Arc machines from the agent) and never through a proxy.
    """
    if kind == "managed":
        return ManagedIdentityCredential(client_id=client_id or None)
    if kind == "certificate":
        return CertificateCredential(
            tenant_id, client_id, certificate_data=certificate.encode(), transport=WayOut(egress)
        )
    return machine_identity(client_id, egress)


def machine_identity(client_id: str, egress: Egress) -> DefaultAzureCredential:
    """Whatever identity this machine has to offer; `client_id` names one of several."""
    return DefaultAzureCredential(managed_identity_client_id=client_id or None, transport=WayOut(egress))
