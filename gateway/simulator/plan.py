"""What a script comes to before anything is sent: every single picture, and whether the acts can follow each other.

Pure: a script goes in, a plan comes out, or a ScriptError that names the act which cannot be done where it stands.

Not for: what one act may say (`script`), nor for doing any of it (`machine`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.charset import convert_encodings
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from gateway.simulator.encoding import SYNTAXES
from gateway.simulator.script import Act, Begin, Change, Commit, End, Expose, Manners, Query, Script, ScriptError, Send

CLASSES = MappingProxyType(
    {
        "presentation": str(DigitalMammographyXRayImageStorageForPresentation),
        "processing": str(DigitalMammographyXRayImageStorageForProcessing),
        "tomosynthesis": str(BreastTomosynthesisImageStorage),
        "synthetic": str(SecondaryCaptureImageStorage),
    }
)
"""The SOP class of each kind of picture."""


@dataclass(frozen=True)
class Shot:
    """One picture that is going to be made; `number` tells repeats apart."""

    view: str
    kind: str
    number: int
    transfer_syntax_uid: str
    rows: int
    columns: int
    frames: int = 1
    modifiers: tuple[str, ...] = ()
    implant: bool = False
    partial: bool = False

    @property
    def sop_class_uid(self) -> str:
        return CLASSES[self.kind]


@dataclass(frozen=True)
class Planned:
    """An act with the pictures it makes."""

    act: Act
    shots: tuple[Shot, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A script that can be followed."""

    machine: Manners
    planned: tuple[Planned, ...]

    @property
    def contexts(self) -> tuple[tuple[str, str], ...]:
        """Every SOP class and transfer syntax that will be stored."""
        shots = (shot for each in self.planned for shot in each.shots)
        return tuple(dict.fromkeys((shot.sop_class_uid, shot.transfer_syntax_uid) for shot in shots))


def plan(script: Script) -> Plan:
    """Unfold a script. Raises ScriptError for an act that cannot be done where it stands."""
    seen, made = _Seen(script.machine.character_set), Counter[tuple[object, ...]]()
    planned = []
    for number, act in enumerate(script.acts, start=1):
        if trouble := seen.trouble(act):
            raise ScriptError(f"Act {number} ({act.do}) cannot be done there: {trouble}.")
        shots = tuple(_shots(act, script.machine, made)) if isinstance(act, Expose) else ()
        planned.append(Planned(act, shots))
    return Plan(script.machine, tuple(planned))


class _Seen:
    """What there is to work with, as far as the acts before went."""

    def __init__(self, character_set: str) -> None:
        self._encodings = convert_encodings(character_set.split("\\"))
        self._character_set = character_set
        self._item = self._found = self._step = self._held = self._unasked = False

    def trouble(self, act: Act) -> str:
        """Why an act cannot follow, or nothing; then it counts as done."""
        trouble = self._unwritable(act) if isinstance(act, Query) else self._missing(act)
        match act:
            case Query():
                self._found = self._item = act.expect != 0
            case Begin():
                self._step = self._item = True
            case Expose():
                self._held, self._unasked = self._held or act.hold, self._unasked or not act.hold
            case Send():
                self._held, self._unasked = False, True
            case End():
                self._step = False
            case Commit():
                self._unasked = False
        return trouble

    def _missing(self, act: Act) -> str:
        match act:
            case Begin(scheduled=True) if not self._found:
                return "no query before it finds an item; query, or say that it is not scheduled"
            case Expose() if not self._item:
                return "there is neither an item nor a step that its images would belong to"
            case Change() | End() if not self._step:
                return "no step is in progress"
            case Send() if not self._held:
                return "no images were held back"
            case Commit() if not self._unasked:
                return "no images were sent since"
        return ""

    def _unwritable(self, act: Query) -> str:
        names = [name for name, value in act.keys.items() if not self._holds(value)]
        return f"{', '.join(names)} cannot be written in {self._character_set}" if names else ""

    def _holds(self, value: str) -> bool:
        return all(any(_can_write(each, encoding) for encoding in self._encodings) for each in value)


def _can_write(character: str, encoding: str) -> bool:
    try:
        return bool(character.encode(encoding))
    except UnicodeEncodeError:
        return False


def _shots(act: Expose, machine: Manners, made: Counter[tuple[object, ...]]) -> Iterator[Shot]:
    syntax = SYNTAXES["implicit" if machine.implicit_only else act.transfer_syntax or machine.transfer_syntax]
    kinds = ("processing", "presentation") if act.kind == "pair" else (act.kind,)
    for _ in range(act.times):
        for view in act.views:
            for kind in kinds:
                special = (
                    (tuple(act.modifiers), act.implant, act.partial) if kind == "presentation" else ((), False, False)
                )
                made[view, kind, special] += 1
                yield Shot(
                    view=view,
                    kind=kind,
                    number=made[view, kind, special],
                    transfer_syntax_uid=syntax,
                    rows=act.rows,
                    columns=act.columns,
                    frames=act.frames if kind == "tomosynthesis" else 1,
                    modifiers=special[0],
                    implant=special[1],
                    partial=special[2],
                )
