"""The script of an exam, a JSON file: the behaviour of a machine, and its acts one after the other.

Each field is checked before anything is sent. `docs/exams/` has examples of everything.

Not for: the order of the acts (`plan`), and doing them (`scripted_machine`).
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword

from gateway.errors import GatewayError
from simulator.exam.encoding import SYNTAXES
from simulator.exam.exam import MODIFIERS, SCREENING_VIEWS, VIEWS
from simulator.exam.steps import REASONS, UNICODE, SpsForm


class ScriptError(GatewayError):
    """A script cannot be followed; the message says which part of it and what is expected there."""


def _known(names: object, what: str) -> AfterValidator:
    listed = list(names)  # type: ignore[call-overload]

    def check(value: str) -> str:
        if value not in listed:
            raise ValueError(f"is not {what}; those are {', '.join(listed)}")
        return value

    return AfterValidator(check)


def _keyword(value: str) -> str:
    if not value or tag_for_keyword(value) is None:
        raise ValueError("is not a DICOM keyword such as PatientID")
    return value


def _character_set(value: str) -> str:
    if unknown := [term for term in value.split("\\") if term not in python_encoding]:
        raise ValueError(f"{', '.join(unknown)} is not a character set such as ISO_IR 100 or ISO 2022 IR 87")
    return value


# Without the backslash, which separates values (PS3.5 6.2).
AeTitle = Annotated[str, Field(max_length=16, pattern=r"^[ -\[\]-~]*$")]
ViewName = Annotated[str, _known(VIEWS, "a view")]
ViewModifier = Annotated[str, _known(MODIFIERS, "a view modifier")]
SyntaxName = Annotated[str, _known(SYNTAXES, "a transfer syntax that can be made here")]
Keyword = Annotated[str, AfterValidator(_keyword)]
CharacterSet = Annotated[str, AfterValidator(_character_set)]
# `tissue` draws on a grid that is four times coarser.
Pixels = Annotated[int, Field(ge=16, le=8192, multiple_of=4)]


class _Written(BaseModel):
    # An unknown key is an error, because a test that silently leaves something out proves nothing.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Behaviour(_Written):
    """The machine's AE title, encodings and associations. The defaults are those of a machine without oddities."""

    ae_title: AeTitle = ""
    """Calling AE title; the site's own choice when empty."""
    station: AeTitle = ""
    """The station of its queries and steps; when empty, queries match any and steps have the AE title."""
    character_set: CharacterSet = UNICODE
    """Of queries and steps; several terms are separated by a backslash (PS3.3 C.12.1.1.2)."""
    names: Literal["", "*"] = ""
    """The value, in its queries, of a person name that is no matching key."""
    transfer_syntax: SyntaxName = "explicit"
    """Of images, unless an exposure says otherwise."""
    implicit_only: bool = False
    """It proposes Implicit VR Little Endian alone, for messages and for images."""
    associations: Literal["each", "one"] = "each"
    """A new one for each message, or one to the worklist and one to the archive for the whole exam."""
    farewell: Literal["release", "abort", "close", "stay"] = "release"
    """How it ends an association; `stay` leaves it open and idle until the exam is over."""
    max_pdu_bytes: Annotated[int, Field(ge=64, le=1 << 20)] = 131_072
    """The longest PDU that it sends and takes."""
    split_writes: bool = False
    """Header and body of a PDU go in two writes, with Nagle's algorithm on."""
    uid_padding: Literal["standard", "space", "nulls"] = "standard"
    """After UIDs: a null to even length, a space to even length, or always two nulls more."""
    group_lengths: bool = False
    """It writes the retired elements (gggg,0000)."""
    undefined_lengths: bool = False
    """It writes sequences and items without their length."""
    sparse: bool = False
    """It leaves out every element that has no value, of Type 2 too."""
    creates_twice: bool = False
    """It repeats each N-CREATE, as if the response had been lost."""
    ends_twice: bool = False
    """It repeats the N-SET with the final status, which has to be refused (PS3.4 F.7.2.2.4)."""


class Query(_Written):
    """C-FIND on the worklist. The first match is the item of the steps that follow."""

    do: Literal["query"]
    keys: dict[Keyword, str] = {}
    sps: SpsForm = "item"
    cancel_after: Annotated[int, Field(ge=1)] | None = None
    """C-CANCEL after so many matches."""
    expect: Annotated[int, Field(ge=0)] | None = None
    """The exact number of matches; at least one when it is not given."""


class Begin(_Written):
    """N-CREATE. Again for the same item it is a further step, which appends to the study."""

    do: Literal["begin"]
    scheduled: bool = True
    """False: the step is on no worklist."""
    items: Annotated[int, Field(ge=1, le=16)] = 1
    """For how many of the matches it is; all of one participant."""
    accession_number: Annotated[str, Field(max_length=16)] = ""
    """Of a step that is not scheduled."""


