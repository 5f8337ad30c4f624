"""From a script to a plan: every image of every act, and whether the acts can follow each other. Pure.

Not for: the fields of one act (`script`), nor for doing any of it (`scripted_machine`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.charset import convert_encodings
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from simulator.exam import structured_reports
from simulator.exam.encoding import SYNTAXES
from simulator.modality.script import (
    Act,
    Begin,
    Behaviour,
    Commit,
    End,
    Expose,
    Query,
    Report,
    Script,
    ScriptError,
    Send,
)

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
    """One image to make; `number` distinguishes repeats."""

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
    """An act with the images it makes."""

    act: Act
    shots: tuple[Shot, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A script that can be followed."""

    machine: Behaviour
    planned: tuple[Planned, ...]

    @property
    def contexts(self) -> tuple[tuple[str, str], ...]:
        """Every SOP class and transfer syntax that will be stored."""
        # Known before the first association, because a machine proposes all its contexts when it opens one.
        shots = [(shot.sop_class_uid, shot.transfer_syntax_uid) for each in self.planned for shot in each.shots]
        kinds = [each.act.kind for each in self.planned if isinstance(each.act, Report)]
        return tuple(
            dict.fromkeys([*shots, *((structured_reports.CLASSES[kind], self.message_syntax) for kind in kinds)])
        )

    @property
    def message_syntax(self) -> str:
        """The transfer syntax of data sets without pixels."""
        return SYNTAXES["implicit" if self.machine.implicit_only else "explicit"]


def plan(script: Script) -> Plan:
    """Unfold a script. Raises ScriptError that names an act whose preconditions the acts before it do not meet."""
    seen, made = _Seen(script.machine.character_set), Counter[tuple[object, ...]]()
    planned = []
    for number, act in enumerate(script.acts, start=1):
        if trouble := seen.trouble(act):
            raise ScriptError(f"Act {number} ({act.do}) cannot be done there: {trouble}.")
        shots = tuple(_shots(act, script.machine, made)) if isinstance(act, Expose) else ()
        planned.append(Planned(act, shots))
    return Plan(script.machine, tuple(planned))


_NEEDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "begin": ("found", "no query before it finds an item; query, or say that it is not scheduled"),
        "expose": ("subject", "there is neither an item nor a step that its images would belong to"),
        "report": ("images", "no images were sent that it could be about"),
        "send": ("held", "no images were held back"),
        "change": ("step", "no step is in progress"),
        "end": ("step", "no step is in progress"),
        "commit": ("unasked", "no images were sent since"),
    }
)
"""The precondition of an act, and the sentence when it is not met."""


class _Seen:
    """The conditions that hold after the acts so far."""

    def __init__(self, character_set: str) -> None:
        self._encodings = convert_encodings(character_set.split("\\"))
        self._character_set = character_set
        self._there: set[str] = set()

    def trouble(self, act: Act) -> str:
        """Why an act cannot follow, empty when it can; then its effects hold."""
        trouble = self._unwritable(act) if isinstance(act, Query) else self._missing(act)
        gone, come = _changes(act)
        self._there = self._there - gone | come
        return trouble

    def _missing(self, act: Act) -> str:
        need, sentence = _NEEDS.get(act.do, ("", ""))
        is_typed_in = isinstance(act, Begin) and not act.scheduled
        return sentence if need and need not in self._there and not is_typed_in else ""

    def _unwritable(self, act: Query) -> str:
        names = [name for name, value in act.keys.items() if not self._holds(value)]
        return f"{', '.join(names)} cannot be written in {self._character_set}" if names else ""

    def _holds(self, value: str) -> bool:
        # Each character in any of the terms: ISO 2022 switches between them (PS3.3 C.12.1.1.2).
        return all(any(_can_write(each, encoding) for encoding in self._encodings) for each in value)


def _changes(act: Act) -> tuple[set[str], set[str]]:
    """The conditions that no longer hold after an act, and those that begin to hold."""
    match act:
        case Query():
            # `expect: 0` is a query that proves an item is not to be found.
            return {"found", "subject"}, {"found", "subject"} if act.expect != 0 else set()
        case Begin():
            # Images of the step before cannot be in a report of this one.
            return {"images"}, {"step", "subject"}
        case Expose(hold=True):
            return set(), {"held"}
        case Expose() | Report() | Send():
            return {"held"} if isinstance(act, Send) else set(), {"images", "unasked"}
        case End() | Commit():
            return {"step"} if isinstance(act, End) else {"unasked"}, set()
    return set(), set()


def _can_write(character: str, encoding: str) -> bool:
    try:
        return bool(character.encode(encoding))
    except UnicodeEncodeError:
        return False


def _shots(act: Expose, machine: Behaviour, made: Counter[tuple[object, ...]]) -> Iterator[Shot]:
    syntax = SYNTAXES["implicit" if machine.implicit_only else act.transfer_syntax or machine.transfer_syntax]
    kinds = ("processing", "presentation") if act.kind == "pair" else (act.kind,)
    for _ in range(act.times):
        for view in act.views:
            for kind in kinds:
                # Of a pair, only the view For Presentation has modifiers: `phantom` makes none For Processing.
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
