"""What the environment may say about the relay: where it serves, which cloud it talks to, and how.

Not for: judging whether the cloud can be reached.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from gateway.fields import TimeZone
from gateway.settings import GatewaySettings, Port, variables
from gateway.volume import USUAL_WATERMARKS, Watermarks
from relay.hybrid_protocol import endpoint
from relay.uploads import api_url as check_api_url  # the field below has the name


def _unless_empty(check: Callable[[str], object]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if text:
            check(text)
        return text

    return checked


def _namespace(text: str) -> None:
    endpoint(text, "any")


_LINK = ("namespace", "key_name", "shared_access_key")
_API = ("api_url", "api_token")

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "none": (),
        "hybrid": (*_LINK, "events_hybrid_connection"),
        "https": _API,
        "manage": _API,
        "servicebus": ("servicebus_connection_string", "servicebus_queue"),
    }
)
"""Which settings each destination cannot do without."""


class RelaySettings(GatewaySettings):
    """Settings of the relay's process."""

    model_config = SettingsConfigDict(env_prefix="RELAY_")

    http_host: str = Field(
        "127.0.0.1",
        description="Address of the pages and of DICOMweb. This machine only by default, as there is no log-in yet.",
    )
    http_port: Port = Field(8042, description="TCP port of the pages and of DICOMweb, 0 to 65535.")
    destination: Literal["none", "hybrid", "https", "manage", "servicebus"] = Field(
        "none",
        description="Where events go: none, hybrid, https, manage or servicebus. With none they are kept until there "
        "is a destination.",
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
    api_url: Annotated[str, AfterValidator(_unless_empty(check_api_url))] = Field(
        "",
        description="Address of the cloud's HTTPS API such as https://programme.example/api/v1. For the destinations "
        "https and manage.",
    )
    api_token: SecretStr | None = Field(None, description="Bearer token for the API.")
    namespace: Annotated[str, AfterValidator(_unless_empty(_namespace))] = Field(
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
    servicebus_connection_string: SecretStr | None = Field(
        None,
        validation_alias="AZURE_SERVICEBUS_CONNECTION_STRING",
        description="Connection string of the Service Bus namespace. For the destination servicebus.",
    )
    servicebus_queue: str = Field(
        "",
        validation_alias="AZURE_SERVICEBUS_QUEUE",
        description="Queue or topic of the Service Bus namespace that takes events.",
    )
    worklist_db_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "worklist.db",
        validation_alias="WORKLIST_DB_PATH",
        description="The worklist's database file, as the worklist has it.",
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

    @property
    def watermarks(self) -> Watermarks:
        """When the archive warns and when it stops."""
        return Watermarks(self.warn_percent, self.stop_percent)

    @property
    def listens(self) -> bool:
        """Whether the cloud may call this site."""
        return bool(self.hybrid_connection)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Half a configuration would look like a working gateway that hears or says nothing."""
        self._require(NEEDS[self.destination], f"RELAY_DESTINATION={self.destination} needs it")
        if self.namespace or self.hybrid_connection:
            needed = _LINK if self.destination == "hybrid" else (*_LINK, "hybrid_connection")
            self._require(needed, "a site that the cloud calls needs it")
        return self

    def _require(self, names: tuple[str, ...], reason: str) -> None:
        missing = [name for name in names if not getattr(self, name)]
        if missing:
            known = dict(zip(type(self).model_fields, variables(type(self)), strict=True))
            raise ValueError("\n".join(f"{known[name]} is not set; {reason}." for name in missing))


def revealed(secret: SecretStr | None) -> str:
    """The text of a secret; empty when it is not set, which `RelaySettings` allows only where nobody needs it."""
    return secret.get_secret_value() if secret else ""
