"""The settings of the pacs process."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from pydicom.uid import UID

from gateway.disk_space import USUAL_WATERMARKS, Watermarks
from gateway.remote_ae import Peer
from gateway.settings import AeTitle, CommaList, GatewaySettings, Port


def _peers(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(Peer.parse(part, "=") for part in value.split(",") if part.strip())


def _uids(values: tuple[str, ...]) -> tuple[str, ...]:
    # A mistyped UID would match no proposal, and its objects be refused without a hint at this setting.
    if wrong := [value for value in values if not UID(value).is_valid]:
        raise ValueError(f"not a UID: {', '.join(wrong)}")
    return values


Peers = Annotated[tuple[Peer, ...], NoDecode, BeforeValidator(_peers)]


class PacsSettings(GatewaySettings):
    """`PACS_*` in the environment, beside what all processes share."""

    model_config = SettingsConfigDict(env_prefix="PACS_")

    aet: AeTitle = Field("SCREENING_PACS", description="AE title that modalities call for storage, 1 to 16 characters.")
    host: str = Field("0.0.0.0", description="Address to listen on; all of the machine's, as modalities are elsewhere.")  # noqa: S104
    port: Port = Field(4244, description="TCP port to listen on, 0 to 65535; the worklist is on the one before.")
    db_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "pacs.db",
        description="SQLite file of the index. Beside the worklist's by default.",
    )
    private_classes: Annotated[CommaList, AfterValidator(_uids)] = Field(
        (),
        description="UIDs of private SOP classes that are stored besides all standard ones, separated by commas. See a "
        "machine's conformance statement, and the log for what was refused.",
    )
    storage_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "instances",
        description="Folder of the images. On the volume with the space.",
    )
    peers: Peers = Field(
        (),
        description="DICOM applications that are called, AET=host:port separated by commas: destinations of C-MOVE, "
        "site archives, and those who ask for storage commitment. AET=host:port/tls is called within TLS. Empty by "
        "default: nobody is called who is not named.",
    )
    forward_to: CommaList = Field(
        (),
        description="AE titles of site archives, of PACS_PEERS, separated by commas: every image that is stored from "
        "then on is forwarded to each of them. Empty by default.",
    )
    warn_percent: float = Field(
        USUAL_WATERMARKS.warn_percent,
        gt=0,
        le=100,
        description="Used per cent of the images' volume from which on people are warned, up to 100. A volume that "
        "fills in a month leaves some days then.",
    )
    stop_percent: float = Field(
        USUAL_WATERMARKS.stop_percent,
        gt=0,
        le=100,
        description="Used per cent of the images' volume from which on no images are taken, up to 100. The rest is "
        "for the worklist and the databases, which go on.",
    )
    retention_days: int = Field(
        0,
        ge=0,
        le=36500,
        description="Days after its last image when a study may go, if the cloud has confirmed all of it; 0, the "
        "default: nothing ever goes by itself.",
    )
    retention_needs_commitment: bool = Field(
        False,
        description="Whether a study may only go when its safekeeping was promised to the modality as well (storage "
        "commitment), true or false. Not every modality asks for it.",
    )
    scrub_bytes_per_second: int = Field(
        10_000_000,
        ge=0,
        description="Bytes per second at which stored files are read again each night to see whether they are still "
        "what was received; 0: never. 10 MB/s is a tenth of a slow disk, and 860 GB a day.",
    )
    night_hour: int = Field(
        2,
        ge=0,
        le=23,
        description="Hour of the site's day, 0 to 23, from which on the nightly work is due. A machine that is off "
        "then does it when it is on again.",
    )

    @property
    def watermarks(self) -> Watermarks:
        """The fullness of the volume from which on to warn, and to refuse images."""
        return Watermarks(self.warn_percent, self.stop_percent)

    @model_validator(mode="after")
    def _warn_first(self) -> Self:
        if self.warn_percent > self.stop_percent:
            raise ValueError("PACS_WARN_PERCENT is above PACS_STOP_PERCENT; people have to be warned first.")
        return self

    @model_validator(mode="after")
    def _known_peers(self) -> Self:
        if unknown := [title for title in self.forward_to if title not in {peer.ae_title for peer in self.peers}]:
            raise ValueError(f"PACS_FORWARD_TO names {', '.join(unknown)}, whose address is not in PACS_PEERS.")
        if any(peer.tls for peer in self.peers) and not (self.tls_peer_ca or self.tls_client_ca):
            raise ValueError("PACS_PEERS has a peer with /tls, but GATEWAY_TLS_PEER_CA does not say whom to trust.")
        return self
