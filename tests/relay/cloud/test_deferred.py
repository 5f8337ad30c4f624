"""What the cloud asks for is remembered before it is answered, carried out later, and told once."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import Conflict, NotAllowed
from gateway.outbox import Entry
from pacs import Archive
from pacs.maintenance.quarantine import carry_out
from pacs.maintenance.retention import RetentionPolicy, candidates
from relay.cloud import commands
from relay.cloud.commands import Context
from relay.cloud.deferred import ActionRunner, DeferredActions, request_event
from relay.cloud.full_images import FullImages, UploadTargets
from relay.cloud.site_tasks import SiteTasks
from relay.cloud.throttle import Throttle
from relay.delivery.delivery import Delivery
from relay.delivery.https_api import Api, fixed_token
from relay.exams.holding import HoldRules
from relay.protocol import Json
from simulator.azure.blob_storage import Blobs
from simulator.cloud.programme import API_TOKEN, Cloud
from tests.relay.cloud.test_commands import REPORT
from tests.relay.served import NOW, STUDY, item, mammogram, receive
from tests.tools.archive_files import files_of
from tests.tools.waiting import until
from worklist import Worklist

UID = f"{STUDY}.1.1"
JPEG_2000, JPEG_LS = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"


class Site:
    """An archive with two images, and all that answers and carries out requests."""

    def __init__(self, folder: Path, api: Api | None = None) -> None:
        self.worklist = Worklist.open(folder / "worklist.db")
        self.archive = Archive.open(folder / "pacs.db", folder / "instances")
        for number, view in enumerate(("RCC", "LCC"), start=1):
            receive(self.archive, mammogram(view, number), folder)
        requests, upload_targets = DeferredActions(self.archive.outbox), UploadTargets(("127.0.0.1",), api)
        throttle = Throttle(0, received_last=lambda: NOW - timedelta(days=1))
        self.scratch = folder / "uploads"
        self.reason_to_hold = HoldRules(self.archive, self.worklist).reason_for
        self.images = FullImages(
            self.archive, requests, upload_targets, throttle=throttle, scratch=self.scratch, reason_to_hold=self._reason
        )
        self.images.sweep()
        site_tasks = SiteTasks(requests, upload_targets, throttle=throttle, folder=folder / "diagnostics")
        self.context = Context(
            self.worklist, requests, self.images, site_tasks, health=lambda: REPORT, clock=lambda: datetime.now(UTC)
        )
        self.outbox = self.archive.outbox

    async def ask(self, **parameters: str) -> Json:
        message = {"action_type": "image.request", "action_id": "R-1", "parameters": parameters}
        answer: Json = json.loads(await commands.answer(json.dumps(message), self.context))
        return answer

    def asked(self) -> Entry:
        """The request as it is remembered."""
        entry = self.outbox.find("request/R-1")
        assert entry is not None
        return entry

    def waiting(self) -> list[Entry]:
        """Requests that are not carried out yet."""
        return [entry for entry in self.outbox.entries("open") if entry.destination == "full images"]

    def told(self) -> list[tuple[str, dict[str, object]]]:
        """What the cloud is owed of requests, oldest first."""
        entries = reversed(self.archive.outbox.entries("open"))
        return [(e.message_type, e.parameters) for e in entries if e.subject == "answers/R-1"]

    @asynccontextmanager
    async def fulfilling(self) -> AsyncIterator[None]:
        delivery = Delivery(
            [self.outbox],
            ActionRunner({"image.request": self.images}),
            compose=request_event("van-7"),
            clock=lambda: datetime.now(UTC),
            name="full images",
            poll_seconds=0.01,
        )
        running = asyncio.create_task(delivery.run())
        yield
        delivery.stop()
        await running

    async def fulfil(self) -> None:
        async with self.fulfilling():
            await until(lambda: not self.waiting())

    def _reason(self, uid: str) -> str:
        return self.reason_to_hold(uid)

    def replace(self, uid: str) -> None:
        """Other content comes under the UID, and an operator has it replace the stored one."""
        ds = mammogram("RCC", 1, PatientID="9990000026")
        with suppress(Conflict):
            receive(self.archive, ds, self.scratch.parent)
        [aside] = self.archive.quarantine.objects()
        self.archive.quarantine.decide(aside.id, "replace", by="J. Smith")
        carry_out(self.archive, files_of(self.archive), now=NOW)
        assert ds.SOPInstanceUID == uid

    def close(self) -> None:
        self.worklist.close()
        self.archive.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.close()


@asynccontextmanager
async def storage(tmp_path: Path) -> AsyncIterator[Blobs]:
    (tmp_path / "blobs").mkdir()
    async with Blobs(tmp_path / "blobs").serving() as blobs:
        yield blobs


async def test_a_requested_image_arrives_bit_by_bit_and_the_cloud_is_told(site: Site, tmp_path: Path) -> None:
    stored = site.archive.instance(UID)
    async with storage(tmp_path) as blobs:
        answer = await site.ask(sop_instance_uid=UID, target_url=blobs.signed("a.dcm"))
        await site.fulfil()
        assert answer == {"status": "processed", "action_id": "R-1"}
        assert blobs.blobs["a.dcm"].sha256 == hashlib.sha256(stored.path.read_bytes()).hexdigest() == stored.sha256
    completed = {
        "request_id": "R-1",
        "sop_instance_uid": UID,
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "transfer_syntax_uid": stored.transfer_syntax_uid,
    }
    assert site.told() == [("image.upload_completed", completed)]


async def test_an_image_that_is_held_back_is_not_given_before_a_person_let_it_go(site: Site, tmp_path: Path) -> None:
    site.worklist.schedule(item(PatientID="9990000026"), action_id="A-1", content_hash="1", now=NOW)
    async with storage(tmp_path) as blobs:
        await site.ask(sop_instance_uid=UID, target_url=blobs.signed("a.dcm"))
        await site.fulfil()
        assert blobs.blobs == {}
    [(kind, parameters)] = site.told()
    assert (kind, parameters["code"]) == ("image.unavailable", "held_back")
    assert str(parameters["reason"]).startswith("Held back: Patient ID of the image")


@pytest.mark.parametrize("syntax", ["", JPEG_LS])
async def test_content_that_is_replaced_after_it_was_looked_at_does_not_leave_in_its_place(
    site: Site, tmp_path: Path, syntax: str
) -> None:
    """Another image's pixels under the same UID are looked at by themselves."""
    looked_at: list[str] = []

    def reason(uid: str) -> str:
        looked_at.append(site.archive.instance(uid).sha256)
        if len(looked_at) == 1:
            site.replace(UID)
            return ""
        return "Held back."

    site.reason_to_hold = reason
    async with storage(tmp_path) as blobs:
        await site.ask(sop_instance_uid=UID, target_url=blobs.signed("a.dcm"), transfer_syntax=syntax)
        await site.fulfil()
        assert blobs.blobs == {}
    [(_, parameters)] = site.told()
    assert (parameters["code"], len(set(looked_at))) == ("held_back", 2)


