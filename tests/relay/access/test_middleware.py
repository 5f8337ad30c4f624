"""The door against real clients: who comes in, who does not, and what the trail has of it."""

import base64
import http.client
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from gateway.audit.trail import Trail, lines, verified
from gateway.tls import TlsFiles
from gateway.tls_reload import ServerTls
from pacs import Archive, ForwardQueue
from relay.access.audit import Recorder, patient_ids
from relay.access.middleware import AccessControl, AccessPolicy
from relay.access.permissions import Role
from relay.access.rate_limits import Buckets, Guessing
from relay.access.users import CHECK, OwnToken, Passwords, UserFile, account
from tests.relay import served
from tests.relay.served import NOW, STUDY, Answer, Site, first_study, item
from tests.tools.certificates import authority, issued
from tests.tools.clock import Clock
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

PASSWORD = "correct horse battery"
ROLES = {"vera": Role.VIEWER, "otto": Role.OPERATOR, "anna": Role.ADMIN}
ORIGIN = "https://viewer.hospital.example"
IMAGE = f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1"


def door_in(folder: Path, **changed: object) -> Callable[[Archive], AccessControl]:
    """A door with three users, unless it is changed; scrypt is made cheap."""
    users = UserFile(folder / "users.json")
    for name, role in ROLES.items():
        users.add(account(name, role, PASSWORD, n=2**10))

    def access(archive: Archive) -> AccessControl:
        own = OwnToken(folder / "relay-token")
        own.write()
        recorder = Recorder(Trail(folder / "audit"), site="Van 7", clock=lambda: NOW)
        made = AccessControl(
            AccessPolicy(False, frozenset({ORIGIN})), Passwords(users), recorder, own, patient_ids(archive)
        )
        return replace(made, **changed)  # type: ignore[arg-type]

    return access


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    folder = tmp_path_factory.mktemp("guarded")
    with served.site(folder, first_study(), [item()], access=door_in(folder)) as site:
        yield site, folder


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def ask(site: Site, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
    connection.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    connection.close()
    return answer


def told(answer: Answer) -> tuple[int, str]:
    content = answer.json()
    assert isinstance(content, dict)
    return answer.status, str(content["code"])


def trail(folder: Path, since: int = 0) -> list[dict[str, object]]:
    """What the trail says, in the words of the standard: event, outcome, user, address, objects."""
    found = []
    for line in list(lines(Trail(folder / "audit")))[since:]:
        root = fromstring(line.message)
        event = root.find("EventIdentification")
        who = next(each for each in root.iter("ActiveParticipant") if each.get("UserIsRequestor") == "true")
        found.append(
            {
                "event": [each.get("originalText") for each in event or ()],
                "outcome": event.get("EventOutcomeIndicator") if event is not None else None,
                "who": f"{who.get('UserID')}@{who.get('NetworkAccessPointID')}",
                "objects": [each.get("ParticipantObjectID") for each in root.iter("ParticipantObjectIdentification")],
            }
        )
    return found


# ---- who comes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/studies/2.25.100", "/dicom-web/studies", IMAGE, "/api/v1/studies", "/nothing"])
def test_nobody_comes_in_without_a_name(guarded: tuple[Site, Path], path: str) -> None:
    answer = ask(guarded[0], path)
    assert told(answer) == (401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="screening-gateway", charset="UTF-8"'


@pytest.mark.parametrize("path", ["/healthz", "/assets/app.css"])
def test_health_and_assets_are_for_everybody(guarded: tuple[Site, Path], path: str) -> None:
    assert ask(guarded[0], path).status == 200


@pytest.mark.parametrize("name", ROLES)
def test_every_role_may_look(guarded: tuple[Site, Path], name: str) -> None:
    answers = [
        ask(guarded[0], path, **basic(name)).status for path in ("/", "/dicom-web/studies", IMAGE, "/api/v1/changes")
    ]
    assert answers == [200, 200, 200, 200]


@pytest.mark.parametrize(
    ("name", "method", "status"),
    [
        ("vera", "POST", 403),
        ("otto", "POST", 202),
        ("anna", "POST", 202),
        ("otto", "DELETE", 403),
        ("anna", "DELETE", 405),
    ],
)
def test_acting_needs_an_operator_and_deleting_an_admin(
    guarded: tuple[Site, Path], name: str, method: str, status: int
) -> None:
    path = f"/api/v1/studies/{STUDY}/send"
    answer = ask(guarded[0], path, method=method, body=b'{"to": "SITE_PACS"}', **basic(name))
    assert answer.status == status
    if status == 403:
        assert answer.json()["message"].startswith(f"This needs the role {'operator' if method == 'POST' else 'admin'}")


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic ", "Basic !!!", "Basic /////w==", "Basic dmVyYQ==", "Basic dmVyYTo=", "Basic Og==", "Bearer abc",
     "Digest x", "Basic " + "A" * 7000, "basic " + base64.b64encode(b"nobody:" + PASSWORD.encode()).decode()],
)  # fmt: skip
def test_what_is_no_good_credential_lets_nobody_in(tmp_path: Path, header: str) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        assert told(ask(site, "/api/v1/peers", Authorization=header))[0] == 401


