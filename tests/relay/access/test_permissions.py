"""Who may do what: the table of routes, as rules and against the routes that there are."""

from pathlib import Path

import pytest

from relay.access.permissions import READING, Recorded, Role, Rule, foreign_origin, is_loopback, rule, start_refusal
from relay.api.operations import OPERATIONS
from tests.relay import served
from tests.relay.access.test_middleware import door_in

VIEW, OPERATE, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN


@pytest.mark.parametrize(
    ("method", "path", "role", "recorded"),
    [
        ("GET", "/healthz", None, Recorded.NOTHING),
        ("GET", "/assets/app.css", None, Recorded.NOTHING),
        ("GET", "/", VIEW, Recorded.NOTHING),
        ("GET", "/events", VIEW, Recorded.NOTHING),
        ("GET", "/board", VIEW, Recorded.QUERY),
        ("GET", "/studies", VIEW, Recorded.QUERY),
        ("GET", "/queue", VIEW, Recorded.QUERY),
        ("GET", "/storage", VIEW, Recorded.NOTHING),
        ("GET", "/quarantine", VIEW, Recorded.QUERY),
        ("GET", "/refusals", VIEW, Recorded.NOTHING),
        ("GET", "/studies/2.25.1", VIEW, Recorded.ACCESSED),
        ("GET", "/anything/that/somebody/adds", VIEW, Recorded.QUERY),
        ("GET", "/viewer/app.js", VIEW, Recorded.NOTHING),
        ("GET", "/dicom-web/studies", VIEW, Recorded.QUERY),
        ("HEAD", "/dicom-web/studies/2.25.1", VIEW, Recorded.TRANSFERRED),
        ("GET", "/dicom-web/studies/2.25.1/series/2.25.2", VIEW, Recorded.TRANSFERRED),
        ("GET", "/dicom-web/studies/2.25.1/series/2.25.2/instances/2.25.3/frames/1", VIEW, Recorded.ACCESSED),
        ("GET", "/dicom-web/studies/2.25.1/metadata", VIEW, Recorded.ACCESSED),
        ("POST", "/dicom-web/studies", OPERATE, Recorded.ACTION),
        ("DELETE", "/dicom-web/studies/2.25.1", ADMIN, Recorded.ACTION),
        ("POST", "/outbox/pacs/17/release", OPERATE, Recorded.ACTION),
        ("GET", "/api/v1/studies/2.25.1/archive", VIEW, Recorded.TRANSFERRED),
        ("GET", "/api/v1/instances/2.25.1/preview", VIEW, Recorded.ACCESSED),
        ("POST", "/api/v1/studies/2.25.1/send", OPERATE, Recorded.ACTION),
        ("GET", "/sign-in", None, Recorded.NOTHING),
        ("POST", "/sign-in", None, Recorded.NOTHING),
        ("POST", "/sign-in/provider", None, Recorded.NOTHING),
        ("GET", "/sign-in/return", None, Recorded.NOTHING),
        ("POST", "/sign-out", None, Recorded.NOTHING),
        ("DELETE", "/sign-in", ADMIN, Recorded.ACTION),
        ("POST", "/session", VIEW, Recorded.NOTHING),
        ("BREW", "/healthz", OPERATE, Recorded.ACTION),
    ],
)
def test_a_route_needs_this_role_and_is_recorded_so(
    method: str, path: str, role: Role | None, recorded: Recorded
) -> None:
    assert rule(method, path) == Rule(role, recorded)


def test_only_health_assets_and_signing_in_are_for_everybody_of_all_routes_there_are(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        open_ = {path for method, path in site.routes if rule(method, path).role is None}
        unrecorded = {path for method, path in site.routes if method in READING and not rule(method, path).recorded}
    signing_in = {"/sign-in", "/sign-in/return"}
    assert open_ == {"/healthz", "/assets/{name}", "/sign-in/provider", "/sign-out"} | signing_in
    unseen = {"/healthz", "/metrics", "/events", "/assets/{name}", "/viewer", "/viewer/", "/viewer/{name}"}
    assert (
        unrecorded
        == unseen | {"/api/v1/openapi.json", "/api/v1/peers", "/", "/storage", "/refusals", "/session"} | signing_in
    )


def test_every_operation_that_changes_something_is_for_operators() -> None:
    assert {rule(each.method, "/api/v1" + each.path).role for each in OPERATIONS if each.method == "POST"} == {OPERATE}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine_is_told(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "", "127.0.0.1.example", "localhost.example", "gateway"])
def test_other_machines_are_told(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("has_tls", "has_users", "begins"),
    [
        (False, True, "RELAY_HTTP_HOST=10.1.2.3 is reached from other machines, which needs HTTPS: set RELAY_TLS"),
        (True, False, "RELAY_HTTP_HOST=10.1.2.3 is reached from other machines, and nobody is known who may log in: "),
    ],
)
def test_another_address_needs_https_and_users(has_tls: bool, has_users: bool, begins: str) -> None:
    assert start_refusal("10.1.2.3", has_tls=has_tls, has_users=has_users).startswith(begins)
    assert start_refusal("10.1.2.3", has_tls=True, has_users=True) == ""
    assert start_refusal("127.0.0.1", has_tls=has_tls, has_users=has_users) == ""


@pytest.mark.parametrize(
    ("origin", "fetch_site", "foreign"),
    [
        (None, None, False),  # a program
        ("https://here:8042", "same-origin", False),
        ("https://gateway.example", "same-origin", False),  # a proxy in front is called by another name
        ("https://here:8042", None, False),
        (None, "none", False),  # typed into the address line
        ("https://here:8043", None, True),
        ("https://elsewhere", "cross-site", True),
        ("null", None, True),
        (None, "cross-site", True),
        ("https://here:8042", "same-site", True),
        ("https://viewer.example", "cross-site", False),  # allowed by name
    ],
)
def test_a_page_of_another_site_is_told(origin: str | None, fetch_site: str | None, foreign: bool) -> None:
    allowed = frozenset({"https://viewer.example"})
    assert foreign_origin(origin, fetch_site, own="https://here:8042", allowed=allowed) is foreign
