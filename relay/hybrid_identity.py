"""Which of Entra ID's credentials a site has: a managed identity, a certificate, or what the machine has to offer.

Not here: what is done with the tokens (`relay.hybrid_tokens`).
"""

from typing import Any, Literal, TypeAlias

from azure.identity.aio import CertificateCredential, DefaultAzureCredential, ManagedIdentityCredential

from relay.hybrid_tokens import Credential
from relay.hybrid_way import Way

Kind: TypeAlias = Literal["managed", "certificate", "default"]

LOGIN = "https://login.microsoftonline.com"


def credential(kind: Kind, *, tenant_id: str, client_id: str, certificate: str, way: Way) -> Credential:
    """Make a credential. `certificate` is PEM text with certificate and key. Raises ValueError when that is neither.

    A managed identity is asked for on this machine (on Arc machines from the agent) and never through a proxy.
    """
    proxy = way.proxy_for(LOGIN)
    options: dict[str, Any] = {"proxies": {"https": proxy}} if proxy else {}
    if way.ca_file:
        options["connection_verify"] = str(way.ca_file)
    if kind == "managed":
        return ManagedIdentityCredential(client_id=client_id or None)
    if kind == "certificate":
        return CertificateCredential(tenant_id, client_id, certificate_data=certificate.encode(), **options)
    return DefaultAzureCredential(managed_identity_client_id=client_id or None, **options)
