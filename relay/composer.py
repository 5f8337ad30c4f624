"""Makes an event of an outbox entry: the fact as recorded, and what is derived from it when it leaves.

Derived are the thumbnail and the cloud's own id of the action that the fact answers. A thumbnail that cannot be made is
a fact that is told (`thumbnail_reason`), never a reason to hold the metadata back.

Not for: pixels (`pacs.preview`), sending (`relay.delivery`).
"""

from collections.abc import Awaitable, Callable

import structlog

from gateway.errors import Refusal
from gateway.messages import ImageReceived, Thumbnail
from gateway.outbox import Entry
from relay import protocol
from relay.delivery import Event
from relay.protocol import Json

log = structlog.get_logger()


class Composer:
    """Makes the events of one site.

    `preview` makes the thumbnail of an instance and comes to an end in bounded time; `action_id_of` finds the cloud's
    id for an accession number.
    """

    def __init__(
        self,
        site: str,
        *,
        preview: Callable[[str], Awaitable[Thumbnail]],
        action_id_of: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._site = site
        self._preview = preview
        self._action_id_of = action_id_of

    async def __call__(self, entry: Entry) -> Event:
        accession_number = _accession_number(entry.parameters)
        envelope = protocol.envelope(
            entry,
            site=self._site,
            action_id=await self._action_id_of(accession_number) if accession_number else None,
            parameters=await self._enriched(entry),
        )
        return Event(envelope, entry.subject, entry.priority)

    async def _enriched(self, entry: Entry) -> Json:
        if entry.message_type != "study.image_received":
            return entry.parameters
        received = ImageReceived.model_validate(entry.parameters)
        thumbnail, reason = await self._thumbnail(received.image.sop_instance_uid)
        image = received.image.model_copy(update={"thumbnail": thumbnail, "thumbnail_reason": reason})
        return received.model_copy(update={"image": image}).model_dump(mode="json")

    async def _thumbnail(self, sop_instance_uid: str) -> tuple[Thumbnail | None, str | None]:
        try:
            return await self._preview(sop_instance_uid), None
        except Refusal as refusal:
            return None, str(refusal)
        except Exception:  # a decoder that crashes must not keep the metadata from the cloud
            log.exception("preview failed", sop_instance_uid=sop_instance_uid)
            return None, "Making the thumbnail failed inside the gateway; its log says why."


def _accession_number(parameters: Json) -> str:
    study = parameters.get("study")
    found = (study if isinstance(study, dict) else parameters).get("accession_number")
    return found if isinstance(found, str) else ""
