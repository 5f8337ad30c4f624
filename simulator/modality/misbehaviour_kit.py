"""The kit of `misbehaviour`: images and steps to send, a look at the result from outside, and words for the answers.

Everything it sends is synthetic, in a study of its own unless `belong_to` names a worklist item.

Not for: the misbehaviours themselves (`misbehaviour`).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from gateway.dataset.data_sets import decode
from gateway.dicom.dimse import Command, CommandField, pack_command
from gateway.dicom.requestor import PENDING
from gateway.errors import PeerError
from gateway.hops import Observed
from gateway.remote_ae import Peer
from simulator.exam import phantom, steps
from simulator.exam.encoding import encoded
from simulator.exam.exam import Exam
from simulator.modality.plan import CLASSES
from simulator.modality.raw_association import Dialer, Ended, RawAssociation
from simulator.modality.scripted_machine import STEPS, WORKLIST

SYNTAX = str(ExplicitVRLittleEndian)
ROWS, COLUMNS = 416, 320
"""266 kB, two of the longest PDUs, so that a transfer can break off between two."""

PATIENCE_SECONDS = 10.0
"""Bounds the wait for one answer; a misbehaviour waits for a few of them."""

_PDU_HEADER = 6
_ECHO = str(Verification)
_FIND = str(StudyRootQueryRetrieveInformationModelFind)


class Proof:
    """A machine that calls `worklist` and `pacs`, and looks at what they made of it."""

    def __init__(self, caller: Dialer, *, worklist: Peer, pacs: Peer, now: datetime) -> None:
        self.caller = replace(caller, seconds=min(caller.seconds, PATIENCE_SECONDS))
        self.worklist, self.pacs, self.now = worklist, pacs, now
        self.exam = Exam(
            # 15 of the 16 characters of SH (PS3.5 6.2)
            accession_number=f"PROOF{now:%m%d%H%M%S}",
            study_instance_uid=str(generate_uid()),
            study_description="Synthetic, made to misbehave",
            station_ae_title=caller.ae_title,
            acquired=now,
        )

    def belong_to(self, accession_number: str) -> None:
        """Let the images be of an item of the worklist. Raises Observed when it has no such item."""
        with self.caller.opened(self.worklist, [(WORKLIST, SYNTAX)]) as line:
            context = line.context(WORKLIST)
            identifier = steps.query({"AccessionNumber": accession_number})
            answers = line.find(context, encoded(identifier, SYNTAX))
            found = [decode(data, SYNTAX) for answer, data in answers if answer.status in PENDING]
        if not found:
            raise Observed("The worklist has no such item; see 'gateway worklist list'.")
        self.exam = steps.exam_of(found[0], station=self.caller.ae_title, now=self.now)

    # ---- images ----------------------------------------------------------------------------------------------------

    def image(self, **changes: object) -> Dataset:
        """A small view, another instance each time; `changes` are attributes set to something else."""
        image = phantom.mammogram("RCC", self.exam, rows=ROWS, columns=COLUMNS)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in changes.items():
            setattr(image, keyword, value)
        return image

    def archive_line(self) -> RawAssociation:
        """An association for images; the caller ends it."""
        return self.caller.open(self.pacs, [(CLASSES["presentation"], SYNTAX)])

    def store(self, image: Dataset, data: bytes | None = None, **command: object) -> str:
        """Send an image and give the word of the answer; `data` replaces its bytes, `command` fields of its request."""
        try:
            with self.caller.opened(self.pacs, [(CLASSES["presentation"], SYNTAX)]) as line:
                request = replace(store_request(line, image), **command)  # type: ignore[arg-type]  # names of Command
                context = line.context(CLASSES["presentation"])
                return word(line.ask(context, request, encoded(image, SYNTAX) if data is None else data))
        except Ended as ended:
            return ended.how

    def begin_image(self, line: RawAssociation, image: Dataset) -> bytes:
        """Send the request and the first PDU of the data set; gives the rest."""
        context, request = line.context(CLASSES["presentation"]), store_request(line, image)
        line.write(line.packed(context, pack_command(request), is_command=True))
        data = line.packed(context, encoded(image, SYNTAX), is_command=False)
        first = _PDU_HEADER + int.from_bytes(data[2:_PDU_HEADER], "big")
        line.write(data[:first])
        return data[first:]

    def visible(self, image: Dataset) -> str:
        """How many instances of this UID the archive shows, in words."""
        return f"{len(self.shown(image))} visible"

    def shown(self, image: Dataset) -> list[Dataset]:
        """The archive's matches for an image's UIDs (Study Root, PS3.4 C.6.2)."""
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(identifier, keyword, image[keyword].value)
        identifier.InstanceNumber = identifier.PatientID = None
        with self.caller.opened(self.pacs, [(_FIND, SYNTAX)]) as line:
            found = []
            for answer, data in line.find(line.context(_FIND), encoded(identifier, SYNTAX)):
                if answer.status in PENDING:
                    found.append(decode(data, SYNTAX))
                elif answer.status != 0:
                    raise Observed(f"The archive cannot be searched: C-FIND was answered with {word(answer)}.")
        return found

    def others_served(self) -> str:
        """Whether other associations are served meanwhile: one C-ECHO to each application."""
        try:
            for peer in (self.pacs, self.worklist):
                with self.caller.opened(peer, [(_ECHO, SYNTAX)]) as line:
                    line.ask(line.context(_ECHO), line.request(CommandField.C_ECHO, _ECHO, has_data=False))
        except PeerError:
            return "others not served"
        return "others served"

    # ---- steps -----------------------------------------------------------------------------------------------------

    def created(self) -> Dataset:
        """The attribute list of a step that is on no worklist."""
        item = steps.unscheduled(accession_number=self.exam.accession_number)
        return steps.created([item], step_id="PROOF", station=self.caller.ae_title, now=self.now)

    def finished(self, status: str) -> Dataset:
        """The modification list that ends a step without images."""
        return steps.finished(status, [], now=self.now, operator=self.caller.ae_title)

    def says(self, *said: tuple[CommandField, str, Dataset]) -> list[str]:
        """N-CREATE and N-SET of steps, one after the other; the words for the answers."""
        words = []
        with self.caller.opened(self.worklist, [(STEPS, SYNTAX)]) as line:
            context = line.context(STEPS)
            for field, uid, attributes in said:
                request = line.request(field, STEPS, has_data=True, instance=uid)
                words.append(word(line.ask(context, request, encoded(attributes, SYNTAX))))
        return words


def store_request(line: RawAssociation, image: Dataset) -> Command:
    """C-STORE of an image."""
    return line.request(
        CommandField.C_STORE, CLASSES["presentation"], has_data=True, instance=str(image.SOPInstanceUID)
    )


def word(answer: Command) -> str:
    """A status as the standard prints it."""
    return "no status" if answer.status is None else f"{answer.status:04X}"


def fits(expected: Sequence[str], seen: Sequence[str]) -> bool:
    """Whether the words seen are those expected: `A or B` is either, `Cxxx` any hexadecimal digits."""
    return len(expected) == len(seen) and all(map(_fits, expected, seen))


def _fits(expected: str, seen: str) -> bool:
    return any(
        len(each) == len(seen) and all(a in (b, "x") for a, b in zip(each, seen, strict=True))
        for each in expected.split(" or ")
    )
