"""What the environment may say about the worklist."""

from pathlib import Path
from typing import Annotated, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from gateway.character_sets import CharacterSet, character_set
from gateway.settings import AeTitle, CommaList, GatewaySettings, Port
from worklist.items import State
from worklist.store import SHOWN


def _known_states(states: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := set(states) - set(get_args(State)):
        raise ValueError(f"no such state: {', '.join(sorted(unknown))}")
    return states


def _character_sets(value: object) -> object:
    """AET=TERM pairs, separated by commas, as a mapping."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(title.strip() and equals for title, equals, _ in pairs):
        raise ValueError("written AET=ISO_IR 100")
    return {title.strip(): character_set(term.strip()) for title, _, term in pairs}


class WorklistSettings(GatewaySettings):
    """Settings of the worklist's process."""

    model_config = SettingsConfigDict(env_prefix="WORKLIST_")

    aet: AeTitle = Field(
        "SCREENING_MWL",
        description="AE title that modalities call for their worklist and performed procedure steps, "
        "1 to 16 characters.",
    )
    host: str = Field(
        "0.0.0.0",  # noqa: S104 - modalities are other machines
        description="Address to listen on. All by default, because modalities are other machines.",
    )
    port: Port = Field(
        4243,
        description="TCP port of the worklist, 0 to 65535. Above 1023, so that no privilege is needed.",
    )
    db_path: Path = Field(
        default_factory=lambda data: data["data_dir"] / "worklist.db",
        description="The worklist's database file. Under the data folder by default.",
    )
    shown_states: Annotated[CommaList, AfterValidator(_known_states)] = Field(
        SHOWN,
        description="States of the items that modalities are answered, separated by commas: scheduled, in_progress, "
        "completed, discontinued, cancelled. The first two by default, so that an exam that was interrupted can be "
        "taken up again.",
    )
    character_sets: Annotated[dict[AeTitle, CharacterSet], NoDecode, BeforeValidator(_character_sets)] = Field(
        {},
        description="AE titles and the character set each is answered in, separated by commas: MAMMO_1=ISO_IR 100. For "
        "machines that do not read what they are answered otherwise: in the set of their query, or in UTF-8 where that "
        "lacks a letter. Letters that a set named here lacks lose their accents or become question marks.",
    )