class Expose(_Written):
    """Make images and send them, or hold them back until `send`."""

    do: Literal["expose"]
    views: list[ViewName] = list(SCREENING_VIEWS)
    kind: Literal["presentation", "processing", "pair", "tomosynthesis", "synthetic"] = "presentation"
    """`pair` is For Processing and For Presentation, `synthetic` a 2D picture sent as Secondary Capture."""
    modifiers: list[ViewModifier] = []
    implant: bool = False
    partial: bool = False
    times: Annotated[int, Field(ge=1, le=20)] = 1
    """More than once is a repeat."""
    transfer_syntax: SyntaxName | None = None
    rows: Pixels = 3328
    columns: Pixels = 2560
    frames: Annotated[int, Field(ge=1, le=200)] = 15
    hold: bool = False

    @model_validator(mode="after")
    def _makes_sense(self) -> "Expose":
        if self.partial and {"spot", "magnification"} & set(self.modifiers):
            raise ValueError("a spot or magnified view is not called partial (PS3.3 C.8.11.7)")
        if self.kind not in ("presentation", "pair") and (self.modifiers or self.implant or self.partial):
            raise ValueError(f"modifiers, implant and partial are not made for {self.kind}")
        return self


class Report(_Written):
    """Make and send a structured report about the images sent so far in this step."""

    do: Literal["report"]
    kind: Literal["dose", "cad"] = "dose"


class Send(_Written):
    """Send the images that were held back."""

    do: Literal["send"]


class StepChange(_Written):
    """N-SET without a status: the images made so far."""

    do: Literal["change"]


class End(_Written):
    """N-SET with the final status."""

    do: Literal["end"]
    status: Literal["COMPLETED", "DISCONTINUED"] = "COMPLETED"
    reason: Annotated[str, _known(REASONS, "a reason")] = "110513"
    """Code of a discontinued step (CID 9300)."""
    names_images: bool = True
    """False: the step ends without a list of its images."""


class Commit(_Written):
    """Storage commitment of every instance that was sent and not yet requested."""

    do: Literal["commit"]
    answer: Literal["same association", "new association"] = "same association"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The port for associations of the archive, which knows it from PACS_PEERS."""

    @model_validator(mode="after")
    def _can_be_called(self) -> "Commit":
        if self.answer == "new association" and self.port is None:
            raise ValueError("to be called back, the machine needs a port")
        return self


class Pause(_Written):
    """Do nothing for a while."""

    do: Literal["pause"]
    seconds: Annotated[float, Field(ge=0, le=600)]


ACTS = ("query", "begin", "expose", "report", "send", "change", "end", "commit", "pause")
Act = Annotated[Query | Begin | Expose | Report | Send | StepChange | End | Commit | Pause, Field(discriminator="do")]


class Script(_Written):
    """A machine and its acts."""

    about: str = ""
    machine: Behaviour = Behaviour()
    acts: Annotated[list[Act], Field(min_length=1)]


def read(path: Path) -> Script:
    """Read a script. Raises ScriptError that names every field that is wrong."""
    try:
        content = path.read_bytes()
        json.loads(content)
    except OSError as error:
        raise ScriptError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ScriptError(f"{path} is not JSON: {error}.") from error
    try:
        return Script.model_validate_json(content)
    except ValidationError as error:
        mistakes = "\n".join(
            f"  {_place(each['loc'])}: {_words(each['type'], each['msg'])}." for each in error.errors()
        )
        raise ScriptError(f"{path} is not a script of an exam:\n{mistakes}") from None


def _place(location: tuple[int | str, ...]) -> str:
    """The place of a field, counted from 1: `act 3 expose, views 2`."""
    # pydantic gives (acts, index, kind of act, field, ...), and [key] where the key of a mapping is wrong.
    words = [str(part + 1) if isinstance(part, int) else part for part in location if part != "[key]"]
    if words[:1] == ["acts"] and len(words) > 1:
        first = f"act {' '.join(words[1:3])}"
        return f"{first}, {' '.join(words[3:])}" if words[3:] else first
    return " ".join(words) or "the file"


_SAID = {
    "extra_forbidden": "is not known here",
    "missing": "is missing",
    "union_tag_invalid": f"do has to be one of {', '.join(ACTS)}",
    "union_tag_not_found": f"do is missing; it is one of {', '.join(ACTS)}",
}


def _words(kind: str, message: str) -> str:
    ours = message.removeprefix("Value error, ")
    return _SAID.get(kind) or (ours if ours != message else message[:1].lower() + message[1:])
