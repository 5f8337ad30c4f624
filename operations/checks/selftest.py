"""`gateway selftest`: takes a synthetic participant through the whole site and to the cloud, and cleans up.

Item, step and images are removed afterwards, also after a failure. The events in the cloud and the entries of the
outbox remain; they have an accession number that begins with SELFTEST, and the name SELFTEST^GATEWAY.

Not for: single hops (`gateway check`), storage commitment (`gateway modality`).
"""

import hashlib
import json
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

from pydicom import Dataset

from gateway.errors import Conflict
from gateway.hops import HopFailed, Hops, Nothing, Observed
from gateway.messages import LOCAL_ACTION, Participant, Procedure, Scheduled, WorklistItem
from gateway.outbox import Outbox
from operations.site_settings import SiteSettings
from pacs import Archive
from pacs.archive.maintenance_rows import MaintenanceRows
from simulator.journey import data_set_of, only_part
from simulator.modality.modality import Modality, Sent, Step, standard_views
from worklist import Item, Worklist
from worklist.expiry_rows import ExpiryRows

MARK = "SELFTEST"
"""Prefix of the accession number of every test."""

ROWS, COLUMNS = 832, 640
"""Of the views: small, because a test must not fill the site's line."""

DELIVERY_SECONDS = 60.0
"""How long the cloud may take to confirm; normally it takes a second."""

REMOVAL_SECONDS = 15.0
"""How long the pacs process may take to remove the files; it looks every second, but not during a backup."""

AROUND = timedelta(hours=1)
"""So close to now, an appointment that is still open means that a clinic is under way; so does an image that came."""


def clinic(items: Iterable[Item], received_last: datetime, *, now: datetime) -> str:
    """Say why a clinic seems to be under way, or ''. `items` are the day's; `now` is in the site's zone."""
    if now - received_last < AROUND and received_last <= now:
        return f"an image came in at {received_last.astimezone(now.tzinfo):%H:%M}"
    first, last = (f"{moment:%Y%m%d%H%M%S}" for moment in (now - AROUND, now + AROUND))
    for item in items:
        if item.accession_number.startswith(MARK):
            continue
        if item.state == "in_progress":
            return f"item {item.accession_number} is in progress"
        if item.state == "scheduled" and first <= item.date + item.time[:6].ljust(6, "0") <= last:
            return f"item {item.accession_number} is due at {item.time[:2]}:{item.time[2:4]}"
    return ""


def marked_item(*, station: str, now: datetime) -> Item:
    """A worklist item of a synthetic participant, now, at a station that is no machine's."""
    token = uuid.uuid4().hex
    item = WorklistItem(
        accession_number=f"{MARK}{token[:8].upper()}",
        participant=Participant(nhs_number=MARK, name="SELFTEST^GATEWAY", sex="O"),
        scheduled=Scheduled(date=f"{now:%Y%m%d}", time=f"{now:%H%M%S}"),
        procedure=Procedure(modality="MG", study_description="Self-test of the gateway"),
        dicom={"00400100": {"vr": "SQ", "Value": [{"00400001": {"vr": "AE", "Value": [station]}}]}},
    )
    return Item.from_message(item, action_id=f"{LOCAL_ACTION}selftest-{token}", appointment_id="")


