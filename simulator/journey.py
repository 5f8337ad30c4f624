"""One whole exam through a gateway, hop by hop: from the cloud's appointment to the cloud's exam quality.

The demonstration shows it. Every hop is observed from outside, over the protocols that modality, viewer and cloud use.

Not for: starting processes (`site`), and not for showing hops (`gateway.hops`).
"""

import hashlib
import json
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import Message

from pydicom import Dataset

from gateway.hops import Hops, Observed
from simulator.cloud.remote_control import Json, RemoteControl
from simulator.modality.modality import Modality, Sent, Step, standard_views
from simulator.site import wait_until

IMAGE, BEGUN, COMPLETED = "study.image_received", "mpps.in_progress", "mpps.completed"
QUALITY = "exam.quality"
SOP_INSTANCE_UID = "00080018"


@dataclass(frozen=True)
class Journey:
    """A machine, the stand-in cloud, and the gateway's HTTP address."""

    modality: Modality
    control: RemoteControl
    url: str
    hops: Hops
    modality_port: int
    """Where the archive finds the machine."""

    def run(self, *, now: datetime) -> Sequence[Sent]:
        """Take one exam all the way. Raises HopFailed at the first hop that was not seen to work."""
        action = create_item(now=now)
        self.appoint(action)
        item = self.ask(action)
        step = self.begin(item, now=now)
        images = list(self.expose(step))
        self.complete(step, images, now=now)
        self.commit(images)
        self.search(images)
        self.retrieve(images)
        self.look(images)
        self.arrive(images, step)
        self.judge(step)
        return images

    def appoint(self, action: Json) -> None:
        """The cloud sends an appointment and is answered that it was created."""
        with self.hops.watch("cloud: relay listens") as note:
            wait_until(lambda: self.control.listeners() > 0, what="The relay at the stand-in cloud")
            note.detail = "The relay is connected to the hybrid connection."
        with self.hops.watch("cloud: appointment sent") as note:
            answer = self.control.send(action)
            if answer.get("status") != "created":
                raise Observed(f"The gateway answered {json.dumps(answer)}.")
            note.detail = f"Answered created, action {answer.get('action_id')}."

    def ask(self, action: Json) -> Dataset:
        """The machine finds the appointment in its worklist."""
        accession_number = accession_of(action)
        with self.hops.watch("modality: worklist query") as note:
            items = self.modality.find(accession_number=accession_number)
            if len(items) != 1:
                raise Observed(f"The worklist answered {len(items)} items for one accession number.")
            note.detail = f"Found accession number {accession_number}."
        return items[0]

    def begin(self, item: Dataset, *, now: datetime) -> Step:
        """The machine begins its step (N-CREATE), and the cloud is notified."""
        with self.hops.watch("modality: step begun") as note:
            step = self.modality.begin(item, now=now)
            note.detail = "N-CREATE was answered with success."
        with self.hops.watch("cloud: hears of the beginning") as note:
            [event] = self._wait_for_events(BEGUN, step.exam.study_uid, count=1)
            note.detail = f"{BEGUN}, sequence {event.get('sequence')}."
        return step

    def expose(self, step: Step) -> Iterator[Sent]:
        """The machine makes and stores the four standard views."""
        for image in standard_views(step):
            with self.hops.watch(f"modality: {image.SeriesDescription} stored") as note:
                [sent] = self.modality.store([image])
                note.detail = f"{sent.size_bytes / 1e6:.1f} MB, C-STORE was answered with success."
            yield sent

    def complete(self, step: Step, images: Sequence[Sent], *, now: datetime) -> None:
        """The machine completes its step and lists its images (N-SET)."""
        with self.hops.watch("modality: step completed") as note:
            self.modality.complete(step, images, now=now)
            note.detail = f"N-SET COMPLETED with {len(images)} images."

    def commit(self, images: Sequence[Sent]) -> None:
        """The machine requests storage commitment twice: reported on the same association, and on the archive's own."""
        with self.hops.watch("modality: storage committed") as note:
            self.modality.commit(images)
            note.detail = f"All {len(images)} images, reported on the association that asked."
        with self.hops.watch("modality: commitment called back") as note:
            self.modality.commit_and_be_called(images, port=self.modality_port)
            note.detail = f"All {len(images)} images, reported on an association of the archive's own."

    def search(self, images: Sequence[Sent]) -> None:
        """A viewer finds the images."""
        study = images[0].study_instance_uid
        with self.hops.watch("viewer: search (QIDO-RS)") as note:
            found = json.loads(self._get(f"/studies/{study}/instances", accept="application/dicom+json"))
            uids = sorted(instance[SOP_INSTANCE_UID]["Value"][0] for instance in found)
            if uids != sorted(image.sop_instance_uid for image in images):
                raise Observed(f"{len(uids)} instances were found, not the {len(images)} that were stored.")
            note.detail = f"All {len(uids)} instances of the study were found."

    def retrieve(self, images: Sequence[Sent]) -> None:
        """A viewer retrieves the images, bit for bit as they were sent."""
        with self.hops.watch("viewer: retrieve (WADO-RS)") as note:
            for image in images:
                if hashlib.sha256(self._data_set(image)).hexdigest() != image.sha256:
                    raise Observed(f"The data set of {image.sop_instance_uid} is not the one that was sent.")
            total = sum(image.size_bytes for image in images)
            note.detail = f"{total / 1e6:.0f} MB, every data set is bit-identical to what was sent."

    def look(self, images: Sequence[Sent]) -> None:
        """A viewer gets a thumbnail of every image."""
        with self.hops.watch("viewer: thumbnails") as note:
            sizes = [len(self._get(f"{_path(image)}/thumbnail", accept="image/jpeg")) for image in images]
            note.detail = f"{len(sizes)} JPEG pictures, {sum(sizes) / len(sizes) / 1000:.1f} kB each."

    def arrive(self, images: Sequence[Sent], step: Step) -> None:
        """The cloud was notified of every image, with metadata and thumbnail, and of the end of the step."""
        with self.hops.watch("cloud: hears of the images") as note:
            events = self._wait_for_events(IMAGE, step.exam.study_uid, count=len(images))
            _expect_pictures(events, images)
            slowest = max(_delay(event) for event in events)
            note.detail = (
                f"{len(events)} events with metadata and thumbnail, the slowest {slowest:.1f} s after its image."
            )
        with self.hops.watch("cloud: hears of the end") as note:
            [event] = self._wait_for_events(COMPLETED, step.exam.study_uid, count=1)
            note.detail = f"{COMPLETED}, sequence {event.get('sequence')}."

    def judge(self, step: Step) -> None:
        """The cloud received the exam quality: complete, each view once, no finding."""
        with self.hops.watch("cloud: exam quality") as note:
            wait_until(
                lambda: self._whole(step) is not None, what=f"{QUALITY} of a complete exam at the stand-in cloud"
            )
            match self._whole(step):
                case {"parameters": {"views": dict(views), "findings": []}} if set(views.values()) == {1}:
                    note.detail = f"complete, each of {', '.join(views)} once."
                case event:
                    raise Observed(f"The exam was judged otherwise: {json.dumps(event)}.")

    def _whole(self, step: Step) -> Json | None:
        """The newest `exam.quality` event of the exam, if its state is complete."""
        # Only the last counts, because while images arrive the exam is rightly judged incomplete.
        judged = [event for event in self.control.events(QUALITY) if step.exam.study_uid in json.dumps(event)]
        match judged[-1:]:
            case [{"parameters": {"state": "complete"}}]:
                return judged[-1]
        return None

    def _wait_for_events(self, message_type: str, study_instance_uid: str, *, count: int) -> list[Json]:
        def of_this_exam() -> list[Json]:
            # A search in the text, because each type of event names the study at another place of its parameters.
            return [event for event in self.control.events(message_type) if study_instance_uid in json.dumps(event)]

        wait_until(lambda: len(of_this_exam()) >= count, what=f"{count} x {message_type} at the stand-in cloud")
        return of_this_exam()

    def _data_set(self, image: Sent) -> bytes:
        # Any transfer syntax, because in another than the stored one the archive would have to re-encode.
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        return data_set_of(self._get(_path(image), accept=accept))

    def _get(self, path: str, *, accept: str) -> bytes:
        request = urllib.request.Request(f"{self.url}/dicom-web{path}", headers={"Accept": accept})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own http address
            body: bytes = answer.read()
            return only_part(body, answer.headers) if answer.headers.get_content_maintype() == "multipart" else body


