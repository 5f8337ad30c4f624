"""A person decides that an image that is held back never leaves for the cloud.

Rules. The decision has a name and a reason, and is for good: an image that turns out right is sent again by the machine
under a new UID. In one transaction the image's event is closed, and the cloud is owed `image.rejected` with the reason
in its place. The image stays on site, where viewers show it, and goes by the rules of retention, to which it counts as
confirmed.

Not for: what is held back, and why (`relay.exams.holding`); the rows of the outbox (`gateway.outbox.entries`).
"""

from datetime import datetime

from gateway.messages import ImageReceived, ImageRejected
from gateway.outbox.changed_exams import mark_changed
from gateway.sqlite import utc_text
from pacs.archive.archive import Archive


def discard(archive: Archive, entry_id: int, *, by: str, because: str, now: datetime) -> None:
    """Never send the image that an entry tells of.

    Raises NotFound when no entry with this id is held back, InvalidValue without a name or a reason.
    """
    with archive.write() as conn:
        message_id, told = archive.outbox.held.discard(conn, entry_id, by=by, because=because, now=now)
        event = _rejected(ImageReceived.model_validate_json(told), by=by.strip(), because=because.strip())
        archive.outbox.put_event(conn, event, now=now, message_id=f"{message_id}/rejected")
        mark_changed(
            conn, study_instance_uid=event.study_instance_uid, accession_number=event.accession_number, at=utc_text(now)
        )


def _rejected(told: ImageReceived, *, by: str, because: str) -> ImageRejected:
    return ImageRejected(
        accession_number=told.study.accession_number,
        study_instance_uid=told.study.study_instance_uid,
        sop_instance_uid=told.image.sop_instance_uid,
        reason=f"Held back on site, and not passed on by decision of {by}: {because}",
    )
