"""The pages of who looks after a site, over real HTTP: what they say, who may do what, that looking does nothing."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from gateway.disk_space import Watermarks
from gateway.errors import Conflict
from gateway.last_backup import LastBackup, remember
from gateway.refusals.log import Refusals, Seen
from gateway.refusals.remedies import remedy
from gateway.sqlite import utc_text
from pacs import Archive, RetentionPolicy
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.maintenance.quarantine import carry_out
from relay.pages.site_facts import CircuitState, SiteFacts
from tests.relay import served
from tests.relay.access.test_middleware import basic, door_in, trail
from tests.relay.dicomweb.reader import Reader
from tests.relay.served import NOW, STUDY, Answer, Site, mammogram
from tests.tools.archive_files import files_of

HOSTILE = "<img src=x onerror=alert(1)> & 'more'"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
UID = f"{STUDY}.1.1"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two views and a different object under the UID of the first; three users; a destination that does not answer."""
    breaker = CircuitState(3, NOW + timedelta(seconds=20), f"No route. {HOSTILE}", NOW - timedelta(minutes=5))
    site_facts = SiteFacts(
        refusals=tmp_path / "refusals.db",
        backups=tmp_path,
        policy=RetentionPolicy(30),
        watermarks=Watermarks(),
        circuits=lambda: {"cloud": breaker},
    )
    images = [mammogram("RCC", 1), mammogram("LCC", 2)]
    with served.site(tmp_path, images, [served.item()], access=door_in(tmp_path), site_facts=site_facts) as running:
        with pytest.raises(Conflict):
            served.receive(running.archive, mammogram("RCC", 1, PatientName=f"OTHER^{HOSTILE}"), tmp_path)
        yield running


def look(site: Site, path: str, user: str = "vera") -> Reader:
    answer = site.get(path, accept="text/html", **basic(user))
    assert answer.status == 200, answer.body
    return Reader(answer.body)


def press(site: Site, path: str, user: str = "otto", fields: Mapping[str, str] | None = None, **headers: str) -> Answer:
    """Send a form as a page of the gateway does."""
    sent = {**FORM, "Origin": site.url, "Sec_Fetch_Site": "same-origin", **basic(user), **headers}
    return site.get(path, method="POST", body=urlencode(fields or {}).encode(), accept="text/html", **sent)