def test_a_user_who_is_removed_or_gets_another_password_is_out_at_once(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        users = UserFile(tmp_path / "users.json")
        assert [ask(site, "/api/v1/peers", **basic(name)).status for name in ("vera", "otto")] == [200, 200]
        users.remove("vera")
        users.replace(account("otto", Role.OPERATOR, "another password", n=2**10))
        assert [ask(site, "/api/v1/peers", **basic(name)).status for name in ("vera", "otto")] == [401, 401]
        assert ask(site, "/api/v1/peers", **basic("otto", "another password")).status == 200
        (tmp_path / "users.json").write_text("{")
        assert ask(site, "/api/v1/peers", **basic("otto", "another password")).status == 500  # closed, not open


def test_guessing_is_slowed_down_and_those_who_are_in_stay_in(tmp_path: Path) -> None:
    clock = Clock()
    with served.site(tmp_path, access=door_in(tmp_path, guessing=Guessing(clock=clock))) as site:
        assert ask(site, "/api/v1/peers", **basic("vera")).status == 200
        tried = [told(ask(site, "/api/v1/peers", **basic("anna", f"wrong password {n}"))) for n in range(6)]
        assert tried == [(401, "not_authenticated")] * 5 + [(429, "too_many_requests")]
        refused = ask(site, "/api/v1/peers", **basic("anna"))
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert ask(site, "/api/v1/peers", **basic("vera")).status == 200
        clock.now += 1
        assert ask(site, "/api/v1/peers", **basic("anna")).status == 200
    assert [(each["outcome"], each["who"]) for each in trail(tmp_path)] == [
        ("0", "vera@127.0.0.1"),
        ("4", "anna@127.0.0.1"),
        ("0", "anna@127.0.0.1"),
    ]


def test_a_viewer_that_begins_with_many_requests_at_once_is_not_taken_for_guessing(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ask(site, "/api/v1/peers", **basic("vera")).status, range(20)))
    assert answers == [200] * 20


def test_the_relays_own_credential_lets_the_check_look_and_nothing_else(guarded: tuple[Site, Path]) -> None:
    site, folder = guarded
    own = (folder / "relay-token").read_text()
    assert stat.S_IMODE((folder / "relay-token").stat().st_mode) == 0o600
    assert ask(site, "/dicom-web/studies?limit=1", **basic(CHECK, own)).status == 200
    answer = ask(site, f"/api/v1/studies/{STUDY}/send", method="POST", body=b"{}", **basic(CHECK, own))
    assert told(answer) == (403, "not_permitted")


# ---- pages of other sites --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
     {"Origin": "https://127.0.0.1"}],
)  # fmt: skip
def test_what_a_page_of_another_site_sends_is_refused(guarded: tuple[Site, Path], headers: Mapping[str, str]) -> None:
    path = f"/api/v1/studies/{STUDY}/send"
    answer = ask(guarded[0], path, method="POST", body=b'{"to": "SITE_PACS"}', **basic("anna"), **headers)
    assert told(answer) == (403, "cross_site")


def test_what_our_own_page_sends_is_taken(guarded: tuple[Site, Path]) -> None:
    own = {"Origin": guarded[0].url, "Sec_Fetch_Site": "same-origin"}
    path = f"/api/v1/studies/{STUDY}/send"
    answer = ask(guarded[0], path, method="POST", body=b'{"to": "SITE_PACS"}', **basic("anna"), **own)
    assert answer.status == 202


