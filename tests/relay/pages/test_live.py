"""Open pages are told that something has changed, over real connections."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.messages import Check
from gateway.sqlite import utc_text
from relay.pages import live
from relay.pages.live import Live
from relay.web import SHUTDOWN_SECONDS
from tests.relay import served
from tests.relay.dicomweb.reader import Reader
from tests.relay.served import Site
from tests.tools.waiting import PATIENCE_SECONDS

State = dict[str, str]
LATER = served.NOW + timedelta(seconds=30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served.site(tmp_path) as running:
        yield running


@contextmanager
def stream(site: Site) -> Iterator[Iterator[State]]:
    """An open stream; gives the states it tells, one by one."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
    yield (json.loads(line[5:])["state"] for line in response if line.startswith(b"data:"))
    connection.close()


def changed(before: State, after: State) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_the_state_is_told_at_once_and_by_name(site: Site) -> None:
    with stream(site) as states:
        state = next(states)
    assert sorted(state) == ["day", "health", "images", "minute", "refusals", "run", "worklist"]
    assert state["day"] == served.NOW.astimezone().strftime("%Y%m%d")


def test_an_image_and_an_appointment_are_told_before_the_next_beat(site: Site) -> None:
    with stream(site) as states:
        first = next(states)
        began = time.monotonic()
        served.receive(site.archive, served.mammogram("RCC", 1), site.folder)
        second = next(states)
        site.worklist.schedule(served.item(), action_id="1", content_hash="1", now=served.NOW)
        third = next(states)
    assert (changed(first, second), changed(second, third)) == ({"images"}, {"worklist"})
    assert time.monotonic() - began < live.BEAT_SECONDS


def test_another_health_is_told(site: Site) -> None:
    with stream(site) as states:
        first = next(states)
        site.report = site.report.model_copy(update={"checks": {"disk": Check(ok=False, detail="Full.")}})
        assert changed(first, next(states)) == {"health"}


def test_a_newer_proof_of_the_same_health_is_nothing_new(site: Site) -> None:
    told = Live(site.archive, site.worklist, health=lambda: site.report, clock=lambda: served.NOW)
    before = told.state()
    newer = {name: each.model_copy(update={"proven_at": utc_text(LATER)}) for name, each in site.report.checks.items()}
    site.report = site.report.model_copy(update={"checks": newer})
    again = Live(site.archive, site.worklist, health=lambda: site.report, clock=lambda: served.NOW)
    assert changed(before, again.state()) == {"run"}


def test_the_minute_is_told_for_what_grows_old_by_itself(site: Site) -> None:
    times = iter([served.NOW, served.NOW + timedelta(seconds=59), served.NOW + timedelta(seconds=60)])
    told = Live(site.archive, site.worklist, health=lambda: site.report, clock=lambda: next(times))
    first, second, third = (told.state() for _ in range(3))
    assert (changed(first, second), changed(second, third)) == (set(), {"minute"})


@pytest.mark.parametrize(
    ("path", "follows"),
    [
        ("/", "run day worklist images health minute"),
        ("/queue", "run day worklist images health minute"),
        ("/storage", "run day minute"),  # sixty days of growth and two hundred studies are looked at for it
        ("/board", "run day worklist images"),
    ],
)
def test_a_page_follows_what_it_shows_and_a_dear_one_only_the_minute(site: Site, path: str, follows: str) -> None:
    page = Reader(site.get(path, accept="text/html").body)
    assert page.all("body")[0]["data-follows"] == follows


def test_nothing_new_is_told_again_before_a_page_takes_it_for_lost(site: Site) -> None:
    with stream(site) as states:
        first, began = next(states), time.monotonic()
        assert next(states) == first
        assert 5 < time.monotonic() - began < 25  # when a page says that it has heard nothing (app.js)


def test_all_streams_are_told_the_same(site: Site) -> None:
    with stream(site) as one, stream(site) as other:
        next(one), next(other)
        served.receive(site.archive, served.mammogram("RCC", 1), site.folder)
        assert next(one) == next(other)


def test_a_page_was_made_of_the_state_that_is_told(site: Site) -> None:
    page = Reader(site.get("/board", accept="text/html").body)
    with stream(site) as states:
        assert json.loads(page.all("body")[0]["data-state"] or "") == next(states)


def test_a_stream_holds_no_patient_data(tmp_path: Path) -> None:
    with served.site(tmp_path, served.first_study(), [served.item()]) as site, stream(site) as states:
        assert "ACC-1" not in str(next(states))


def test_a_site_that_stops_ends_its_streams_at_once(tmp_path: Path) -> None:
    with served.site(tmp_path) as site:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/events")
        response = connection.getresponse()
        response.readline()
        began = time.monotonic()
    assert time.monotonic() - began < SHUTDOWN_SECONDS
    response.read()  # ends, and does not time out
    connection.close()


def test_more_streams_than_there_may_be_are_asked_to_come_later(site: Site) -> None:
    open_ = [
        http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS) for _ in range(live.MOST_STREAMS)
    ]
    for connection in open_:
        connection.request("GET", "/events")
        connection.getresponse().readline()
    answer = site.get("/events")
    for connection in open_:
        connection.close()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    assert b"too_many_pages" in answer.body


def test_streams_are_for_readers_only(site: Site) -> None:
    assert site.get("/events", method="HEAD").status == 405
    assert site.get("/events", method="POST").status == 405
