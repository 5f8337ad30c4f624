"""The Entra ID credential of a site: a managed identity, a certificate, or whatever identity the machine offers.

Not here: using the tokens (`relay.hybrid.tokens`).
"""

from typing import Any, Literal, TypeAlias

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import CertificateCredential, DefaultAzureCredential, ManagedIdentityCredential

from relay.egress import Egress
from relay.hybrid.tokens import Credential

Kind: TypeAlias = Literal["managed", "certificate", "default"]


class EgressTransport(AioHttpTransport):  # type: ignore[misc]  # loaded late by its package, so of no type
    """The identity library's requests, by the site's proxy and with the certificate authorities it trusts."""

    def __init__(self, egress: Egress) -> None:
        # Not the environment: every library reads HTTPS_PROXY by rules of its own.
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
        # Plain HTTP is for the managed identity's endpoint on this machine or its host, which no proxy can reach.
        proxy = self._egress.proxy_for(request.url) if request.url.startswith("https://") else None
        return await super().send(request, proxy=proxy, **options)


def credential(kind: Kind, *, tenant_id: str, client_id: str, certificate: str, egress: Egress) -> Credential:
    """Make a credential. `certificate` is PEM text with certificate and key; raises ValueError when it is not."""
    if kind == "managed":
        # Its token comes from this machine (on Arc machines from the agent), so it needs no transport of ours.
        return ManagedIdentityCredential(client_id=client_id or None)
    if kind == "certificate":
        return CertificateCredential(
            tenant_id, client_id, certificate_data=certificate.encode(), transport=EgressTransport(egress)
        )
    return machine_identity(client_id, egress)


def machine_identity(client_id: str, egress: Egress) -> DefaultAzureCredential:
    """Whatever identity this machine has to offer; `client_id` names one of several."""
    return DefaultAzureCredential(managed_identity_client_id=client_id or None, transport=EgressTransport(egress))