def test_what_our_own_page_sends_through_a_proxy_that_speaks_tls_is_taken(guarded: tuple[Site, Path]) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"}
    through = {"Host": "gateway.example", "Origin": "https://gateway.example"}
    answer = ask(guarded[0], "/queue/cloud/now", method="POST", body=b"", **basic("otto"), **form, **through)
    assert answer.status == 303


def test_what_a_page_of_an_allowed_origin_sends_is_taken_by_the_api_and_refused_by_our_pages(
    guarded: tuple[Site, Path],
) -> None:
    theirs = {"Origin": ORIGIN, "Sec_Fetch_Site": "cross-site", **basic("otto")}
    send = f"/api/v1/studies/{STUDY}/send"
    assert ask(guarded[0], send, method="POST", body=b'{"to": "SITE_PACS"}', **theirs).status == 202
    for path in ("/queue/cloud/now", "/queue/pacs/1/release", "/quarantine/1/replace"):
        assert told(ask(guarded[0], path, method="POST", body=b"", **theirs)) == (403, "cross_site")


def test_a_page_of_an_allowed_origin_may_read_and_of_another_may_not(guarded: tuple[Site, Path]) -> None:
    site = guarded[0]
    asking = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "authorization"}
    preflight = ask(site, "/dicom-web/studies", method="OPTIONS", Origin=ORIGIN, **asking)
    assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    answer = ask(site, "/dicom-web/studies", Origin=ORIGIN, **basic("vera"))
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"], answer.headers["Vary"]) == (
        200,
        ORIGIN,
        "Origin",
    )
    for origin in ("https://elsewhere.example", ORIGIN + ".example", ORIGIN.replace("https", "http")):
        assert ask(site, "/dicom-web/studies", method="OPTIONS", Origin=origin, **asking).status == 403
        read = ask(site, "/dicom-web/studies", Origin=origin, **basic("vera"))
        assert "Access-Control-Allow-Origin" not in read.headers
    assert ask(site, "/", method="OPTIONS", Origin=ORIGIN, **asking).status == 403


def test_at_an_open_door_only_names_of_this_machine_are_answered(tmp_path: Path) -> None:
    nobody = Passwords(UserFile(tmp_path / "nobody.json"))
    with served.site(tmp_path, access=door_in(tmp_path, policy=AccessPolicy(True), passwords=nobody)) as site:
        for host in ("127.0.0.1", f"localhost:{site.port}", "[::1]:9000"):
            assert ask(site, "/dicom-web/studies", Host=host).status == 204
        for host in ("rebound.example", "127.0.0.1.example", "10.0.0.1:8042", "", "[", "localhost@evil.example"):
            assert ask(site, "/dicom-web/studies", Host=host).status in {400, 421}
        UserFile(tmp_path / "nobody.json").add(account("vera", Role.VIEWER, PASSWORD, n=2**10))
        assert ask(site, "/dicom-web/studies").status == 401
        assert ask(site, "/dicom-web/studies", **basic("vera")).status == 204


# ---- the trail -------------------------------------------------------------------------------------------------------


def test_everything_that_shows_a_patient_is_in_the_trail(tmp_path: Path) -> None:
    with served.site(tmp_path, first_study(), [item()], access=door_in(tmp_path)) as site:
        for path in (
            "/dicom-web/studies?PatientName=BJ*", IMAGE, IMAGE + "/thumbnail", IMAGE + "/frames/1", "/api/v1/worklist",
            f"/api/v1/instances/{STUDY}.1.2/file", f"/dicom-web/studies/{STUDY}9", "/healthz", "/api/v1/openapi.json",
        ):  # fmt: skip
            ask(site, path, **basic("vera"))
        ask(site, f"/api/v1/studies/{STUDY}/send", method="POST", body=b'{"to": "SITE_PACS"}', **basic("vera"))
        ask(site, f"/api/v1/studies/{STUDY}/send", method="POST", body=b'{"to": "SITE_PACS"}', **basic("otto"))
    vera, images = "vera@127.0.0.1", [STUDY, "9990000018"]
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    restricted = ["Security Alert", "Use of Restricted Function"]
    send = f"/api/v1/studies/{STUDY}/send"
    assert [tuple(each.values()) for each in trail(tmp_path)] == [
        (["User Authentication", "Login"], "0", vera, []),
        (["Query"], "0", vera, [find]),
        (["DICOM Instances Transferred"], "0", vera, images),
        (["DICOM Instances Accessed"], "0", vera, images),
        (["Query"], "0", vera, [find]),
        (["DICOM Instances Transferred"], "4", vera, [STUDY + "9"]),
        (restricted, "4", vera, [send]),
        (["User Authentication", "Login"], "0", "otto@127.0.0.1", []),
        (restricted, "0", "otto@127.0.0.1", [send]),  # begins
        (restricted, "0", "otto@127.0.0.1", [send]),  # was answered
    ]
    assert list(verified(Trail(tmp_path / "audit"))) == []


