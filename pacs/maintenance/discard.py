"""Discards the event of a held image, by decision of a named person with a reason, for good.

The image's event is closed and `image.rejected` is enqueued in its place, in one transaction. The image stays in the
archive, where viewers show it, and counts as confirmed to retention.

Not for: rules of holding (`relay.exams.holding`), rows of the outbox (`gateway.outbox.entries`).
"""

from datetime import datetime

from gateway.messages import ImageReceived, ImageRejected
from gateway.outbox.changed_exams import mark_changed
from gateway.sqlite import utc_text
from pacs.archive.archive import Archive


def discard(archive: Archive, entry_id: int, *, by: str, because: str, now: datetime) -> None:
    """Close the event of a held image and report it as rejected.

    Raises NotFound when no entry with this id is held back, InvalidValue without a name or a reason.
    """
    # It cannot be undone: an image that turns out to be right is sent again by the modality under a new UID.
    with archive.write() as conn:
        message_id, parameters = archive.outbox.held.discard(conn, entry_id, by=by, because=because, now=now)
        event = _rejected(ImageReceived.model_validate_json(parameters), by=by.strip(), because=because.strip())
        archive.outbox.put_event(conn, event, now=now, message_id=f"{message_id}/rejected")
        mark_changed(
            conn, study_instance_uid=event.study_instance_uid, accession_number=event.accession_number, at=utc_text(now)
        )


def _rejected(image: ImageReceived, *, by: str, because: str) -> ImageRejected:
    return ImageRejected(
        accession_number=image.study.accession_number,
        study_instance_uid=image.study.study_instance_uid,
        sop_instance_uid=image.image.sop_instance_uid,
        reason=f"Held back on site, and not passed on by decision of {by}: {because}",
    )
