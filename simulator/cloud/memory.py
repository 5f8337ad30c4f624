"""The pretend cloud's memory: events by message id, images by action. Not for: HTTP (`http`)."""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

MOST_BYTES = 100 * 1024 * 1024
"""Larger images are refused by the programme's image API."""

Mishap = Literal["busy", "invalid", "lost"]
"""What happens to an event: not taken for now, refused for good, or taken while its confirmation gets lost."""


@dataclass(frozen=True)
class ReceivedEvent:
    envelope: dict[str, object]
    received_at: str
    via: str


class EventLog:
    """Remembers each event once, however often it arrives. `mishaps` happen to the next events, one each."""

    def __init__(self) -> None:
        self.received: dict[str, ReceivedEvent] = {}
        self.arrivals: Counter[str] = Counter()
        self.mishaps: list[Mishap] = []

    def take(self, text: str, *, via: str, now: datetime) -> dict[str, object]:
        """Remember the event and give the answer; an empty answer stands for one that got lost."""
        mishap = self.mishaps.pop(0) if self.mishaps else None
        envelope = _envelope(text)
        if envelope is None or mishap == "invalid":
            return _error("invalid", "The event is not an envelope with a message_id and a message_type.")
        if mishap == "busy":
            return _error("busy", "The programme cannot take events now.")
        message_id = str(envelope["message_id"])
        self.arrivals[message_id] += 1
        # The first of several stands: delivery is at least once, and a repeat has the same content.
        self.received.setdefault(message_id, ReceivedEvent(envelope, now.isoformat(timespec="milliseconds"), via))
        return {} if mishap == "lost" else {"status": "processed", "message_id": message_id}

    def listed(self, message_type: str | None = None) -> list[dict[str, object]]:
        """The events in order of arrival, each with the number of times it arrived (`told`)."""
        return [
            {"received_at": event.received_at, "via": event.via, "told": self.arrivals[message_id], **event.envelope}
            for message_id, event in self.received.items()
            if message_type in (None, event.envelope["message_type"])
        ]


def _envelope(text: str) -> dict[str, object] | None:
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    is_envelope = isinstance(fields, dict) and all(
        isinstance(fields.get(k), str) for k in ("message_id", "message_type")
    )
    return fields if is_envelope else None


def _error(code: str, message: str) -> dict[str, object]:
    return {"status": "error", "code": code, "message": message}


class ImageRefused(Exception):
    """The image is not taken; the message says why."""


@dataclass(frozen=True)
class ReceivedImage:
    action_id: str
    instance_id: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    size_bytes: int
    sha256: str
    received_at: str


class ImageLog:
    """Takes images and keeps their UIDs and digest, not the pixels; `folder` is scratch space."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.received: dict[tuple[str, str], ReceivedImage] = {}
        self.failures: dict[str, str] = {}

    async def take(self, action_id: str, chunks: AsyncIterator[bytes], *, now: datetime) -> ReceivedImage:
        """Read one Part 10 file; the same again gives the same instance id. Raises ImageRefused."""
        path = self._folder / f"{uuid.uuid4().hex}.dcm"
        try:
            size, digest = await _write(path, chunks)
            study, series, instance = _uids(path)
        finally:
            path.unlink(missing_ok=True)
        image = ReceivedImage(
            action_id=action_id,
            # Name-based, so that a repeated upload is answered as the first one was.
            instance_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{action_id}/{instance}")),
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uid=instance,
            size_bytes=size,
            sha256=digest,
            received_at=now.isoformat(timespec="milliseconds"),
        )
        return self.received.setdefault((action_id, instance), image)


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with path.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > MOST_BYTES:
                raise ImageRefused("The file is larger than 100 MiB.")
            digest.update(chunk)
            file.write(chunk)
    return size, digest.hexdigest()


def _uids(path: Path) -> tuple[str, str, str]:
    try:
        ds = dcmread(path, stop_before_pixels=True)
        return str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)
    except (InvalidDicomError, AttributeError, EOFError, ValueError) as error:
        raise ImageRefused("The file is not DICOM or lacks its study, series or instance UID.") from error
