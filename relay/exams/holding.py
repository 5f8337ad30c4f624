"""Which images are held back from the cloud until a person lets them go: those that disagree with their worklist item.

The rules:

* `RULES` says which findings hold an image back, which are only told (`exam.quality`), and why.
* What is held is the image's own event, with its thumbnail, and its pixels when the cloud requests them. Everything
  else of its exam goes on; the archive has the image, and viewers and DICOMweb show it, also to the cloud when it asks
  there (`relay.cloud.dicomweb_proxy`).
* An image that no item belongs to, an unscheduled one, cannot disagree. One that agrees with one of several items, by
  number or by study, is that one's.
* What counts is the event that tells of an image as it is kept now (`Archive.telling`). That other content of the same
  UID was let go, or the same image before it left the archive and came again, says nothing.
* An event whose image is not kept any more (other content took its place, or it was deleted before it was told of) is
  compared by what it says itself; it leaves without a thumbnail.
* It is decided when its exam is judged, seconds after it came (`relay.exams.quality`), so that a person can see and
  release what is held also while nothing leaves; and once more when the event is about to leave. An item that came
  after its image is asked as well. What some destination has had already is not held, and what a person has let go is
  not held again. What is held stays so when the item is corrected: the person who lets it go has seen that it fits now.
* A person may also decide that it never leaves (`pacs.discard`): then its pixels do not either.

Not for: comparing (`relay.exams.exam`), parking and releasing (`gateway.outbox.entries`).
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from gateway.errors import NotFound
from gateway.messages import ImageReceived
from gateway.outbox import Entry
from pacs import Archive
from relay.dicom_json import DicomJson, text
from relay.exams.exam import COMPARED, ScheduledItem, disagreements
from worklist import Worklist

Weight = Literal["holds", "warns"]

HoldState = Literal["held", "let out", "discarded", "waits"]
"""Of the event of an image: parked until a person decides; had by somebody or released; never to be sent; none."""

RULES: Mapping[str, tuple[Weight, str]] = MappingProxyType(
    {
        "patient_mismatch": ("holds", "It may be another participant's, and would be read as this one's."),
        "birth_date_mismatch": ("holds", "The same: the identifier alone may have been typed in."),
        "accession_mismatch": (
            "holds",
            "The cloud files by this number, so it would file it under another appointment.",
        ),
        "laterality_mismatch": (
            "holds",
            "Nobody ordered this breast: the side, the label or the participant is wrong.",
        ),
        "study_mismatch": ("warns", "Some machines make their own study for every exam; participant and number agree."),
        "laterality_conflict": ("warns", "The image's own side counts, and is compared with the order."),
        "view_conflict": ("warns", "Both name the same breast, and which of them counted is told."),
        "repeated_view": ("warns", "A repeat is made for a reason, and the cloud has to see both."),
        "view_missing": ("warns", "Nothing is there that could be held."),
        "not_received": ("warns", "The same."),
        "discontinued": ("warns", "What was made until then is as good as what is made in a whole exam."),
        "held_back": ("warns", "It says that something else holds."),
    }
)
"""What each finding of an exam (`relay.exams.exam`, `relay.exams.views`) means for its images, and why."""

HOLDS = frozenset(code for code, (weight, _) in RULES.items() if weight == "holds")
"""The findings that hold an image back."""


def objections(candidates: Iterable[ScheduledItem], data_set: DicomJson, holds: Collection[str]) -> tuple[str, ...]:
    """Why an image is held back, as codes; none when there is no item, or one with which it agrees."""
    found = [tuple(code for code in disagreements(item, data_set) if code in holds) for item in candidates]
    return min(found, key=len, default=())


class HoldRules:
    """Asks both databases. Its methods block: call them in a thread.

    `holds` are the codes that hold an image back; none lets everything go.
    """

    def __init__(self, archive: Archive, worklist: Worklist, *, holds: Collection[str] = HOLDS) -> None:
        self._archive = archive
        self._worklist = worklist
        self._holds = holds

    def reason(self, entry: Entry) -> str:
        """Why the event of an image may not leave now, in a sentence for who may release it; '' when it may."""
        if entry.message_type != "study.image_received" or entry.released_by:
            return ""
        codes = self._objections_to_told(entry)
        if not codes or self._archive.outbox.held.let_out([entry.message_id]):
            return ""
        return _sentence(codes)

    def reason_for(self, sop_instance_uid: str) -> str:
        """Why an image may not leave now, when nobody has had it yet or let it go; '' when it may."""
        told = self._archive.telling([sop_instance_uid]).values()
        held = self._archive.outbox.held
        for reason in (*held.discarded(told).values(), *held.reasons(told).values()):
            return reason
        codes = self._objections_to(sop_instance_uid)
        if not codes or held.let_out(told):
            return ""
        return _sentence(codes)

    def hold(self, data_sets: Iterable[DicomJson], *, now: datetime) -> list[str]:
        """Park the events of those images that may not leave; gives the message ids of what this was news to."""
        outbox, held = self._archive.outbox, []
        codes = {text(data_set, "00080018"): self._objections(data_set) for data_set in data_sets}
        told = self._archive.telling(uid for uid, found in codes.items() if found)
        waiting = [uid for uid, standing in self.standings(told).items() if standing == "waits"]
        for uid in waiting:
            entry = outbox.find(told[uid])
            if entry is not None and outbox.held.hold(entry.id, reason=_sentence(codes[uid]), now=now):
                held.append(told[uid])
        return held

    def held(self, data_sets: Iterable[DicomJson]) -> int:
        """How many of these images the cloud is not told of until a person lets them go."""
        objected = {text(data_set, "00080018"): bool(self._objections(data_set)) for data_set in data_sets}
        standings = self.standings(objected)
        return sum(each == "held" or (each == "waits" and objected[uid]) for uid, each in standings.items())

    def standings(self, sop_instance_uids: Iterable[str]) -> dict[str, HoldState]:
        """How it stands with the event of each of these images, by its UID; one that nothing tells of has none."""
        told, held = self._archive.telling(sop_instance_uids), self._archive.outbox.held
        known: dict[str, HoldState] = {
            **dict.fromkeys(held.let_out(told.values()), "let out"),
            **dict.fromkeys(held.reasons(told.values()), "held"),
            **dict.fromkeys(held.discarded(told.values()), "discarded"),
        }
        return {uid: known.get(message_id, "waits") for uid, message_id in told.items()}

    def _objections_to_told(self, entry: Entry) -> tuple[str, ...]:
        """What speaks against an event: against the image as it is kept if that is what it tells of, else against what
        it says itself, which names nobody's birth date."""
        uid = _sop_instance_uid(entry)
        codes = self._objections_to(uid)
        if self._archive.telling([uid]).get(uid) == entry.message_id:
            return codes
        return self._objections(_as_told(ImageReceived.model_validate(entry.parameters)))

    def _objections_to(self, sop_instance_uid: str) -> tuple[str, ...]:
        try:
            return self._objections(self._archive.data_set(sop_instance_uid))
        except NotFound:
            return ()  # it has left the archive, which somebody has to have ordered: nothing can be compared any more

    def _objections(self, data_set: DicomJson) -> tuple[str, ...]:
        candidates = self._worklist.items_of(
            study_instance_uid=text(data_set, "0020000D"), accession_number=text(data_set, "00080050")
        )
        return objections(candidates, data_set, self._holds)


def _sentence(codes: Iterable[str]) -> str:
    """Say the same of all that are held for the same reason: by their reasons entries are shown together."""
    names = " and ".join(COMPARED[code] for code in codes)
    return (
        f"Held back: {names} of the image and of its worklist item disagree."
        " A person who has compared the two may let it go: gateway outbox release pacs ID --by NAME."
    )


def _as_told(told: ImageReceived) -> DicomJson:
    """What an event says of its image, as far as it is compared."""
    values = {
        "00100020": ("LO", told.participant.nhs_number),
        "00080050": ("SH", told.study.accession_number),
        "0020000D": ("UI", told.study.study_instance_uid),
        "00200062": ("CS", told.image.acquisition.laterality),
    }
    return {tag: {"vr": vr, "Value": [value] if value else []} for tag, (vr, value) in values.items()}


def _sop_instance_uid(entry: Entry) -> str:
    image = entry.parameters.get("image")
    return str(image["sop_instance_uid"]) if isinstance(image, dict) else entry.message_id