async def test_content_that_is_replaced_during_its_upload_arrives_whole(site: Site, tmp_path: Path) -> None:
    stored = site.archive.instance(UID)
    content = site.archive.content(UID, stored.sha256)
    site.replace(UID)
    with content:
        assert hashlib.file_digest(content, "sha256").hexdigest() == stored.sha256
    with pytest.raises(Conflict, match="another took its place"):
        site.archive.content(UID, stored.sha256)


async def test_a_whole_study_goes_object_by_object_beneath_the_url(site: Site, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        await site.ask(study_instance_uid=STUDY, target_url=blobs.signed("exam"))
        await site.fulfil()
        assert sorted(name for name, blob in blobs.blobs.items() if blob.sha256) == [
            f"exam/{STUDY}.1.1.dcm",
            f"exam/{STUDY}.1.2.dcm",
        ]
    assert [(kind, facts["sop_instance_uid"]) for kind, facts in site.told()] == [
        ("image.upload_completed", f"{STUDY}.1.1"),
        ("image.upload_completed", f"{STUDY}.1.2"),
    ]


async def test_the_same_request_again_is_answered_and_done_once_and_another_is_a_conflict(site: Site) -> None:
    wanted = {"sop_instance_uid": UID, "target_url": "http://127.0.0.1:1/a"}
    first = await site.ask(**wanted)
    assert [await site.ask(**wanted), first] == [{"status": "processed", "action_id": "R-1"}] * 2
    assert (await site.ask(sop_instance_uid=f"{STUDY}.1.2", target_url="http://127.0.0.1:1/a"))["code"] == "conflict"
    assert len(site.waiting()) == 1


async def test_an_action_id_has_one_content_whoever_remembers_it(site: Site) -> None:
    from tests.relay.test_protocol import ACTION_ID, create

    await commands.answer(json.dumps(create()), site.context)
    request = {"action_type": "gateway.selftest", "action_id": ACTION_ID}
    assert json.loads(await commands.answer(json.dumps(request), site.context))["code"] == "conflict"
    await commands.answer(json.dumps({**request, "action_id": "S-1"}), site.context)
    item = {**create(accession_number="A-2"), "action_id": "S-1"}
    assert json.loads(await commands.answer(json.dumps(item), site.context))["code"] == "conflict"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"sop_instance_uid": "1.2.3"}, "unsupported"),  # no API, no URL
        ({"sop_instance_uid": "1.2.3", "target_url": "http://127.0.0.1:1/a"}, "not_found"),
        ({"sop_instance_uid": UID, "target_url": "https://elsewhere.example/a"}, "not_allowed"),
        ({"sop_instance_uid": UID, "target_url": "ftp://127.0.0.1/a"}, "invalid"),
        ({"sop_instance_uid": UID, "target_url": "http://[/a"}, "invalid"),
        ({"sop_instance_uid": UID, "study_instance_uid": STUDY}, "invalid"),
        ({"sop_instance_uid": "../etc"}, "invalid"),
        ({"sop_instance_uid": UID, "target_url": "http://127.0.0.1:1/a", "transfer_syntax": "1.2"}, "unsupported"),
        ({}, "invalid"),
    ],
)
async def test_what_cannot_be_fulfilled_is_refused_at_once(site: Site, wanted: dict[str, str], code: str) -> None:
    answer = await site.ask(**wanted)
    assert (answer["status"], answer["code"], answer["action_id"]) == ("error", code, "R-1")
    assert site.waiting() == []


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("own.blob.core.windows.net", True),
        ("programme.example", True),
        ("blob.core.windows.net.elsewhere.example", False),
        ("elsewhere-blob.core.windows.net", False),
        ("blob.core.windows.net", False),
        ("sub.programme.example", False),
    ],
)
def test_images_go_to_hosts_that_the_site_names(host: str, allowed: bool) -> None:
    upload_targets = UploadTargets((".blob.core.windows.net", "programme.example"))
    try:
        upload_targets.check_url(f"https://{host}/a?sig=x")
    except NotAllowed:
        assert not allowed
    else:
        assert allowed


