"""The settings of the worklist process, `WORKLIST_*` in the environment."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from gateway.dataset.character_sets import CharacterSet, character_set
from gateway.settings import AeTitle, CommaList, GatewaySettings, Port, ae_title, split_commas
from worklist.visibility import SHOWN, PeerRule, Station, VisibilityRule, VisibilityRules, Window, known_states


def _window(value: object) -> object:
    return Window.parse(value.strip()) if isinstance(value, str) else value


def _peer(entry: object) -> object:
    if not isinstance(entry, str):
        return entry
    peer = PeerRule.parse(entry)
    return replace(peer, ae_title=ae_title(peer.ae_title))


def _once_each(peers: tuple[PeerRule, ...]) -> tuple[PeerRule, ...]:
    # A second rule for the same title would silently replace the first.
    titles = [peer.ae_title for peer in peers]
    if twice := {title for title in titles if titles.count(title) > 1}:
        raise ValueError(f"given more than once: {', '.join(sorted(twice))}")
    return peers


Peers = Annotated[
    tuple[Annotated[PeerRule, BeforeValidator(_peer)], ...], NoDecode, split_commas, AfterValidator(_once_each)
]


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
    shown_states: Annotated[CommaList, AfterValidator(known_states)] = Field(
        SHOWN,
        description="States of the items that modalities are answered, separated by commas: scheduled, in_progress, "
        "completed, discontinued, cancelled. The first two by default, so that an exam that was interrupted can be "
        "taken up again.",
    )
    station: Station = Field(
        "open",
        description="Whose items a modality is answered: open, calling or strict. With open its query decides, and an "
        "item that names no station is for any; calling puts its own AE title in place of the one it asks for; strict "
        "shows only items that name its own title.",
    )
    window: Annotated[Window, BeforeValidator(_window), NoDecode] = Field(
        Window(),
        description="When the items are that modalities are answered: any, today, or around now, -12h..+24h in hours "
        "or -1d..+7d in whole days. Any by default, because machines ask for their day themselves.",
    )
    limit: int = Field(
        0,
        ge=0,
        le=999_999,
        description="Answers that a query gets, up to 999999; it fails with A700 after them, so that nobody takes them "
        "for all. 0, the default, is no limit.",
    )
    peers: Peers = Field(
        (),
        description="What is different for single modalities, separated by commas, each with its calling AE title and "
        "what differs: MAMMO_1=station:strict;states:scheduled+in_progress;window:today;limit:200,MAMMO_2=limit:50.",
    )
    keep_days: int = Field(
        30,
        ge=0,
        le=36500,
        description="Days after its date when an item that is over, or was never begun, leaves the worklist, after a "
        "copy of the database was made. A month answers questions about a clinic; 0: items never leave.",
    )
    night_hour: int = Field(
        3,
        ge=0,
        le=23,
        description="Hour of the site's day, 0 to 23, from which on items may leave. No clinic is held then, and a "
        "machine that is off does it when it is on again.",
    )
    character_sets: Annotated[dict[AeTitle, CharacterSet], NoDecode, BeforeValidator(_character_sets)] = Field(
        {},
        description="AE titles and the character set each is answered in, separated by commas: MAMMO_1=ISO_IR 100. For "
        "machines that do not read what they are answered otherwise: in the set of their query, or in UTF-8 where that "
        "lacks a letter. Letters that a set named here lacks lose their accents or become question marks.",
    )

    @property
    def visibility(self) -> VisibilityRules:
        """The visibility rule of each peer."""
        usual = VisibilityRule(self.station, self.shown_states, self.window, self.limit)
        return VisibilityRules(usual, {peer.ae_title: peer.over(usual) for peer in self.peers})
