"""Composing: the fact as recorded, its thumbnail or why there is none, and the cloud's id of the action."""

import pytest

from gateway.errors import InvalidDataSet
from gateway.messages import Image, ImageReceived, Thumbnail
from gateway.outbox import Entry
from relay.delivery.composer import Composer
from relay.delivery.delivery import Event
from tests.gateway.messages.test_messages import example

PICTURE = Thumbnail(data="/9j/", width=197, height=256)


def entry(message_type: str) -> Entry:
    content = example(message_type)
    parameters = content["parameters"]
    assert isinstance(parameters, dict)
    image = parameters.get("image")
    if isinstance(image, dict):
        image["thumbnail"] = None
    return Entry(
        id=1,
        message_id=str(content["message_id"]),
        subject="s",
        sequence=7,
        message_type=message_type,
        priority=2,
        parameters=parameters,
        created_at="2026-11-22T10:21:07.250Z",
        destination="cloud",
        attempts=0,
        due_at="2026-11-22T10:21:07.250Z",
        reason="",
    )


async def picture(_image: Image, _size: int) -> Thumbnail:
    return PICTURE


async def detailed(_image: Image, size: int) -> Thumbnail:
    """A thumbnail that has as many bytes as pixels."""
    return Thumbnail(data="A" * size * size, width=size, height=size)


async def action_of(accession_number: str) -> str | None:
    return {"ACC202611220001": "action-1"}.get(accession_number)


async def test_an_image_leaves_with_its_thumbnail_and_the_id_of_its_action() -> None:
    event = await Composer("Van 1", preview=picture, action_id_of=action_of)(entry("study.image_received"))
    image = event.parameters["image"]
    assert isinstance(image, dict)
    assert image["thumbnail"] == {"data": "/9j/", "format": "jpeg", "width": 197, "height": 256, "note": ""}
    assert image["thumbnail_reason"] is None
    assert image["thumbnail_path"] is None
    assert (event.action_id, event.envelope.site, event.envelope.sequence) == ("action-1", "Van 1", 7)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidDataSet("The object has no pixels."), "The object has no pixels."),
        (MemoryError("EXAMPLE^ANNA"), "Making the thumbnail failed inside the gateway; its log says why."),
    ],
)
async def test_a_thumbnail_that_cannot_be_made_is_a_fact(error: Exception, reason: str) -> None:
    async def failing(_image: Image, _size: int) -> Thumbnail:
        raise error

    event = await Composer("Van 1", preview=failing, action_id_of=action_of)(entry("study.image_received"))
    image = event.parameters["image"]
    assert isinstance(image, dict)
    assert (image["thumbnail"], image["thumbnail_reason"]) == (None, reason)


async def test_other_events_leave_as_they_were_recorded() -> None:
    step = entry("mpps.completed")
    event = await Composer("Van 1", preview=picture, action_id_of=action_of)(step)
    assert event.parameters == step.parameters
    assert event.action_id == "action-1"


async def test_a_fact_that_belongs_to_no_action_has_no_id() -> None:
    rejected = entry("image.rejected")
    rejected.parameters["accession_number"] = ""
    event = await Composer("Van 1", preview=picture, action_id_of=action_of)(rejected)
    assert event.action_id is None


def width(event: Event) -> object:
    image = event.parameters["image"]
    assert isinstance(image, dict)
    return image["thumbnail"]["width"] if image["thumbnail"] else (image["thumbnail_reason"], image["thumbnail_path"])


async def test_a_thumbnail_too_large_for_the_destination_is_made_smaller_and_at_last_referred_to() -> None:
    received = entry("study.image_received")
    found = {}
    for most_bytes in (100_000, 40_000, 20_000, 5_000):
        compose = Composer("Van 1", preview=detailed, action_id_of=action_of, most_bytes=most_bytes)
        event = await compose(received)
        assert len(event.text.encode()) <= most_bytes
        found[most_bytes] = width(event)
    about = ImageReceived.model_validate(received.parameters)
    path = (
        f"/dicom-web/studies/{about.study.study_instance_uid}/series/{about.series.series_instance_uid}"
        f"/instances/{about.image.sop_instance_uid}/thumbnail"
    )
    reason = "With the thumbnail the message would be larger than the destination takes."
    assert found == {100_000: 256, 40_000: 160, 20_000: 96, 5_000: (reason, path)}


async def test_a_thumbnail_for_which_there_is_no_room_on_the_line_is_referred_to_at_once() -> None:
    compose = Composer("Van 1", preview=detailed, action_id_of=action_of, has_room=lambda kind, size: size < 1000)
    reason, path = width(await compose(entry("study.image_received")))  # type: ignore[misc]
    assert reason == "Thumbnails have used up what this site may send of them for now."
    assert str(path).endswith("/thumbnail")


async def test_a_destination_that_takes_no_thumbnails_costs_no_decoding() -> None:
    event = await Composer("Van 1", preview=None, action_id_of=action_of)(entry("study.image_received"))
    assert event.parameters["image"]["thumbnail"] is None  # type: ignore[index]