def create_item(*, now: datetime) -> Json:
    """A `worklist.create_item` action as the cloud sends it, for now, of a synthetic participant."""
    action_id = str(uuid.uuid4())
    return {
        "schema_version": 1,
        "action_id": action_id,
        "action_type": "worklist.create_item",
        "timestamp": now.isoformat(),
        "source_system": "simulator",
        "source_reference": {"appointment_id": action_id[:8], "participant_id": "SYNTHETIC"},
        "parameters": {
            "worklist_item": {
                # 14 of the 16 characters of SH (PS3.5 6.2), another one for each action
                "accession_number": f"SIM{action_id[:12].replace('-', '').upper()}",
                "participant": {
                    "nhs_number": "9990000018",  # 999 is the range that the NHS keeps for tests
                    "name": "PHANTOM^SYNTHETIC",
                    "birth_date": "19700101",
                    "sex": "F",
                },
                "scheduled": {"date": f"{now:%Y%m%d}", "time": f"{now:%H%M%S}"},
                "procedure": {"modality": "MG", "study_description": "Synthetic screening mammography"},
            }
        },
    }


def accession_of(action: Json) -> str:
    """The accession number in an action that `create_item` made."""
    match action:
        case {"parameters": {"worklist_item": {"accession_number": str(number)}}}:
            return number
    raise KeyError("accession_number")


