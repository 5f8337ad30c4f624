"""Each process dies by SIGKILL in the middle of an exam and is started again: nothing that was acknowledged is lost."""

import threading

import pytest
from pydicom import Dataset

from gateway.hops import HopFailed
from simulator.exam.phantom import mammogram
from simulator.modality.modality import ModalityError, Sent
from simulator.site import Site, wait_until
from tests.journeys.steps import begun, now, qido, stored, told_of, views, wait_for_events

WHOLE_EXAM = {"mpps.in_progress": 1, "study.image_received": 4, "mpps.completed": 1}


def test_the_worklist_dies_between_beginning_and_end(site: Site) -> None:
    exam, step = begun(site)
    site.kill("worklist")
    images = stored(site, views(step))
    with pytest.raises(HopFailed, match="nobody answers there"):
        exam.complete(step, images, now=now())
    site.start("worklist")
    exam.complete(step, images, now=now())
    assert len(wait_for_events(site, WHOLE_EXAM)) == 6


def test_the_worklist_dies_right_after_it_acknowledged_the_end(site: Site) -> None:
    exam, step = begun(site)
    images = stored(site, views(step))
    exam.complete(step, images, now=now())
    site.kill("worklist")
    site.start("worklist")
    with pytest.raises(HopFailed, match="0110"):  # the final state was kept: PS3.4 F.7.2.2.4
        exam.complete(step, images, now=now())
    wait_for_events(site, WHOLE_EXAM)


def test_the_archive_dies_between_two_images(site: Site) -> None:
    exam, step = begun(site)
    first, second, third, fourth = views(step)
    images = stored(site, [first, second])
    site.kill("pacs")
    with pytest.raises(ModalityError, match="nobody answers there"):
        stored(site, [third])
    site.start("pacs")
    images += stored(site, [third, fourth])
    exam.complete(step, images, now=now())
    exam.search(images)
    exam.retrieve(images)
    wait_for_events(site, WHOLE_EXAM)


def test_the_archive_dies_while_images_are_coming_in(site: Site) -> None:
    exam, step = begun(site)
    images = [mammogram("RCC", step.exam, instance_number=number) for number in range(1, 9)]
    acknowledged = stored_until_killed(site, images, after=3)
    site.start("pacs")
    exam.search(acknowledged)
    exam.retrieve(acknowledged)
    again = stored(site, images)  # a machine sends again whatever it has no commitment for
    exam.search(again)
    exam.retrieve(again)
    wait_for_events(site, {"mpps.in_progress": 1, "study.image_received": 8})


def test_the_relay_dies_while_it_owes_the_cloud(site: Site) -> None:
    exam, step = begun(site)
    images = stored(site, views(step)[:2])
    site.kill("relay")
    images += stored(site, views(step)[2:])
    exam.complete(step, images, now=now())
    site.start("relay")
    exam.search(images)
    exam.retrieve(images)
    wait_for_events(site, WHOLE_EXAM)
    assert told_of(site) == {image.sop_instance_uid for image in images}


def test_the_relay_is_killed_again_and_again_while_it_delivers(site: Site) -> None:
    exam, step = begun(site)
    images = stored(site, [mammogram("RCC", step.exam, instance_number=n, rows=832, columns=640) for n in range(1, 13)])
    for heard in (1, 4, 8):
        wait_until(lambda heard=heard: len(told_of(site)) >= heard, what=f"{heard} images at the cloud")  # type: ignore[misc]
        site.kill("relay")
        site.start("relay")
    wait_for_events(site, {"mpps.in_progress": 1, "study.image_received": 12})
    exam.retrieve(images)


def test_all_processes_die_at_once(site: Site) -> None:
    exam, step = begun(site)
    images = stored(site, views(step))
    exam.complete(step, images, now=now())
    for name in ("worklist", "pacs", "relay"):
        site.kill(name)
    site.start("worklist", "pacs")
    site.start("relay")
    exam.search(images)
    exam.retrieve(images)
    wait_for_events(site, WHOLE_EXAM)
    assert len(qido(site, f"/studies/{images[0].study_instance_uid}/series")) == 4


def test_the_cloud_hears_in_order_what_happened_while_it_was_away(site: Site) -> None:
    exam, step = begun(site)
    wait_for_events(site, {"mpps.in_progress": 1})
    site.control.fault("unavailable", connection="events", value=[503, "away"])
    images = stored(site, views(step))
    exam.complete(step, images, now=now())
    site.control.fault("unavailable", connection="events")
    events = wait_for_events(site, WHOLE_EXAM)
    of_images = [event["sequence"] for event in events if event["message_type"] == "study.image_received"]
    assert of_images == sorted(of_images, key=str)


def stored_until_killed(site: Site, images: list[Dataset], *, after: int) -> list[Sent]:
    """Send images over one association and kill the archive while the one after `after` is on its way."""
    acknowledged: list[Sent] = []
    enough = threading.Event()

    def send() -> None:
        with pytest.raises(ModalityError):
            for sent in site.modality().store(images):
                acknowledged.append(sent)
                if len(acknowledged) == after:
                    enough.set()

    sender = threading.Thread(target=send)
    sender.start()
    assert enough.wait(60)
    site.kill("pacs")
    sender.join(60)
    assert after <= len(acknowledged) < len(images)
    return acknowledged