class Selftest:
    """One test of a site, hop by hop. `run` it."""

    def __init__(self, settings: SiteSettings, hops: Hops, *, now: Callable[[], datetime]) -> None:
        """`now` gives the wall time of the site, with its zone."""
        self._settings = settings
        self._hops = hops
        self._now = now

    def run(self, *, force: bool) -> None:
        """Test, and clean up. Raises Conflict while a clinic is under way, unless forced; look at the hops."""
        relay = self._settings.relay
        with (
            closing(Worklist.attach(relay.worklist_db_path)) as worklist,
            closing(Archive.attach(relay.pacs_db_path, relay.pacs_storage_path)) as archive,
        ):
            today = worklist.items(date=f"{self._now():%Y%m%d}")
            # The item is for a station of our own, but machines may show items of any station.
            reason = clinic(today, _newest_image(archive), now=self._now())
            if reason and not force:
                raise Conflict(f"A clinic is under way: {reason}. Test later, or with --force.")
            with suppress(HopFailed):
                self._clean_up("leftovers cleaned up", worklist, archive)  # of a test that was killed
                try:
                    self._test(worklist, archive)
                finally:
                    self._clean_up("cleaned up", worklist, archive)

    def _test(self, worklist: Worklist, archive: Archive) -> None:
        modality, now = self._settings.modality(), self._now()
        item = self._schedule(worklist, now=now)
        step = self._begin(modality, item, now=now)
        images = [self._store(modality, view) for view in standard_views(step, rows=ROWS, columns=COLUMNS)]
        with self._hops.watch("modality: step completed") as note:
            modality.complete(step, images, now=self._now())
            note.detail = f"N-SET COMPLETED with {len(images)} images."
        self._retrieve(images)
        self._arrive(worklist, archive, step)

    def _schedule(self, worklist: Worklist, *, now: datetime) -> Item:
        with self._hops.watch("worklist: item scheduled", remedy="See the disk and the worklist's log.") as note:
            item = marked_item(station=self._settings.calling_ae_title, now=now)
            item = worklist.schedule(item, action_id=item.action_id, content_hash="", now=now)
            note.detail = f"Accession number {item.accession_number}."
        return item

    def _begin(self, modality: Modality, item: Item, *, now: datetime) -> Step:
        with self._hops.watch("modality: worklist query", remedy="Is gateway-worklist running?") as note:
            found = modality.find(accession_number=item.accession_number)
            if len(found) != 1:
                raise Observed(f"The worklist answered {len(found)} items; see 'gateway worklist explain'.")
            note.detail = "The item was found."
        with self._hops.watch("modality: step begun", remedy="See the worklist's log.") as note:
            step = modality.begin(found[0], now=now)
            note.detail = "N-CREATE was answered with success."
        return step

    def _store(self, modality: Modality, view: Dataset) -> Sent:
        name = f"modality: {view.SeriesDescription} stored"
        with self._hops.watch(name, remedy="Is gateway-pacs running? See its log.") as note:
            [sent] = modality.store([view])
            note.detail = f"{sent.size_bytes / 1e6:.1f} MB, C-STORE was answered with success."
        return sent

    def _retrieve(self, images: Sequence[Sent]) -> None:
        with self._hops.watch("viewer: search and retrieve", remedy="Is gateway-relay running?") as note:
            found = json.loads(
                self._get(f"/studies/{images[0].study_instance_uid}/instances", "application/dicom+json")
            )
            if len(found) != len(images):
                raise Observed(f"{len(found)} instances were found of the {len(images)} that were stored.")
            for image in images:
                if hashlib.sha256(self._data_set(image)).hexdigest() != image.sha256:
                    raise Observed(f"The data set of {image.sop_instance_uid} is not the one that was sent.")
            note.detail = f"All {len(images)} data sets are bit-identical to what was sent."

    def _arrive(self, worklist: Worklist, archive: Archive, step: Step) -> None:
        with self._hops.watch("cloud: confirms all events", remedy="See: gateway outbox list --state open.") as note:
            if not self._settings.relay.destinations:
                raise Nothing("No destination is configured (RELAY_DESTINATION); the events stay owed.")
            deadline, study = time.monotonic() + DELIVERY_SECONDS, step.exam.study_uid
            while waiting := _pending(worklist.outbox, study) + _pending(archive.outbox, study):
                if time.monotonic() > deadline:
                    raise Observed(f"{waiting} events of the test are not confirmed after {DELIVERY_SECONDS:.0f} s.")
                time.sleep(0.1)
            note.detail = "Every event of the test is confirmed."

    def _clean_up(self, name: str, worklist: Worklist, archive: Archive) -> None:
        """Take out every item of a test with its step and its images."""
        with self._hops.watch(name, remedy="See the disk, and test again: it cleans up first.") as note:
            tests = [item for item in worklist.items() if item.accession_number.startswith(MARK)]
            for item in tests:
                archive.forget(item.study_instance_uid, now=datetime.now(UTC))
                ExpiryRows(worklist).forget(item.accession_number)
            self._await_removal(archive)
            if not tests and name != "cleaned up":
                raise Nothing("Nothing was left of an earlier test.")
            note.detail = "Item, step and images are gone."

    def _await_removal(self, archive: Archive) -> None:
        deadline = time.monotonic() + REMOVAL_SECONDS
        rows = MaintenanceRows(archive)
        # The pacs process removes the files; this process only ordered it.
        while rows.removals() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _data_set(self, image: Sent) -> bytes:
        path = f"/studies/{image.study_instance_uid}/series/{image.series_instance_uid}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        return data_set_of(self._get(f"{path}/instances/{image.sop_instance_uid}", accept))

    def _get(self, path: str, accept: str) -> bytes:
        url = f"{self._settings.url}/dicom-web{path}"
        request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - our own http address
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            body: bytes = answer.read()
            return only_part(body, answer.headers) if answer.headers.get_content_maintype() == "multipart" else body


def _newest_image(archive: Archive) -> datetime:
    """When the last image was received that is still here; a test's are not."""
    newest = archive.latest(1)
    return datetime.fromisoformat(newest[0].received_at) if newest else datetime.min.replace(tzinfo=UTC)


def _pending(outbox: Outbox, study_instance_uid: str) -> int:
    """How many of the newest undelivered events name the study."""
    entries = [*outbox.entries("open"), *outbox.entries("parked")]
    return sum(study_instance_uid in json.dumps(entry.parameters) for entry in entries)
