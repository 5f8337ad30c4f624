"""The link made from settings, and what the health report says of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.errors import SettingsError
from relay.assembly import cloud_link
from relay.health.facts import link_hop
from relay.health.report import report
from relay.hybrid.listener import LinkState
from relay.hybrid.tokens import EntraTokens, SasTokens
from relay.settings import RelaySettings
from tests.relay.health.test_report import facts
from tests.tools.certificates import issued, rsa_key

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
PLACE = {"AZURE_RELAY_NAMESPACE": "site.servicebus.windows.net", "AZURE_RELAY_HYBRID_CONNECTION": "actions"}
APPLICATION = {"AZURE_TENANT_ID": "a1b2c3d4-0000-0000-0000-000000000000", "AZURE_CLIENT_ID": "an-application"}


def settings(**values: object) -> RelaySettings:
    return RelaySettings.model_validate({**PLACE, **values})


async def test_the_settings_choose_the_credential() -> None:
    pem = rsa_pem()
    chosen = [
        settings(AZURE_RELAY_KEY_NAME="site", AZURE_RELAY_SHARED_ACCESS_KEY="k"),
        settings(AZURE_RELAY_CREDENTIAL="managed"),
        settings(AZURE_RELAY_CREDENTIAL="default", proxy="http://proxy:8080"),
        settings(AZURE_RELAY_CREDENTIAL="certificate", AZURE_CLIENT_CERTIFICATE=pem, **APPLICATION),
    ]
    sources = [cloud_link.tokens(each) for each in chosen]
    assert [type(source) for source in sources] == [SasTokens, EntraTokens, EntraTokens, EntraTokens]
    assert pem not in repr(chosen)
    for source in sources:
        await source.close()


def rsa_pem() -> str:
    pair = issued("application", key=rsa_key(2048))
    return (pair.pem + pair.key_pem).decode()


def test_a_certificate_that_is_none_is_refused_without_being_quoted() -> None:
    given = settings(AZURE_RELAY_CREDENTIAL="certificate", AZURE_CLIENT_CERTIFICATE="hunter2", **APPLICATION)
    with pytest.raises(SettingsError, match=r"^AZURE_CLIENT_CERTIFICATE") as caught:
        cloud_link.tokens(given)
    assert "hunter2" not in str(caught.value)


def test_a_list_of_authorities_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name, why in (("gone.pem", "No such file or directory"), ("ca.pem", "it is not PEM")):
        given = settings(AZURE_RELAY_CREDENTIAL="managed", ca_file=tmp_path / name)
        with pytest.raises(SettingsError, match=f"{name} cannot be used: {why}"):
            cloud_link.egress(given)


@pytest.mark.parametrize(
    ("state", "ok", "words"),
    [
        (LinkState(), False, "Not proven since the start"),
        (LinkState(connected_since=NOW), False, "Not proven since the start"),
        (LinkState(connected_since=NOW, last_proven=NOW), True, ""),
        (LinkState(connected_since=NOW, echoes=False), True, "Nothing came from the cloud yet"),
        (LinkState(echoes=False, last_error="Refused.", last_error_at=NOW), False, "Refused."),
        (
            LinkState(connected_since=NOW, echoes=False, last_proven=datetime(2026, 11, 22, 7, 0, tzinfo=UTC)),
            True,
            "Nothing came from the cloud since 2026-11-22T07:00:00.000Z",
        ),
    ],
)
def test_what_is_proven_and_what_is_only_connected_is_told_apart(state: LinkState, ok: bool, words: str) -> None:
    check = report(facts(link_hop(state)), now=NOW).checks["hybrid_connection"]
    assert (check.ok, words in check.detail, bool(check.detail)) == (ok, True, bool(words))


def test_a_site_without_echoes_that_was_just_proven_needs_no_words() -> None:
    state = LinkState(connected_since=NOW, echoes=False, last_proven=NOW)
    assert report(facts(link_hop(state)), now=NOW).checks["hybrid_connection"].detail == ""
