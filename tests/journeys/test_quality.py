"""What an exam looks like, in the cloud while the participant is in the room, and what waits for a person first."""

import json

from simulator.cloud.remote_control import Json
from simulator.exam.steps import sent_of
from simulator.journey import IMAGE, QUALITY
from simulator.modality.modality import data_set_bytes
from simulator.site import Site, wait_until
from tests.journeys.steps import begun, now, personal, stored, views, wait_for_events
from tests.journeys.test_exam import gateway


def last(site: Site) -> Json:
    """The newest judgement that the cloud has."""
    judged = site.control.events(QUALITY)
    parameters = judged[-1]["parameters"] if judged else {}
    assert isinstance(parameters, dict)
    return parameters


def codes(site: Site) -> list[str]:
    findings = last(site).get("findings")
    assert isinstance(findings, list)
    return [finding["code"] for finding in findings]


def parked(site: Site) -> list[dict[str, object]]:
    """What waits for a person, as an operator sees it."""
    found: list[dict[str, object]] = json.loads(gateway(site, "outbox", "list", "--json").stdout)
    return found


def test_the_cloud_hears_that_an_exam_is_whole(site: Site) -> None:
    exam, step = begun(site)
    images = stored(site, views(step))
    exam.complete(step, images, now=now())
    wait_until(lambda: last(site).get("state") == "complete", what="a complete exam in the cloud")
    assert (last(site)["views"], last(site)["findings"]) == ({"RCC": 1, "LCC": 1, "RMLO": 1, "LMLO": 1}, [])
    judged = site.control.events(QUALITY)
    assert [event["parameters"]["revision"] for event in judged] == list(range(1, len(judged) + 1))  # type: ignore[index]
    assert {event["told"] for event in judged} == {1}
    assert len(judged) <= 3


def test_what_the_machine_made_and_did_not_send_is_named(site: Site) -> None:
    exam, step = begun(site)
    images = views(step)
    sent = stored(site, images[:3])
    exam.complete(step, [*sent, sent_of(images[3], data_set_bytes(images[3]))], now=now())
    wait_until(lambda: last(site).get("state") == "incomplete", what="an incomplete exam in the cloud")
    assert codes(site) == ["view_missing", "not_received"]


def test_an_image_of_another_participant_is_held_until_somebody_lets_it_go(site: Site) -> None:
    exam, step = begun(site)
    images = views(step)
    images[0].PatientID = "9990000026"
    sent = stored(site, images)
    exam.complete(step, sent, now=now())
    wait_until(lambda: last(site).get("state") == "complete", what="a complete exam in the cloud")
    assert codes(site) == ["patient_mismatch", "held_back"]
    wait_for_events(site, {"mpps.in_progress": 1, IMAGE: 3, "mpps.completed": 1})
    [held] = parked(site)
    assert (held["message_id"], held["message_type"]) == (sent[0].sop_instance_uid, IMAGE)
    assert str(held["reason"]).startswith("Held back: Patient ID of the image and of its worklist item disagree.")
    refused = gateway(site, "outbox", "release", "pacs", str(held["id"]))
    assert (refused.returncode, "--by NAME" in refused.stderr + refused.stdout) == (1, True)
    assert gateway(site, "outbox", "release", "pacs", str(held["id"]), "--by", "J. Smith").returncode == 0
    wait_for_events(site, {"mpps.in_progress": 1, IMAGE: 4, "mpps.completed": 1})
    wait_until(lambda: codes(site) == ["patient_mismatch"], what="an exam of which nothing is held")
    assert parked(site) == []
    assert [line for line in personal(site) if "9990000026" in line] == []
