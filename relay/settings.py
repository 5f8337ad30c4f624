"""The settings of the relay: where it serves, which cloud it connects to, and how.

Not for: checking whether the cloud can be reached (`operations.checks`).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from gateway.disk_space import USUAL_WATERMARKS, Watermarks
from gateway.messages.fields import TimeZone
from gateway.settings import AeTitle, CommaList, GatewaySettings, Port, variables
from relay.access.sessions import IDLE_MINUTES
from relay.setting_types import (
    ApiUrl,
    CalledTitles,
    Destinations,
    Grants,
    Namespace,
    Networks,
    Origins,
    ProviderUrl,
    Proxy,
    QuotaLimits,
)

_KEY = ("namespace", "key_name", "shared_access_key")
_CREDENTIALS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "key": _KEY,
        "managed": ("namespace",),
        "certificate": ("namespace", "tenant_id", "client_id", "client_certificate"),
        "default": ("namespace",),
    }
)
"""Which settings each kind of credential cannot do without."""


_API = ("api_url", "api_token")

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hybrid": ("events_hybrid_connection",),
        "https": _API,
        "manage": _API,
        "servicebus": ("servicebus_queue",),
    }
)
"""Which settings each destination cannot do without."""


class RelaySettings(GatewaySettings):
    """Settings of the relay's process."""

    model_config = SettingsConfigDict(env_prefix="RELAY_")

    http_host: str = Field(
        "127.0.0.1",
        description="Address of the pages and of DICOMweb. This machine only by default; another one needs HTTPS and "
        "users.",
    )
    http_port: Port = Field(8042, description="TCP port of the pages and of DICOMweb, 0 to 65535.")
    http_users_required: bool = Field(
        False,
        description="Whether users have to log in on this machine too, true or false. Without, they have to as soon as "
        "there are any, and always on another address.",
    )
    http_behind_tls: bool = Field(
        False,
        description="Whether something in front speaks TLS, such as a proxy, or lets only its own machine through, as "
        "a container's port can, true or false. Then another address needs no certificate here.",
    )
    http_rate: float = Field(
        500.0,
        ge=0,
        le=1_000_000,
        description="Requests per second from one address, up to 1000000, of which four seconds' worth may come at "
        "once; 0: no limit. A viewer asks for some hundred when it opens a study.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Reverse proxies in front, addresses and networks such as 10.0.9.0/28 separated by commas: the "
        "client they name (X-Forwarded-For or Forwarded) counts for limits and audit trail. Empty: nobody is believed.",
    )
    http_tls_certificate: Path | None = Field(
        None,
        validation_alias="RELAY_TLS_CERTIFICATE",
        description="PEM file with the certificate for HTTPS and the chain behind it. Empty by default: that of the "
        "DICOM ports, and on loopback none.",
    )
    http_tls_key: Path | None = Field(
        None,
        validation_alias="RELAY_TLS_KEY",
        description="PEM file with the key of that certificate, without a password, readable by the service alone.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins of other sites whose pages may read here, such as https://viewer.hospital.example, "
        "separated by commas and exactly as browsers send them. Empty by default: none.",
    )
    users_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "users.json",
        description="File of the users and the hashes of their passwords. Under the data folder by default.",
    )
    idle_minutes: float = Field(
        IDLE_MINUTES,
        gt=0,
        le=720,
        description="Minutes without anything done at a browser that is signed in until it is locked, up to 720; "
        "wallboards are not.",
    )
    own_token_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "relay-token",
        description="File of the credential that 'gateway check' logs in with, new with each start. Under the data "
        "folder by default.",
    )
    oidc_issuer: ProviderUrl = Field(
        "",
        description="Address of the identity provider (OpenID Connect issuer) whose bearer tokens are taken, exactly "
        "as in its tokens. Empty: none are.",
    )
    oidc_audience: str = Field("", description="Audience that tokens have to be made for.")
    oidc_client_id: str = Field(
        "",
        description="The relay's name as a client of the identity provider, with which people sign in at a browser. "
        "Empty: they do so with passwords alone.",
    )
    oidc_client_secret: SecretStr | None = Field(
        None, description="Secret of that client. Empty: it is a public one, which PKCE protects."
    )
    oidc_claim: str = Field(
        "roles",
        min_length=1,
        description="Claim of a token that has the roles, with dots for claims within claims such as "
        "realm_access.roles.",
    )
    oidc_roles: Grants = Field(
        (),
        description="Which values of that claim grant which role, separated by commas, such as "
        "mammo-staff=viewer,mammo-it=admin. Empty by default: viewer, operator and admin grant themselves.",
    )
    peers: CalledTitles = Field(
        (),
        validation_alias="PACS_PEERS",
        description="DICOM applications that objects can be sent to, as the archive has them.",
    )
    destinations: Destinations = Field(
        (),
        validation_alias="RELAY_DESTINATION",
        description="Where events go: none, or hybrid, https, manage, servicebus, several separated by commas. "
        "With none they are kept until there is a destination.",
    )
    rates: QuotaLimits = Field(
        (),
        description="Most bytes a second to each destination, such as images@07:00-19:00=200k,images=2M; classes are "
        "metadata, thumbnails and images. Empty: as fast as the line is.",
    )
    budgets: QuotaLimits = Field(
        (),
        description="Most bytes to each destination in a day, or in a window of it, such as thumbnails=50M, "
        "images@05:00-21:00=0. Empty: no limit.",
    )
    hold_mismatches: bool = Field(
        True,
        description="Whether images whose participant, accession number or side disagrees with their worklist item "
        "are held back from the cloud until somebody on site releases them, true or false.",
    )
    heartbeat_seconds: float = Field(
        60.0,
        ge=1,
        le=120,
        description="Seconds between two heartbeats to the destination, 1 to 120. They prove the way out, which counts "
        "as proven for three minutes.",
    )
    cloud_timezone: TimeZone = Field(
        "",
        description="IANA name of the time zone in which this cloud sends appointments, such as UTC. Empty by default: "
        "it sends the site's wall time.",
    )
    api_url: ApiUrl = Field(
        "",
        description="Address of the cloud's HTTPS API such as https://programme.example/api/v1. For the destinations "
        "https and manage.",
    )
    api_token: SecretStr | None = Field(None, description="Bearer token for the API.")
    upload_hosts: str = Field(
        ".blob.core.windows.net",
        description="Hosts, separated by commas, to which the cloud may have full images and diagnostics uploaded by "
        "URL; a name with a dot in front stands for all below it. Azure Blob Storage by default; naming your own "
        "storage account keeps a stolen key from sending images elsewhere.",
    )
    upload_bytes_per_second: int = Field(
        1_000_000,
        ge=0,
        description="Bytes per second at which full images leave, wherever to; 0: no limit. 1 MB/s leaves a van's line "
        "room for everything else, and takes a quarter of an hour for a gigabyte.",
    )
    namespace: Namespace = Field(
        "",
        validation_alias="AZURE_RELAY_NAMESPACE",
        description="Host of the Azure Relay namespace such as site.servicebus.windows.net. Empty: no cloud calls.",
    )
    hybrid_connection: str = Field(
        "",
        validation_alias="AZURE_RELAY_HYBRID_CONNECTION",
        description="Hybrid connection on which this site takes actions.",
    )
    events_hybrid_connection: str = Field(
        "",
        validation_alias="AZURE_RELAY_EVENTS_HYBRID_CONNECTION",
        description="Hybrid connection on which the cloud takes events. For the destination hybrid.",
    )
    key_name: str = Field(
        "",
        validation_alias="AZURE_RELAY_KEY_NAME",
        description="Name of the shared access key. It needs the rights Listen and Send; the second also for the echo "
        "that proves the link.",
    )
    shared_access_key: SecretStr | None = Field(
        None, validation_alias="AZURE_RELAY_SHARED_ACCESS_KEY", description="The shared access key itself."
    )
    credential: Literal["key", "managed", "certificate", "default"] = Field(
        "key",
        validation_alias="AZURE_RELAY_CREDENTIAL",
        description="What the service is shown: key (the shared access key), managed (this machine's managed identity, "
        "also of Azure Arc), certificate (of an application in Entra ID), or default (whatever identity is found).",
    )
    tenant_id: str = Field(
        "", validation_alias="AZURE_TENANT_ID", description="Entra ID tenant. For the credential certificate."
    )
    client_id: str = Field(
        "",
        validation_alias="AZURE_CLIENT_ID",
        description="Entra ID application, for the credential certificate; or a managed identity of several.",
    )
    client_certificate: SecretStr | None = Field(
        None,
        validation_alias="AZURE_CLIENT_CERTIFICATE",
        description="PEM text of the application's certificate and its key. For the credential certificate.",
    )
    listeners: int = Field(
        2,
        ge=1,
        le=4,
        validation_alias="AZURE_RELAY_LISTENERS",
        description="Connections that listen side by side, 1 to 4. With two, one serves while the other is replaced; "
        "each is paid for.",
    )
    ping_seconds: float = Field(
        25,
        ge=0,
        le=200,
        validation_alias="AZURE_RELAY_PING_SECONDS",
        description="Seconds between two pings on each of them, up to 200; 0: none. Load balancers forget what is idle "
        "for four minutes, and an unanswered ping is how a line that is half open is noticed within a minute.",
    )
    proxy: Proxy = Field(
        None,
        description="Proxy to the cloud, http://host:port or http://name:password@host:port. Empty: none. With a "
        "password it belongs into the credentials folder.",
    )
    no_proxy: CommaList = Field(
        (),
        description="What is reached without the proxy, separated by commas: hosts, domains such as .example, "
        "networks such as 10.0.0.0/8. This machine always is.",
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities that are trusted besides the machine's own, for a proxy that "
        "looks into TLS.",
    )
    servicebus_connection_string: SecretStr | None = Field(
        None,
        validation_alias="AZURE_SERVICEBUS_CONNECTION_STRING",
        description="Connection string of the Service Bus namespace, with a key that may send. Empty: this machine's "
        "identity in Entra ID is used.",
    )
    servicebus_namespace: str = Field(
        "",
        validation_alias="AZURE_SERVICEBUS_NAMESPACE",
        description="Host of the Service Bus namespace such as site.servicebus.windows.net, for the identity.",
    )
    servicebus_queue: str = Field(
        "",
        validation_alias="AZURE_SERVICEBUS_QUEUE",
        description="Queue or topic of the Service Bus namespace that takes events.",
    )
    servicebus_sessions: bool = Field(
        False,
        validation_alias="AZURE_SERVICEBUS_SESSIONS",
        description="true when the queue or topic was made with sessions; each subject is one then. Off by default, as "
        "in Azure.",
    )
    servicebus_transport: Literal["websocket", "amqp"] = Field(
        "websocket",
        validation_alias="AZURE_SERVICEBUS_TRANSPORT",
        description="websocket (port 443, what firewalls let through) or amqp (port 5671).",
    )
    worklist_db_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "worklist.db",
        validation_alias="WORKLIST_DB_PATH",
        description="The worklist's database file, as the worklist has it.",
    )
    worklist_aet: AeTitle = Field(
        "SCREENING_MWL",
        validation_alias="WORKLIST_AET",
        description="AE title that modalities call for their worklist, as the worklist has it.",
    )
    worklist_host: str = Field(
        "0.0.0.0",  # noqa: S104 - read, not bound
        validation_alias="WORKLIST_HOST",
        description="Address the worklist listens on, as the worklist has it.",
    )
    worklist_port: Port = Field(
        4243, validation_alias="WORKLIST_PORT", description="TCP port of the worklist, as it has it."
    )
    pacs_db_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "pacs.db",
        validation_alias="PACS_DB_PATH",
        description="SQLite file of the archive's index, as the archive has it.",
    )
    pacs_storage_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "instances",
        validation_alias="PACS_STORAGE_PATH",
        description="Folder of the images, as the archive has it.",
    )
    viewer_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "viewer",
        description="Folder of the viewer's files, which `gateway viewer install` fills; by default the folder viewer "
        "in the data folder.",
    )
    warn_percent: float = Field(
        USUAL_WATERMARKS.warn_percent,
        validation_alias="PACS_WARN_PERCENT",
        description="Used per cent of the images' volume to warn from, as the archive has it.",
    )
    stop_percent: float = Field(
        USUAL_WATERMARKS.stop_percent,
        validation_alias="PACS_STOP_PERCENT",
        description="Used per cent of the images' volume at which images stop, as the archive has it.",
    )
    pacs_aet: AeTitle = Field(
        "SCREENING_PACS",
        validation_alias="PACS_AET",
        description="AE title that modalities call for storage, as the archive has it.",
    )
    pacs_host: str = Field(
        "0.0.0.0",  # noqa: S104 - read, not bound
        validation_alias="PACS_HOST",
        description="Address the archive listens on, as the archive has it.",
    )
    pacs_port: Port = Field(4244, validation_alias="PACS_PORT", description="TCP port of the archive, as it has it.")
    largest_upload: int = Field(
        4_000_000_000,
        ge=0,
        description="Bytes that one upload (STOW-RS) may have; objects are stored one after the other, so only the "
        "largest of them has to fit beside the databases meanwhile. 0: nothing can be uploaded.",
    )
    upload_aet: AeTitle = Field(
        "GATEWAY_UPLOAD",
        description="AE title under which uploads are handed to the archive, 1 to 16 characters. It has to be in "
        "GATEWAY_CALLING_AETS, unless that is empty.",
    )
    delete: bool = Field(
        False,
        description="Whether studies, series and instances may be deleted over HTTP when the rules of retention let "
        "them go, true or false. Off by default, because nothing has to be deleted by hand.",
    )
    retention_days: int = Field(
        0, ge=0, validation_alias="PACS_RETENTION_DAYS", description="Days until a study may go, as the archive has it."
    )
    deletion_needs_commitment: bool = Field(
        False,
        validation_alias="PACS_RETENTION_NEEDS_COMMITMENT",
        description="Whether what goes has to have been promised to the modality, as the archive has it.",
    )

    @property
    def watermarks(self) -> Watermarks:
        """When the archive warns and when it stops."""
        return Watermarks(self.warn_percent, self.stop_percent)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of `upload_hosts`."""
        return tuple(host.strip().lower() for host in self.upload_hosts.split(",") if host.strip())

    @property
    def listens(self) -> bool:
        """Whether the cloud may call this site."""
        return bool(self.hybrid_connection)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        # Half a configuration would look like a working gateway that receives or sends nothing.
        if self.oidc_issuer:
            self._require(("oidc_audience",), "RELAY_OIDC_ISSUER needs it")
        if self.oidc_client_id:
            self._require(("oidc_issuer",), "RELAY_OIDC_CLIENT_ID needs it")
        for name in self.destinations:
            self._require(NEEDS[name], f"RELAY_DESTINATION={name} needs it")
        if "servicebus" in self.destinations and not self.servicebus_connection_string:
            reason = "RELAY_DESTINATION=servicebus needs it or AZURE_SERVICEBUS_CONNECTION_STRING"
            self._require(("servicebus_namespace",), reason)
        credential = _CREDENTIALS[self.credential]
        if "hybrid" in self.destinations:
            self._require(credential, "RELAY_DESTINATION=hybrid needs it")
        elif self.namespace or self.hybrid_connection:
            self._require((*credential, "hybrid_connection"), "a site that the cloud calls needs it")
        return self

    def _require(self, names: tuple[str, ...], reason: str) -> None:
        missing = [name for name in names if not getattr(self, name)]
        if missing:
            # The operator sets variables and does not know the names of fields.
            known = dict(zip(type(self).model_fields, variables(type(self)), strict=True))
            raise ValueError("\n".join(f"{known[name]} is not set; {reason}." for name in missing))


def revealed(secret: SecretStr | None) -> str:
    """The text of a secret; empty when it is not set, which `RelaySettings` allows only where it is not needed."""
    return secret.get_secret_value() if secret else ""