async def test_an_expired_url_is_told_as_unavailable_and_nothing_waits_for_a_person(site: Site, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        blobs.refuse_after = 0
        await site.ask(sop_instance_uid=UID, target_url=blobs.signed("a.dcm"))
        await site.fulfil()
    [(kind, facts)] = site.told()
    assert (kind, facts["code"], "sig=" in json.dumps(facts)) == ("image.unavailable", "url_refused", False)
    assert site.outbox.counts()["parked"] == 0


@pytest.mark.parametrize("syntax", [JPEG_2000, JPEG_LS])
async def test_an_image_is_compressed_on_the_way_when_asked(site: Site, tmp_path: Path, syntax: str) -> None:
    before = site.archive.instance(UID).path.read_bytes()
    async with storage(tmp_path) as blobs:
        await site.ask(sop_instance_uid=UID, target_url=blobs.signed("a.dcm"), transfer_syntax=syntax)
        await site.fulfil()
        [(kind, facts)] = site.told()
        assert (kind, facts["transfer_syntax_uid"]) == ("image.upload_completed", syntax)
        assert (blobs.blobs["a.dcm"].sha256, blobs.blobs["a.dcm"].size) == (facts["sha256"], facts["size_bytes"])
    assert site.archive.instance(UID).path.read_bytes() == before
    assert list(site.scratch.iterdir()) == []


async def test_an_image_that_cannot_be_compressed_faithfully_is_told_with_the_reason(
    site: Site, tmp_path: Path
) -> None:
    path = site.archive.instance(UID).path
    path.chmod(0o640)
    path.write_bytes(path.read_bytes()[:-1000])
    async with storage(tmp_path) as blobs:
        await site.ask(sop_instance_uid=UID, target_url=blobs.signed("a.dcm"), transfer_syntax=JPEG_2000)
        await site.fulfil()
    [(kind, facts)] = site.told()
    assert (kind, facts["code"], facts["reason"]) == (
        "image.unavailable",
        "not_convertible",
        "The pixel data is cut off.",
    )


async def test_a_killed_upload_is_taken_up_again_and_told_once(site: Site, tmp_path: Path) -> None:
    async with storage(tmp_path) as blobs:
        await site.ask(study_instance_uid=STUDY, target_url=blobs.signed("exam"))
        [entry] = site.outbox.due(datetime.now(UTC), limit=1, destination="full images")
        event = await request_event("van-7")(entry)
        running = asyncio.create_task(site.images(event))
        await until(lambda: len(site.told()) >= 1)
        running.cancel()  # between two objects, or within the second
        await asyncio.gather(running, return_exceptions=True)
        await site.fulfil()
    assert [facts["sop_instance_uid"] for _, facts in site.told()] == [f"{STUDY}.1.1", f"{STUDY}.1.2"]


async def test_a_storage_that_is_away_is_tried_again_later(site: Site, tmp_path: Path) -> None:
    await site.ask(sop_instance_uid=UID, target_url="http://127.0.0.1:1/images/a?sig=x")
    async with site.fulfilling():
        await until(lambda: site.asked().attempts == 1)
    assert (site.told(), len(site.waiting())) == ([], 1)


async def test_a_study_that_is_wanted_stays_until_it_was_given(site: Site) -> None:
    policy, later = RetentionPolicy(days=1), datetime.now(UTC) + timedelta(days=400)
    for entry in site.archive.outbox.entries("open"):
        site.archive.outbox.delivered(entry, now=NOW)
    assert [outcome.kept_because for outcome in candidates(site.archive, policy, now=later)] == [()]
    await site.ask(sop_instance_uid=UID, target_url="http://127.0.0.1:1/a")
    assert [outcome.kept_because for outcome in candidates(site.archive, policy, now=later)] == [
        ("the cloud is still owed events of it",)
    ]


async def test_requests_are_not_counted_among_the_events_that_are_owed(site: Site) -> None:
    before = site.archive.outbox.counts()
    await site.ask(sop_instance_uid=UID, target_url="http://127.0.0.1:1/a")
    assert site.archive.outbox.counts() == before
    assert all(entry.message_type != "image.request" for entry in site.archive.outbox.due(datetime.now(UTC), limit=99))


async def test_without_a_url_the_clouds_api_gets_the_image_under_the_request(tmp_path: Path) -> None:
    async with Cloud() as cloud:
        cloud.actions["R-1"] = {}
        api = Api(f"{cloud.addresses.control}/api/v1", fixed_token(API_TOKEN), seconds=10)
        site = Site(tmp_path, api)
        try:
            await site.ask(sop_instance_uid=UID)
            await site.fulfil()
            [image] = cloud.images.received.values()
            assert (image.action_id, image.sha256) == ("R-1", site.archive.instance(UID).sha256)
            assert [kind for kind, _ in site.told()] == ["image.upload_completed"]
        finally:
            await api.close()
            site.close()
