"""The settings of the pacs process."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway.settings import AeTitle, GatewaySettings, Port


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
    storage_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "instances",
        description="Folder of the images. On the volume with the space.",
    )
    max_associations: int = Field(
        32, ge=1, le=1000, description="Associations at a time, 1 to 1000; a site has fewer machines than 32."
    )
