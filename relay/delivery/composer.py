"""Composes an event from an outbox entry: the recorded fact, the thumbnail, and the cloud's id of the action behind it.

A thumbnail never delays its event: it is made smaller until the message fits, and is replaced by the path where it can
be fetched, or by the reason why there is none (`thumbnail_reason`). An image that may not leave raises HeldBack before
anything is derived from it.

Not for: pixels (`pacs.preview`), sending (`relay.delivery.delivery`), what is held back (`relay.exams.holding`).
"""

from collections.abc import Awaitable, Callable

import structlog

from gateway.errors import HeldBack, NotFound, Refusal
from gateway.messages import LOCAL_ACTION, Image, ImageReceived, Thumbnail
from gateway.outbox import Entry
from relay import protocol
from relay.delivery.delivery import Event
from relay.delivery.quota import THUMBNAILS
from relay.protocol import Json
from worklist import Worklist

log = structlog.get_logger()

SIZES = (256, 160, 96)
"""Pixels of a thumbnail's longer side; the next smaller one is tried when a message is too large."""

Preview = Callable[[Image, int], Awaitable[Thumbnail]]
"""Makes the thumbnail of an event's image, at most so many pixels long, in bounded time."""

ActionIdOf = Callable[[str], Awaitable[str | None]]
"""Finds the cloud's id of the action that scheduled an accession number."""

ReasonToHold = Callable[[Entry], Awaitable[str]]
"""Says why an entry may not leave yet; '' when it may."""


def always(_kind: int, _size: int) -> bool:
    """`has_room` of a destination without limits."""
    return True


def cloud_action_id(worklist: Worklist, accession_number: str) -> str | None:
    """The cloud's id of the action that scheduled an exam; None for one never scheduled, or scheduled on site."""
    try:
        item = worklist.item(accession_number)
    except NotFound:
        return None
    return None if item.action_id.startswith(LOCAL_ACTION) else item.action_id or None


class Composer:
    """Makes the events of one site for one destination. Raises HeldBack for one that `reason_to_hold` has a reason for.

    `preview` None is for a destination that has no use for thumbnails. `most_bytes` is the largest message it takes.
    `has_room` says whether so many bytes of a class may leave now (`relay.delivery.quota`).
    """

    def __init__(
        self,
        site: str,
        *,
        preview: Preview | None,
        action_id_of: ActionIdOf,
        most_bytes: int | None = None,
        has_room: Callable[[int, int], bool] = always,
        reason_to_hold: ReasonToHold | None = None,
    ) -> None:
        self._site = site
        self._preview = preview
        self._action_id_of = action_id_of
        self._most_bytes = most_bytes
        self._has_room = has_room
        self._reason_to_hold = reason_to_hold

    async def __call__(self, entry: Entry) -> Event:
        if self._reason_to_hold is not None and (reason := await self._reason_to_hold(entry)):
            raise HeldBack(reason)
        # Looked up here, because the archive, which records the fact, does not know the worklist.
        accession_number = _accession_number(entry.parameters)
        action_id = await self._action_id_of(accession_number) if accession_number else None
        if entry.message_type != "study.image_received" or self._preview is None:
            return self._event(entry, entry.parameters, action_id)
        return await self._with_thumbnail(entry, action_id, self._preview)

    async def _with_thumbnail(self, entry: Entry, action_id: str | None, preview: Preview) -> Event:
        received = ImageReceived.model_validate(entry.parameters)
        for size in SIZES:
            # Inside the event and not a message of its own, which would need an order between the two.
            image = await _pictured(received.image, preview, size)
            event = self._event(entry, _parameters(received, image), action_id)
            if image.thumbnail is not None and not self._has_room(THUMBNAILS, len(image.thumbnail.data)):
                return self._event(entry, _parameters(received, _referred(received, _LINE_IS_FULL)), action_id)
            if image.thumbnail is None or self._most_bytes is None or len(event.text.encode()) <= self._most_bytes:
                return event
        return self._event(entry, _parameters(received, _referred(received, _TOO_LARGE)), action_id)

    def _event(self, entry: Entry, parameters: Json, action_id: str | None) -> Event:
        envelope = protocol.envelope(entry, site=self._site, action_id=action_id, parameters=parameters)
        return Event(envelope, entry.subject, entry.priority)


_TOO_LARGE = "With the thumbnail the message would be larger than the destination takes."
_LINE_IS_FULL = "Thumbnails have used up what this site may send of them for now."


def _parameters(received: ImageReceived, image: Image) -> Json:
    return received.model_copy(update={"image": image}).model_dump(mode="json")


def _referred(received: ImageReceived, reason: str) -> Image:
    """The image with the path of its thumbnail (PS3.18 10.4.1.1.5) in place of the thumbnail."""
    series = f"studies/{received.study.study_instance_uid}/series/{received.series.series_instance_uid}"
    path = f"/dicom-web/{series}/instances/{received.image.sop_instance_uid}/thumbnail"
    return received.image.model_copy(update={"thumbnail_reason": reason, "thumbnail_path": path})


async def _pictured(image: Image, preview: Preview, size: int) -> Image:
    try:
        return image.model_copy(update={"thumbnail": await preview(image, size)})
    except Refusal as refusal:
        return image.model_copy(update={"thumbnail_reason": str(refusal)})
    except Exception:  # a decoder that crashes must not keep the metadata from the cloud
        log.exception("preview failed", sop_instance_uid=image.sop_instance_uid)
        words = "Making the thumbnail failed inside the gateway; its log says why."
        return image.model_copy(update={"thumbnail_reason": words})


def _accession_number(parameters: Json) -> str:
    # Image events have it in `study`, those of steps and exams at the top.
    study = parameters.get("study")
    found = (study if isinstance(study, dict) else parameters).get("accession_number")
    return found if isinstance(found, str) else ""