def data_set_of(part10: bytes) -> bytes:
    """The data set of a Part 10 file, without its file meta group. Raises Observed when it is no such file."""
    # A preamble of 128 bytes, DICM, and then (0002,0000): the length of the group behind it (PS3.10 7.1).
    if part10[128:132] != b"DICM" or part10[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Observed("What was retrieved is not a DICOM file (PS3.10 7.1).")
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


def only_part(body: bytes, headers: Message) -> bytes:
    """The content of a multipart answer of one part (RFC 2046 5.1.1). Raises Observed when it is not complete."""
    # Searched as bytes, because the standard library's e-mail parser is slow on images.
    closing = f"\r\n--{headers.get_boundary()}--".encode()
    start, end = body.find(b"\r\n\r\n") + 4, body.rfind(closing)
    if start < 4 or end < start:
        raise Observed("The multipart answer is not complete.")
    return body[start:end]


def _path(image: Sent) -> str:
    return f"/studies/{image.study_instance_uid}/series/{image.series_instance_uid}/instances/{image.sop_instance_uid}"


def _delay(event: Json) -> float:
    """Seconds from the image's receipt to the arrival of its event in the cloud."""
    match event:
        case {"received_at": str(arrived), "parameters": {"image": {"received_at": str(received)}}}:
            return (datetime.fromisoformat(arrived) - datetime.fromisoformat(received)).total_seconds()
    raise Observed(f"The event of {event.get('message_id')} does not say when its image was received.")


def _expect_pictures(events: Sequence[Json], images: Sequence[Sent]) -> None:
    notified = sorted(str(event["message_id"]) for event in events)
    if notified != sorted(image.sop_instance_uid for image in images):
        raise Observed("The cloud heard of other images than the ones that were stored.")
    for event in events:
        match event:
            case {"parameters": {"image": {"thumbnail": {"data": str()}}, "study": {"modality": "MG"}}}:
                continue
        raise Observed(f"The event of {event['message_id']} has no thumbnail.")
