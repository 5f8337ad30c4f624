"""A site that other machines reach: refused until it is safe, then by HTTPS and with a name, proven by its check."""

import base64
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.site import Site
from tests.journeys.test_start import run
from tests.tools.certificates import authority, issued

PASSWORD = "correct horse battery"


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[Site]:
    """A site that shall listen everywhere, with a certificate, and of which nothing runs."""
    certificate, key = issued("gateway", authority()).write(tmp_path, "site")
    settings = {
        "RELAY_HTTP_HOST": "0.0.0.0", "RELAY_DESTINATION": "none",
        "RELAY_TLS_CERTIFICATE": str(certificate), "RELAY_TLS_KEY": str(key),
    }  # fmt: skip
    with Site(tmp_path, settings=settings) as site:
        yield site


def gateway(site: Site, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], input=typed, capture_output=True, text=True, timeout=60,
        env=site.environment(), cwd=site.folder, check=False,
    )  # fmt: skip


def status(site: Site, path: str, password: str = "") -> int:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://127.0.0.1:{site.ports['relay']}{path}")
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"anna:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"RELAY_TLS_CERTIFICATE": "", "RELAY_TLS_KEY": ""},
            "RELAY_HTTP_HOST=0.0.0.0 is reached from other machines, which needs HTTPS: set RELAY_TLS_CERTIFICATE and "
            "RELAY_TLS_KEY (or GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY), or RELAY_HTTP_HOST=127.0.0.1.",
        ),
        (
            {},
            "RELAY_HTTP_HOST=0.0.0.0 is reached from other machines, and nobody is known who may log in: 'gateway "
            "users add NAME --role admin', or set RELAY_OIDC_ISSUER, or RELAY_HTTP_HOST=127.0.0.1.",
        ),
        (
            {"RELAY_TLS_KEY": ""},
            "RELAY_TLS_KEY is not set, but the other one of the two is; HTTPS needs certificate and key.",
        ),
        ({"RELAY_OIDC_ISSUER": "https://idp.example"}, "RELAY_OIDC_AUDIENCE is not set; RELAY_OIDC_ISSUER needs it."),
    ],
)
def test_the_relay_does_not_start_where_others_would_see_patients(
    certified: Site, settings: dict[str, str], sentence: str
) -> None:
    done = run(certified, "relay", **settings)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines() == ["Cannot start, the settings are wrong:", sentence]


def test_with_a_certificate_and_a_user_it_serves_and_the_check_and_the_trail_prove_it(certified: Site) -> None:
    assert gateway(certified, "users", "add", "anna", "--role", "admin", typed=f"{PASSWORD}\n").returncode == 0
    with certified as site:
        site.start("worklist", "pacs", "relay")
        assert [status(site, path) for path in ("/", "/dicom-web/studies", "/api/v1/studies")] == [401, 401, 401]
        assert [status(site, path, PASSWORD) for path in ("/board", "/api/v1/studies")] == [200, 200]
        assert status(site, "/", "wrong password") == 401
        checked = gateway(site, "check", "--local", "--json")
        states = {hop["name"]: hop["state"] for hop in json.loads(checked.stdout)}
        assert (states["relay answers"], states["DICOMweb is searched"]) == ("ok", "ok")
        said = site.log("relay")
    listed = json.loads(gateway(certified, "audit", "list", "--json").stdout)
    told = [(each["event"], each["user"]) for each in listed if each["chain"] == "relay"]
    assert [event for event, _ in told][1] == "Application Activity / Application Start"
    assert told[2:5] == [
        ("User Authentication / Login", "anna"),
        ("Query", "anna"),
        ("Query", "anna"),
    ]
    assert ("User Authentication / Login", "anna") in told[5:]
    assert ("Query", "gateway-check") in told
    assert "Application Activity / Application Stop" in {event for event, _ in told}
    others = {(each["chain"], each["event"]) for each in listed if each["chain"] != "relay"}
    assert others == {
        ("pacs", "Application Activity / Application Start"),
        ("pacs", "Application Activity / Application Stop"),
        ("worklist", "Application Activity / Application Start"),
        ("worklist", "Query"),
        ("worklist", "Application Activity / Application Stop"),
    }
    assert gateway(certified, "audit", "verify").returncode == 0
    assert "audit trail is at" in said
    assert PASSWORD not in said
