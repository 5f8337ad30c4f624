"""Hold rules: which images are held back from the cloud until a person releases them.

* Held are images that disagree with their worklist item; `RULES` says which findings hold and which are only reported.
* Held means: the image's own event with its thumbnail, and its pixels when the cloud requests them. The rest of the
  exam goes on; the archive, viewers and DICOMweb show the image.
* The rules are applied twice: seconds after an image or its item changed (`relay.exams.quality`), and when an event is
  composed. An event that a destination already has is not held, a released one is not held again, and a corrected item
  releases nothing.
* A person may also decide that an image never leaves (`pacs.discard`); then its pixels do not either.

Not for: comparing (`relay.exams.exam`), parking and releasing (`gateway.outbox.entries`).
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from gateway.dataset.dicom_json import DicomJson, element, tag, text
from gateway.errors import NotFound
from gateway.messages import ImageReceived
from gateway.outbox import Entry
from pacs import Archive
from relay.exams.exam import COMPARED, ScheduledItem, disagreements
from worklist import Worklist

Weight = Literal["holds", "warns"]

HoldState = Literal["held", "let out", "discarded", "waits"]
"""Of an image's event: parked until a person decides; delivered somewhere or released; never to be sent; pending."""

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
        "view_conflict": ("warns", "Both name the same breast, and the finding says which of them counted."),
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
    # The item that fits best is the image's own: one of several that agrees by number or by study clears it. An image
    # without an item (unscheduled) has nothing to disagree with.
    found = [tuple(code for code in disagreements(item, data_set) if code in holds) for item in candidates]
    return min(found, key=len, default=())


class HoldRules:
    """Applies the rules to both databases. Its methods block: call them in a thread.

    `holds` are the codes that hold an image back; with an empty one nothing is held.
    """

    def __init__(self, archive: Archive, worklist: Worklist, *, holds: Collection[str] = HOLDS) -> None:
        self._archive = archive
        self._worklist = worklist
        self._holds = holds

    def reason(self, entry: Entry) -> str:
        """Why the event of an image may not leave now, in a sentence for the operator; '' when it may."""
        if entry.message_type != "study.image_received" or entry.released_by:
            return ""
        codes = self._objections_to_entry(entry)
        # What one destination has is not held from the others: it cannot be called back.
        if not codes or self._archive.outbox.held.let_out([entry.message_id]):
            return ""
        return _sentence(codes)

    def reason_for(self, sop_instance_uid: str) -> str:
        """Why the pixels of an image may not leave now; '' when they may, or its event was delivered or released."""
        message_ids = self._archive.telling([sop_instance_uid]).values()
        held = self._archive.outbox.held
        # The recorded reason comes first: a held image stays held when its item is corrected, until a person looked.
        for reason in (*held.discarded(message_ids).values(), *held.reasons(message_ids).values()):
            return reason
        codes = self._objections_to(sop_instance_uid)
        if not codes or held.let_out(message_ids):
            return ""
        return _sentence(codes)

    def hold(self, data_sets: Iterable[DicomJson], *, now: datetime) -> list[str]:
        """Park the events of the images that may not leave; returns the message ids of those not parked before."""
        outbox, held = self._archive.outbox, []
        codes = {text(data_set, "SOPInstanceUID"): self._objections(data_set) for data_set in data_sets}
        # Only the event of the content kept now: that other content of the same UID was released says nothing.
        message_ids = self._archive.telling(uid for uid, found in codes.items() if found)
        pending = [uid for uid, state in self.hold_states(message_ids).items() if state == "waits"]
        for uid in pending:
            entry = outbox.find(message_ids[uid])
            if entry is not None and outbox.held.hold(entry.id, reason=_sentence(codes[uid]), now=now):
                held.append(message_ids[uid])
        return held

    def held(self, data_sets: Iterable[DicomJson]) -> int:
        """How many of these images are held back from the cloud until a person releases them."""
        objected = {text(data_set, "SOPInstanceUID"): bool(self._objections(data_set)) for data_set in data_sets}
        states = self.hold_states(objected)
        # "waits" with an objection counts as held: composing its event will park it.
        return sum(each == "held" or (each == "waits" and objected[uid]) for uid, each in states.items())

    def hold_states(self, sop_instance_uids: Iterable[str]) -> dict[str, HoldState]:
        """The hold state of each image's event, by SOP Instance UID; an image without an event is left out."""
        message_ids, held = self._archive.telling(sop_instance_uids), self._archive.outbox.held
        known: dict[str, HoldState] = {
            **dict.fromkeys(held.let_out(message_ids.values()), "let out"),
            **dict.fromkeys(held.reasons(message_ids.values()), "held"),
            **dict.fromkeys(held.discarded(message_ids.values()), "discarded"),
        }
        return {uid: known.get(message_id, "waits") for uid, message_id in message_ids.items()}

    def _objections_to_entry(self, entry: Entry) -> tuple[str, ...]:
        uid = _sop_instance_uid(entry)
        codes = self._objections_to(uid)
        if self._archive.telling([uid]).get(uid) == entry.message_id:
            return codes
        # Other content took the image's place, or it was deleted: compared is the event itself, without a birth date.
        return self._objections(_data_set_of(ImageReceived.model_validate(entry.parameters)))

    def _objections_to(self, sop_instance_uid: str) -> tuple[str, ...]:
        try:
            return self._objections(self._archive.data_set(sop_instance_uid))
        except NotFound:
            return ()  # deleted by retention or by order: nothing is left to compare

    def _objections(self, data_set: DicomJson) -> tuple[str, ...]:
        candidates = self._worklist.items_of(
            study_instance_uid=text(data_set, "StudyInstanceUID"), accession_number=text(data_set, "AccessionNumber")
        )
        return objections(candidates, data_set, self._holds)


def _sentence(codes: Iterable[str]) -> str:
    # No UID and no value in the text: the queue page groups parked entries by equal reasons.
    names = " and ".join(COMPARED[code] for code in codes)
    return (
        f"Held back: {names} of the image and of its worklist item disagree."
        " A person who has compared the two may let it go: gateway outbox release pacs ID --by NAME."
    )


def _data_set_of(event: ImageReceived) -> DicomJson:
    """The attributes in an event that are compared."""
    values = {
        "PatientID": event.participant.nhs_number,
        "AccessionNumber": event.study.accession_number,
        "StudyInstanceUID": event.study.study_instance_uid,
        "ImageLaterality": event.image.acquisition.laterality,
    }
    return {tag(keyword): element(keyword, value) for keyword, value in values.items()}


def _sop_instance_uid(entry: Entry) -> str:
    image = entry.parameters.get("image")
    return str(image["sop_instance_uid"]) if isinstance(image, dict) else entry.message_id