def test_an_object_that_is_asked_for_by_wado_uri_is_in_the_trail_with_its_study(tmp_path: Path) -> None:
    asked = f"studyUID={STUDY}&seriesUID={STUDY}.1&objectUID={STUDY}.1.1&contentType=application/dicom"
    with served.site(tmp_path, first_study(), access=door_in(tmp_path)) as site:
        for path in ("/dicom-web", "/dicom-web/wado"):
            assert ask(site, f"{path}?requestType=WADO&{asked}", **basic("vera")).status == 200
        assert ask(site, "/metrics", **basic("vera")).status == 200
    given = ["DICOM Instances Transferred"]
    told = [tuple(each.values()) for each in trail(tmp_path)][1:]
    assert told == [(given, "0", "vera@127.0.0.1", [STUDY, "9990000018"])]  # the second time within moments


def test_without_room_for_the_trail_nothing_is_shown_and_health_goes_on(tmp_path: Path) -> None:
    with served.site(tmp_path, first_study(), [item()], access=door_in(tmp_path)) as site:
        assert ask(site, "/dicom-web/studies", **basic("vera")).status == 200
        away = (tmp_path / "audit").rename(tmp_path / "away")
        (tmp_path / "audit").write_text("in the way")
        refused = [
            ask(site, path, **basic("vera"))
            for path in ("/board", IMAGE, IMAGE + "/rendered", f"/api/v1/studies/{STUDY}/archive")
        ]
        assert [told(each) for each in refused] == [(503, "audit_not_written")] * 4
        assert ask(site, "/healthz", **basic("otto", "wrong password")).status == 503  # nor is a login let pass untold
        assert b"BJ" not in b"".join(each.body for each in refused)
        assert site.access is not None
        assert site.access.recorder.trouble.startswith("The audit trail in ")
        assert ask(site, "/healthz").status == 200
        (tmp_path / "audit").unlink()
        away.rename(tmp_path / "audit")
        assert ask(site, IMAGE, **basic("vera")).status == 200
        assert site.access.recorder.trouble == ""
    assert list(verified(Trail(tmp_path / "audit"))) == []


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    path, body = f"/api/v1/studies/{STUDY}/send", b'{"to": "SITE_PACS"}'
    with served.site(tmp_path, first_study(), access=door_in(tmp_path)) as site:
        assert ask(site, "/api/v1/peers", **basic("otto")).status == 200
        (tmp_path / "audit").rename(tmp_path / "away")
        (tmp_path / "audit").write_text("in the way")
        assert told(ask(site, path, method="POST", body=body, **basic("otto"))) == (503, "audit_not_written")
        assert ForwardQueue(site.archive).owed("open") == []
        (tmp_path / "audit").unlink()
        assert ask(site, path, method="POST", body=body, **basic("otto")).status == 202
        assert len(ForwardQueue(site.archive).owed("open")) == 5


# ---- too much, too slow ----------------------------------------------------------------------------------------------


def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path, buckets=Buckets(1, 3, clock=Clock()))) as site:
        answers = [ask(site, "/healthz") for _ in range(5)]
    assert [each.status for each in answers] == [200, 200, 200, 429, 429]
    assert (told(answers[3]), answers[3].headers["Retry-After"]) == ((429, "too_many_requests"), "1")