def went_to(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.headers["Location"]


def parked(site: Site, reason: str, count: int = 1) -> list[int]:
    """Park the oldest due entries of the archive, one after the other; gives their ids."""
    box, ids = site.archive.outbox, []
    for _ in range(count):
        [entry, *_] = sorted(box.due(NOW, limit=10), key=lambda each: each.id)
        box.park(entry, reason=reason, now=NOW)
        ids.append(entry.id)
    return ids


def state(site: Site) -> tuple[object, ...]:
    """Everything that pages could change."""
    boxes = (site.archive.outbox, site.worklist.outbox)
    entries = [box.entries(each, limit=1000) for box in boxes for each in ("open", "parked", "delivered")]
    return entries, site.archive.quarantine.objects(), sorted(files_of(site.archive).quarantine.iterdir())


# ---- delivery --------------------------------------------------------------------------------------------------------


def test_the_queue_says_what_waits_what_is_parked_and_why_and_when_it_is_tried_again(site: Site) -> None:
    [first] = parked(site, HOSTILE)
    [second, *_] = site.archive.outbox.due(NOW, limit=10)
    site.archive.outbox.retry(second, reason="It was busy.", due_at=NOW + timedelta(minutes=5))
    page = look(site, "/queue", "otto")
    assert "1 entry is parked and waits for a person" in page.text
    assert f"Not reached, 3 failures in a row No route. {HOSTILE}" in page.text
    assert "Waiting 2 Images and thumbnails 2" in page.text
    assert "Failed 1 time, tried again at 22 Nov 2026" in page.text
    assert "It was busy." in page.text
    assert page.links("/queue/") == [
        f"/queue/pacs/{first}/release-alike?destination=cloud",
        f"/queue/pacs/{first}/release",
    ]
    assert page.all("img") == []


def test_the_queue_says_how_far_the_cloud_was_told_of_each_exam(site: Site) -> None:
    for _ in range(2):
        [entry, *_] = sorted(site.archive.outbox.due(NOW, limit=10), key=lambda each: each.id)
        site.archive.outbox.delivered(entry, now=NOW, sent={2: 1000})
    text = look(site, "/queue").text
    assert "Delivered today (UTC) 2, 2.0 kB" in text
    assert re.search(r"ACC-1 Waiting 2 1 0", text)


def test_a_viewer_sees_the_queue_and_is_offered_nothing(site: Site) -> None:
    [entry] = parked(site, "Too large.")
    page = look(site, "/queue")
    assert (page.all("form"), page.links("/queue/")) == ([], [])
    assert "Releasing needs the role operator." in look(site, f"/queue/pacs/{entry}/release").text


def test_releasing_takes_a_page_that_asks_and_a_press(site: Site, tmp_path: Path) -> None:
    [entry] = parked(site, "Too large.")
    asked = look(site, f"/queue/pacs/{entry}/release", "otto")
    assert [form["action"] for form in asked.all("form")] == [f"/queue/pacs/{entry}/release"]
    assert "Why it is parked. Too large." in asked.text
    assert len(site.archive.outbox.entries("parked")) == 1
    before = len(trail(tmp_path))
    assert went_to(press(site, f"/queue/pacs/{entry}/release")) == (303, "/queue?said=released")
    assert site.archive.outbox.entries("parked") == []
    written = [line for line in trail(tmp_path, before) if f"/queue/pacs/{entry}/release" in str(line["objects"])]
    assert [line["who"] for line in written] == ["otto@127.0.0.1", "otto@127.0.0.1"]
    assert "Released." in look(site, "/queue?said=released").text


def test_a_second_press_of_release_finds_that_it_is_done(site: Site) -> None:
    [entry] = parked(site, "Too large.")
    press(site, f"/queue/pacs/{entry}/release")
    before = state(site)
    assert went_to(press(site, f"/queue/pacs/{entry}/release")) == (303, "/queue?said=already")
    assert state(site) == before


def test_what_is_held_back_is_released_in_the_name_of_who_presses(site: Site) -> None:
    box = site.archive.outbox
    entry = box.due(NOW, limit=10)[0]
    box.held.hold(entry.id, reason="Held back: Patient ID of the image and of its worklist item disagree.", now=NOW)
    assert went_to(press(site, f"/queue/pacs/{entry.id}/release")) == (303, "/queue?said=released")
    assert [each.released_by for each in box.entries("open") if each.id == entry.id] == ["otto"]


def test_what_is_held_back_is_discarded_in_the_name_of_who_presses(site: Site, tmp_path: Path) -> None:
    box = site.archive.outbox
    entry = box.due(NOW, limit=10)[0]
    box.held.hold(entry.id, reason="Held back: Patient ID of the image and of its worklist item disagree.", now=NOW)
    path = f"/queue/pacs/{entry.id}/discard"
    assert path in look(site, "/queue", "otto").links("/queue/")
    assert "Never send this image to the cloud?" in look(site, path, "otto").text
    assert press(site, path).status == 400
    before = len(trail(tmp_path))
    assert went_to(press(site, path, fields={"because": "Another participant's."})) == (303, "/queue?said=discarded")
    assert box.held.discarded([entry.message_id]) == {entry.message_id: "Discarded by otto: Another participant's."}
    assert [line["who"] for line in trail(tmp_path, before) if path in str(line["objects"])][:1] == ["otto@127.0.0.1"]
    assert went_to(press(site, path, fields={"because": "x"})) == (303, "/queue?said=already")
    assert went_to(press(site, path.replace("pacs", "worklist"), fields={"because": "x"}))[0] == 303


def test_releasing_all_that_is_held_for_one_reason_says_that_each_has_to_be_compared(site: Site) -> None:
    box = site.archive.outbox
    for entry in box.due(NOW, limit=10):
        box.held.hold(entry.id, reason="Held back: Patient ID of the image and of its worklist item disagree.", now=NOW)
    [link] = [link for link in look(site, "/queue", "otto").links("/queue/") if "release-alike" in link]
    assert "Compare each of them first." in look(site, link, "otto").text


def test_where_nobody_logs_in_what_is_held_back_wants_a_name(tmp_path: Path) -> None:
    with served.site(tmp_path, [served.mammogram("RCC", 1)]) as site:
        box = site.archive.outbox
        [entry] = box.due(NOW, limit=10)
        box.held.hold(entry.id, reason="Held back.", now=NOW)
        path = f"/queue/pacs/{entry.id}/release"
        assert press(site, path).status == 400
        assert went_to(press(site, path, fields={"by": "J. Smith"})) == (303, "/queue?said=released")
        assert [each.released_by for each in box.entries("open")] == ["J. Smith"]


def test_all_entries_of_one_reason_are_released_together_and_no_others(site: Site) -> None:
    parked(site, "Too large.", 2)
    [other] = parked(site, "Not wanted.")
    [group, _] = site.archive.outbox.overview.parked_alike()
    path = f"/queue/pacs/{group.first_id}/release-alike?destination=cloud"
    form = look(site, path, "otto")
    assert "Release 2 parked entries?" in form.text
    [reason] = [field["value"] for field in form.all("input")]
    assert went_to(press(site, path, fields={"reason": str(reason)})) == (303, "/queue?said=released")
    assert [entry.id for entry in site.archive.outbox.entries("parked")] == [other]
    assert went_to(press(site, path, fields={"reason": str(reason)})) == (303, "/queue?said=already")


def test_an_entry_parked_at_two_destinations_is_asked_about_where_its_link_says(site: Site) -> None:
    site.archive.outbox.serve(("manage", "servicebus"), now=NOW)
    for destination, reason in (("manage", "Too large."), ("servicebus", "Not wanted.")):
        [entry, *_] = sorted(site.archive.outbox.due(NOW, limit=10, destination=destination), key=lambda each: each.id)
        site.archive.outbox.park(entry, reason=reason, now=NOW)
    for link in look(site, "/queue", "otto").links("/queue/pacs/"):
        if "release-alike" in link:
            reason = "Too large." if link.endswith("=manage") else "Not wanted."
            asked = look(site, link, "otto")
            assert f"Why it is parked. {reason}" in asked.text
            assert [field["value"] for field in asked.all("input")] == [reason]
            assert [form["action"] for form in asked.all("form")] == [link]


def test_entries_whose_reason_has_changed_since_it_was_shown_stay_parked(site: Site) -> None:
    [entry] = parked(site, "Too large.")
    answer = press(site, f"/queue/pacs/{entry}/release-alike", fields={"reason": "Something else."})
    assert answer.status == 409
    assert "The reason has changed since the page was shown; look at it again." in Reader(answer.body).text
    assert len(site.archive.outbox.entries("parked")) == 1


def test_what_has_a_pause_is_tried_at_once(site: Site) -> None:
    [entry, *_] = site.archive.outbox.due(NOW, limit=10)
    site.archive.outbox.retry(entry, reason="It was busy.", due_at=NOW + timedelta(minutes=5))
    page = look(site, "/queue", "otto")
    assert [form["action"] for form in page.all("form")] == ["/queue/cloud/now"]
    assert went_to(press(site, "/queue/cloud/now")) == (303, "/queue?said=knocked")
    [now] = [each for each in site.archive.outbox.entries("open") if each.id == entry.id]
    assert (now.due_at, now.reason) == (utc_text(NOW), "It was busy.")
    assert went_to(press(site, "/queue/cloud/now")) == (303, "/queue?said=already")


def test_an_entry_of_nobody_is_not_there(site: Site) -> None:
    for path in ("/queue/pacs/999/release", "/queue/other/1/release", "/queue/pacs/x/release"):
        assert site.get(path, accept="text/html", **basic("otto")).status == 404


# ---- quarantine ------------------------------------------------------------------------------------------------------


def only(archive: Archive) -> int:
    [found] = archive.quarantine.objects()
    return found.id


def test_the_quarantine_lists_what_is_kept_aside_and_the_navigation_counts_it(site: Site) -> None:
    page = look(site, "/quarantine")
    assert "A different object with this SOP Instance UID is stored already." in page.text
    assert f"{UID}" in page.text
    assert "Waits for a person" in page.text
    assert "Quarantine 1 waiting" in page.text


def test_both_are_seen_side_by_side_with_what_differs_and_names_are_text(site: Site) -> None:
    page = look(site, f"/quarantine/{only(site.archive)}", "otto")
    pictures = [str(image["src"]) for image in page.all("img")]
    assert pictures[0].startswith(f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{UID}/rendered")
    assert pictures[1:] == [f"/quarantine/{only(site.archive)}/picture"]
    assert f"Patient's Name BJÖRK^ANNA OTHER^{HOSTILE} yes" in page.text
    assert "Patient ID 9990000018 9990000018 no" in page.text
    assert "The pictures are the same, byte for byte" in page.text
    for path in pictures:
        answer = site.get(path, **basic("vera"))
        assert (answer.status, answer.headers["Content-Type"], answer.body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def test_looking_at_the_two_is_in_the_trail_with_its_study(site: Site, tmp_path: Path) -> None:
    before = len(trail(tmp_path))
    look(site, f"/quarantine/{only(site.archive)}")
    assert any(STUDY in str(line["objects"]) for line in trail(tmp_path, before))


def test_replacing_takes_a_page_that_asks_and_keeps_the_name(site: Site) -> None:
    number = only(site.archive)
    asked = look(site, f"/quarantine/{number}/replace", "otto")
    assert "The image that everybody is shown changes." in asked.text
    assert [field["name"] for field in asked.all("input")] == []
    assert site.archive.quarantine.decided() == []
    assert went_to(press(site, f"/quarantine/{number}/replace")) == (303, "/quarantine?said=decided")
    assert went_to(press(site, f"/quarantine/{number}/replace")) == (303, "/quarantine?said=decided")
    [decided] = site.archive.quarantine.decided()
    assert (decided.decision, decided.decided_by) == ("replace", "otto")
    carry_out(site.archive, files_of(site.archive), now=NOW)
    assert went_to(press(site, f"/quarantine/{number}/replace")) == (303, "/quarantine?said=already")
    [old] = site.archive.quarantine.objects()
    assert old.reason == "Replaced on 2026-11-22T09:30:00.000Z by decision of otto."
    assert len(list(files_of(site.archive).quarantine.iterdir())) == 1


def test_keeping_the_stored_one_deletes_nothing_and_waits_for_nobody_any_more(site: Site) -> None:
    number, files = only(site.archive), sorted(files_of(site.archive).quarantine.iterdir())
    assert went_to(press(site, f"/quarantine/{number}/settle")) == (303, "/quarantine?said=settled")
    carry_out(site.archive, files_of(site.archive), now=NOW)
    assert sorted(files_of(site.archive).quarantine.iterdir()) == files
    page = look(site, "/quarantine")
    assert "The stored one stays by otto" in page.text
    assert "1 waiting" not in page.text
    assert press(site, f"/quarantine/{number}/settle").status == 409
    assert went_to(press(site, f"/quarantine/{number}/replace")) == (303, "/quarantine?said=decided")


def test_what_cannot_be_decided_is_not_offered_and_refused(site: Site) -> None:
    number = only(site.archive)
    assert look(site, f"/quarantine/{number}", "otto").links("/quarantine/") == [
        f"/quarantine/{number}/replace",
        f"/quarantine/{number}/settle",
    ]
    assert (
        "This cannot be decided now: the stored one is another object" in look(site, f"/quarantine/{number}/store").text
    )
    assert press(site, f"/quarantine/{number}/store").status == 409
    assert site.archive.quarantine.decided() == []


def test_an_object_whose_uid_is_free_can_be_stored(site: Site) -> None:
    with site.archive.write() as conn:
        MaintenanceRows(site.archive).take_out(conn, UID)
    number = only(site.archive)
    page = look(site, f"/quarantine/{number}", "otto")
    assert "Nothing is stored under this UID" in page.text
    assert page.links("/quarantine/") == [f"/quarantine/{number}/store"]
    press(site, f"/quarantine/{number}/store")
    carry_out(site.archive, files_of(site.archive), now=NOW)
    assert site.archive.quarantine.objects() == []
    assert site.archive.instance(UID).calling_ae_title == "MODALITY"


def test_an_object_that_is_damaged_shows_the_reason_instead_of_a_comparison(site: Site) -> None:
    [path] = files_of(site.archive).quarantine.iterdir()
    path.write_bytes(b"not DICOM at all")
    page = look(site, f"/quarantine/{only(site.archive)}", "otto")
    assert "The two cannot be compared: The object cannot be read" in page.text
    assert site.get(f"/quarantine/{only(site.archive)}/picture", **basic("vera")).status >= 400
    path.unlink()
    assert "its file is not there" in look(site, "/quarantine").text
    assert site.get(f"/quarantine/{only(site.archive)}/picture", **basic("vera")).status == 404


def test_where_nobody_logs_in_a_decision_wants_a_name(tmp_path: Path) -> None:
    with served.site(tmp_path, [mammogram("RCC", 1)]) as site:
        with pytest.raises(Conflict):
            served.receive(site.archive, mammogram("RCC", 1, PatientID="2"), tmp_path)
        number = only(site.archive)
        assert "by" in [field["name"] for field in look(site, f"/quarantine/{number}/replace").all("input")]
        for name in ("", "   ", "x" * 129, "a\nb"):
            assert press(site, f"/quarantine/{number}/replace", fields={"by": name}).status == 400
        assert site.archive.quarantine.decided() == []
        assert press(site, f"/quarantine/{number}/replace", fields={"by": " J. Smith "}).status == 303
        assert [found.decided_by for found in site.archive.quarantine.decided()] == ["J. Smith"]


# ---- storage ---------------------------------------------------------------------------------------------------------


def test_the_storage_says_what_is_kept_how_it_grows_and_what_may_go(site: Site) -> None:
    page = look(site, "/storage")
    assert "Studies 1 Images and other objects 2" in page.text
    assert "Warned from 85 % No images from 95 %" in page.text
    assert "Studies may go 30 days after their last image, when nothing holds them back. 0 are that old:" in page.text
    assert "Files read again not yet" in page.text
    assert "Last backup none is known here" in page.text
    assert "Nothing is forwarded" in page.text


def test_plots_have_title_description_and_their_numbers_in_a_table(site: Site) -> None:
    page = look(site, "/storage")
    drawn = [svg for svg in page.all("svg") if "labelledby" in str(svg)]
    for svg in drawn:
        named = str(svg["aria-labelledby"]).split()
        assert svg["role"] == "img"
        assert [tag["id"] for tag in (*page.all("title"), *page.all("desc")) if tag.get("id") in named] == named
    assert len(drawn) == 3
    assert "2026-11-22 1 2" in page.text
    assert all("style" not in attributes for _, attributes in page.tags)


def test_the_storage_says_what_holds_old_studies_back_and_which_files_are_damaged(site: Site, tmp_path: Path) -> None:
    long_ago = utc_text(NOW - timedelta(days=60))
    with site.archive.write() as conn:
        conn.execute("UPDATE study SET last_received_at = ?", (long_ago,))
    kept = MaintenanceRows(site.archive).kept(UID)
    assert kept is not None
    MaintenanceRows(site.archive).report_damage(kept, "wrong_hash", now=NOW)
    remember(tmp_path, LastBackup(utc_text(NOW - timedelta(hours=3)), f"/mnt/{HOSTILE}", 7, 0, 0))
    text = look(site, "/storage").text
    assert "1 file is damaged" in text
    assert f"{UID} {STUDY} wrong hash" in text
    assert "Go tonight 0 studies" in text
    assert "Stay, because the cloud has not confirmed all of it 1" in text
    assert f"3 hours ago , 7 files in /mnt/{HOSTILE}" in text


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_refusals_are_told_in_plain_words_with_what_to_do_and_are_text(site: Site, tmp_path: Path) -> None:
    seen = Seen("pacs", "association", "called_ae_title", HOSTILE[:16], "10.0.1.7", "", f"It called {HOSTILE}.", "",
                utc_text(NOW - timedelta(minutes=10)), utc_text(NOW), 12)  # fmt: skip
    assert "Nothing was refused." in look(site, "/refusals").text
    with closing(Refusals.open(tmp_path / "refusals.db")) as opened:
        opened.add([seen], lost=3, now=NOW)
    page = look(site, "/refusals")
    assert f"It called {HOSTILE}. What to do: {remedy('called_ae_title')}" in page.text
    assert "12 times since 22 Nov 2026" in page.text
    assert "3 more could not be written down" in page.text
    assert page.all("img") == []


def test_a_file_of_refusals_that_cannot_be_read_is_said_so(site: Site, tmp_path: Path) -> None:
    (tmp_path / "refusals.db").write_bytes(b"not a database, and longer than a header" * 100)
    assert "What was refused cannot be read now" in look(site, "/refusals").text


# ---- who may do what -------------------------------------------------------------------------------------------------


def actions(site: Site) -> list[str]:
    [entry] = parked(site, "Too large.")
    number = only(site.archive)
    return [
        f"/queue/pacs/{entry}/release",
        f"/queue/pacs/{entry}/release-alike",
        f"/queue/{quote('full images')}/now",
        "/queue/cloud/now",
        f"/quarantine/{number}/replace",
        f"/quarantine/{number}/store",
        f"/quarantine/{number}/settle",
    ]


def test_looking_never_changes_anything(site: Site) -> None:
    paths = [*actions(site), "/queue", "/storage", "/quarantine", f"/quarantine/{only(site.archive)}", "/refusals"]
    before = state(site)
    for path in paths:
        site.get(path, accept="text/html", **basic("anna"))
        site.get(path, method="HEAD", accept="text/html", **basic("anna"))
    assert state(site) == before


def test_what_was_decided_about_the_quarantine_needs_no_look_any_more(site: Site) -> None:
    assert "1 object waits in the quarantine for a decision." in look(site, "/").text
    press(site, f"/quarantine/{only(site.archive)}/settle")
    assert len(site.archive.quarantine.objects()) == 1
    assert "in the quarantine" not in look(site, "/").text


def test_only_an_operator_on_a_page_of_the_gateway_acts(site: Site) -> None:
    paths = actions(site)
    before = state(site)
    for path in paths:
        assert press(site, path, "vera").status == 403
        assert site.get(path, method="POST", body=b"", **FORM).status == 401
        assert press(site, path, Origin="https://evil.example", Sec_Fetch_Site="none").status == 403
        assert press(site, path, Sec_Fetch_Site="cross-site").status == 403
    assert state(site) == before


def test_pages_have_no_script_of_their_own_and_no_style(site: Site) -> None:
    parked(site, HOSTILE)
    number = only(site.archive)
    for path in (
        "/queue",
        "/storage",
        "/quarantine",
        f"/quarantine/{number}",
        f"/quarantine/{number}/replace",
        "/refusals",
    ):
        page = look(site, path, "otto")
        assert [script["src"] for script in page.all("script")] == ["/assets/app.js"]
        assert page.all("style") == []
        assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []
