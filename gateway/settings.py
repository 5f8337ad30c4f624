"""Settings: the variables of a process, read once at the start and passed down as frozen values.

Every process has one class in its own package, derived from `GatewaySettings`. A field is the variable of the class's
`env_prefix` and its own name in capitals, or the variable that its `validation_alias` names.

Sources, strongest first: the environment, systemd's credentials folder (`CREDENTIALS_DIRECTORY`, one file per
variable, for secrets), and in development a `.env` file in the working directory.

Not for: the meaning of a value in a package. There is no global settings object, and nothing is read again.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from gateway.errors import SettingsError
from gateway.remote_ae import Caller


def ae_title(text: str) -> str:
    """Read an AE title (PS3.5 Table 6.2-1, VR AE); outer spaces mean nothing. Raises ValueError."""
    title = text.strip(" ")
    if not 1 <= len(title) <= 16 or "\\" in title or not (title.isascii() and title.isprintable()):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def _caller(entry: object) -> object:
    if not isinstance(entry, str):
        return entry
    caller = Caller.parse(entry)
    return replace(caller, ae_title=ae_title(caller.ae_title))


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


split_commas = BeforeValidator(_split)
"""Lets a tuple be written in one variable, separated by commas; goes with `NoDecode` into the field's type."""

AeTitle = Annotated[str, AfterValidator(ae_title)]
CommaList = Annotated[tuple[str, ...], NoDecode, split_commas]
Callers = Annotated[tuple[Annotated[Caller, BeforeValidator(_caller)], ...], NoDecode, split_commas]
Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 takes any free one (tests and demonstrations)."""
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]


class _Credentials(SecretsSettingsSource):
    """The credentials folder; an empty file is an unset variable."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[object, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        # Empty files occur because systemd insists that each credential's file exists.
        return value or None, key, is_complex


class GatewaySettings(BaseSettings):
    """The settings that all three processes share. A package derives its own class and gives it an `env_prefix`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",  # the environment is full of other programs' variables
        env_prefix="GATEWAY_",
        env_file=".env",
        env_ignore_empty=True,  # `PACS_STORAGE_PATH=` in a copied .env means: the default
    )

    data_dir: Path = Field(
        Path("data"),
        validation_alias="GATEWAY_DATA_DIR",
        description="Folder that holds the databases and the images; /var/lib/gateway on a site. "
        "Relative by default so that a checkout keeps its data to itself.",
    )
    site: str = Field(
        "unnamed",
        min_length=1,
        max_length=64,
        validation_alias="GATEWAY_SITE",
        description="Name of this site in every event to the cloud, 1 to 64 characters.",
    )
    calling_aets: Callers = Field(
        (),
        validation_alias="GATEWAY_CALLING_AETS",
        description="AE titles that may call, separated by commas, each from anywhere or, written MAMMO_1@10.0.1.7 or "
        "MAMMO_1@10.0.1.0/24, from there only. Empty lets anyone in: convenient on a bench, not on a hospital network.",
    )
    max_associations: int = Field(
        32,
        ge=1,
        le=1000,
        validation_alias="GATEWAY_MAX_ASSOCIATIONS",
        description="Associations at a time, 1 to 1000, of the worklist and of the archive each; a site has fewer "
        "machines than 32. Two more are kept for echoes.",
    )
    max_associations_per_peer: int = Field(
        16,
        ge=1,
        le=1000,
        validation_alias="GATEWAY_MAX_ASSOCIATIONS_PER_PEER",
        description="The same for one address and for one AE title, 1 to 1000, so that one machine that opens too many "
        "leaves room for the others.",
    )
    tls_certificate: Path | None = Field(
        None,
        validation_alias="GATEWAY_TLS_CERTIFICATE",
        description="PEM file with this site's certificate and the chain behind it. Set, both DICOM ports take TLS "
        "only; without, none.",
    )
    tls_key: Path | None = Field(
        None,
        validation_alias="GATEWAY_TLS_KEY",
        description="PEM file with the key of the certificate, without a password, readable by the service alone.",
    )
    tls_client_ca: Path | None = Field(
        None,
        validation_alias="GATEWAY_TLS_CLIENT_CA",
        description="PEM file with the CA that signed the machines' certificates. Set, a machine without such a "
        "certificate is turned away; empty asks for none.",
    )
    tls_peer_ca: Path | None = Field(
        None,
        validation_alias="GATEWAY_TLS_PEER_CA",
        description="PEM file with the CA that signed the certificates of peers that are called within TLS (/tls in "
        "PACS_PEERS), or with these certificates themselves. Empty by default: that of GATEWAY_TLS_CLIENT_CA.",
    )
    audit_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "audit",
        validation_alias="GATEWAY_AUDIT_PATH",
        description="Folder of the audit trail. Under the data folder by default; a volume of its own keeps it from "
        "filling up with the images.",
    )
    log_level: LogLevel = Field(
        "INFO",
        validation_alias="LOG_LEVEL",
        description="DEBUG, INFO, WARNING or ERROR. INFO is one line per instance, item and event.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the credentials folder takes its place
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        credentials = (_Credentials(settings_cls, secrets_dir=folder),) if folder else ()
        return init_settings, env_settings, *credentials, dotenv_settings


S = TypeVar("S", bound=BaseSettings)


def load(cls: type[S]) -> S:
    """Read the settings of one process.

    Raises SettingsError with one sentence per variable that is missing or wrong; the process then ends with exit
    code 78. Values never appear in it when the field is a secret.
    """
    try:
        return cls()
    except ValidationError as error:
        details = error.errors(include_url=False)
        # A default that derives from a wrong field is not a second mistake.
        sentences = [_sentence(cls, detail) for detail in details if detail["type"] != "default_factory_not_called"]
        raise SettingsError("\n".join(sentences)) from None


def variables(cls: type[BaseSettings]) -> Mapping[str, FieldInfo]:
    """Every variable a settings class reads, in the order of its fields."""
    return {_variable(cls, name): field for name, field in cls.model_fields.items()}


def _variable(cls: type[BaseSettings], name: str) -> str:
    alias = cls.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"{cls.model_config.get('env_prefix', '')}{name}".upper()


def _sentence(cls: type[BaseSettings], detail: ErrorDetails) -> str:
    if not detail["loc"]:  # a rule over several fields; its own message names the variables
        return detail["msg"].removeprefix("Value error, ")
    known = variables(cls)
    # pydantic names the field or its alias; the sentence names the variable, because people can change that.
    first = str(detail["loc"][0])
    variable = first if first in known else _variable(cls, first)
    field = known[variable]
    expected = (field.description or detail["msg"]).split(". ")[0].rstrip(".")
    if detail["type"] == "missing":
        return f"{variable} is not set; expected: {expected}."
    return f"{variable}{_shown(field, detail)} cannot be used ({_lower_first(detail['msg'])}); expected: {expected}."


def _shown(field: FieldInfo, detail: ErrorDetails) -> str:
    if "Secret" in repr(field.annotation):
        return ""
    return f"={detail['input']!s:.80}"


def _lower_first(text: str) -> str:
    plain = text.removeprefix("Value error, ")
    return plain[:1].lower() + plain[1:]