def raw(site: Site, data: bytes, *, then: bytes = b"", seconds: float = PATIENCE_SECONDS) -> tuple[bytes, float]:
    """Send bytes, then some more every tenth of a second, and say what came back and when the connection ended."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", site.port), timeout=0.1) as connection:
        received = b""
        try:
            connection.sendall(data)
            while time.monotonic() - began < seconds:
                try:
                    piece = connection.recv(65536)
                except TimeoutError:
                    connection.sendall(then)
                    continue
                if not piece:
                    break
                received += piece
        except OSError:
            pass
    return received, time.monotonic() - began


@pytest.mark.parametrize(
    ("data", "then"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"a"),
        (b"G", b""),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: local", b"h"),
    ],
)
def test_a_head_that_dribbles_in_is_not_waited_for(tmp_path: Path, data: bytes, then: bytes) -> None:
    with served.site(tmp_path, access=door_in(tmp_path), idle_seconds=0.4) as site:
        _, seconds = raw(site, data, then=then)
        assert 0.3 < seconds < PATIENCE_SECONDS
        assert site.get("/healthz").status == 200


def test_a_body_that_dribbles_in_is_not_waited_for_and_one_that_comes_slowly_is(tmp_path: Path) -> None:
    path = f"/api/v1/studies/{STUDY}/send"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n"
    head += f"Authorization: {basic('otto')['Authorization']}\r\n\r\n"
    with served.site(tmp_path, first_study(), access=door_in(tmp_path), patience_seconds=2.0) as site:
        received, seconds = raw(site, head.encode(), then=b" ")
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b'"code": "too_slow"' in received
        assert seconds > 1.5
        received, _ = raw(site, head.encode(), then=b" " * 2000)  # two and a half seconds
        assert received.startswith(b"HTTP/1.1 400 ")  # it was read to its end, and is no JSON


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x00" * 4096,
    ],
)
def test_heads_that_are_floods_or_none_are_refused(guarded: tuple[Site, Path], head: bytes) -> None:
    received, _ = raw(guarded[0], head)
    assert received.split(b" ", 2)[1:2] in ([b"400"], [b"431"], [])
    assert guarded[0].get("/healthz").status == 200


@pytest.mark.parametrize(
    "path",
    ["/assets/../../users.json", "/assets/%2e%2e%2fusers.json", "/assets//etc/passwd", "/viewer/../../../etc/passwd",
     "/api/v1/instances/..%2f..%2fusers.json/file", "/api/v1/instances/1.2.3%00/file",
     "/api/v1/instances/1.2.3%0a/file",
     "/api/v1/studies/" + "1." * 3000 + "1", "/api/v1/studies/%EF%BC%91.2/series", "/dicom-web/studies/" + "9" * 65,
     "/healthz/../api/v1/studies", "//api/v1/studies", "/api/v1//studies"],
)  # fmt: skip
def test_paths_that_go_elsewhere_or_are_no_uids_find_nothing(guarded: tuple[Site, Path], path: str) -> None:
    answer = ask(guarded[0], path, **basic("anna"))
    assert answer.status in {400, 404, 414}
    assert b"salt" not in answer.body
    assert b"root:" not in answer.body


def test_a_body_that_is_too_large_is_refused(guarded: tuple[Site, Path]) -> None:
    path = f"/api/v1/studies/{STUDY}/send"
    answer = ask(guarded[0], path, method="POST", body=b'{"to": "' + b"A" * 200_000 + b'"}', **basic("otto"))
    assert told(answer) == (413, "too_large")


# ---- HTTPS -----------------------------------------------------------------------------------------------------------


def https(site: Site, context: ssl.SSLContext, path: str = "/healthz", **headers: str) -> tuple[int, str]:
    """The status, and the fingerprint of the certificate that was shown."""
    connection = http.client.HTTPSConnection("localhost", site.port, timeout=PATIENCE_SECONDS, context=context)
    connection.request("GET", path, headers=headers)
    shown = sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()
    status = connection.getresponse().status
    connection.close()
    return status, shown


def test_https_is_spoken_with_the_certificate_of_today_and_plain_http_is_not(tmp_path: Path) -> None:
    ca = authority()
    first, second = issued("gateway", ca), issued("gateway", ca)
    files = TlsFiles(*first.write(tmp_path, "site"))
    context = ssl.create_default_context(cadata=ca.pem.decode())
    with served.site(tmp_path, first_study(), access=door_in(tmp_path), tls=ServerTls.of_files(files)) as site:
        assert https(site, context) == (200, first.fingerprint)
        assert https(site, context, IMAGE, **basic("vera"))[0] == 200
        received, _ = raw(site, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", seconds=1)
        assert not received.startswith(b"HTTP")
        second.write(tmp_path, "site")
        wait_until(lambda: https(site, context)[1] == second.fingerprint, "the renewed certificate")
