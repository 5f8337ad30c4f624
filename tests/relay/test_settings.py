"""The relay's settings: nothing configured is a working site without a cloud; half a configuration is refused."""

from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.settings import load
from relay.settings import RelaySettings, revealed

LINK = {
    "AZURE_RELAY_NAMESPACE": "site.servicebus.windows.net",
    "AZURE_RELAY_HYBRID_CONNECTION": "actions",
    "AZURE_RELAY_EVENTS_HYBRID_CONNECTION": "events",
    "AZURE_RELAY_KEY_NAME": "gateway",
    "AZURE_RELAY_SHARED_ACCESS_KEY": "c2VjcmV0",
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of the checkout


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: str) -> RelaySettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load(RelaySettings)


def test_without_any_variable_the_relay_serves_a_site_that_has_no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch)
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8042)
    assert (settings.destinations, settings.listens) == ((), False)
    assert settings.worklist_db_path == Path("data/worklist.db")
    assert settings.pacs_db_path == Path("data/pacs.db")
    assert settings.pacs_storage_path == Path("data/instances")


def test_a_whole_link_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, RELAY_DESTINATION="hybrid", **LINK)
    assert settings.listens
    assert revealed(settings.shared_access_key) == "c2VjcmV0"
    assert "c2VjcmV0" not in repr(settings)


def test_the_databases_are_where_their_owners_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, GATEWAY_DATA_DIR="/srv", PACS_DB_PATH="/fast/index.db")
    assert (settings.worklist_db_path, settings.pacs_db_path) == (Path("/srv/worklist.db"), Path("/fast/index.db"))


@pytest.mark.parametrize(
    ("variables", "sentences"),
    [
        (
            {"RELAY_DESTINATION": "https"},
            [
                "RELAY_API_URL is not set; RELAY_DESTINATION=https needs it.",
                "RELAY_API_TOKEN is not set; RELAY_DESTINATION=https needs it.",
            ],
        ),
        (
            {**LINK, "RELAY_DESTINATION": "hybrid", "AZURE_RELAY_EVENTS_HYBRID_CONNECTION": ""},
            ["AZURE_RELAY_EVENTS_HYBRID_CONNECTION is not set; RELAY_DESTINATION=hybrid needs it."],
        ),
        (
            {"AZURE_RELAY_NAMESPACE": "site.servicebus.windows.net", "AZURE_RELAY_HYBRID_CONNECTION": "actions"},
            [
                "AZURE_RELAY_KEY_NAME is not set; a site that the cloud calls needs it.",
                "AZURE_RELAY_SHARED_ACCESS_KEY is not set; a site that the cloud calls needs it.",
            ],
        ),
        (
            {
                "AZURE_RELAY_NAMESPACE": "site.servicebus.windows.net",
                "AZURE_RELAY_CREDENTIAL": "certificate",
                "AZURE_TENANT_ID": "t",
            },
            [
                "AZURE_CLIENT_ID is not set; a site that the cloud calls needs it.",
                "AZURE_CLIENT_CERTIFICATE is not set; a site that the cloud calls needs it.",
                "AZURE_RELAY_HYBRID_CONNECTION is not set; a site that the cloud calls needs it.",
            ],
        ),
        (
            {"RELAY_DESTINATION": "servicebus", "AZURE_SERVICEBUS_QUEUE": "events"},
            [
                "AZURE_SERVICEBUS_NAMESPACE is not set; RELAY_DESTINATION=servicebus needs it or"
                " AZURE_SERVICEBUS_CONNECTION_STRING."
            ],
        ),
    ],
)
def test_half_a_configuration_is_refused_by_the_names_of_its_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentences: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(monkeypatch, **variables)
    assert str(caught.value).splitlines() == sentences


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AZURE_RELAY_NAMESPACE", "ws://site.example"),
        ("RELAY_API_URL", "http://programme.example/api/v1"),
        ("RELAY_DESTINATION", "carrier pigeon"),
        ("RELAY_DESTINATION", "https,https"),
        ("RELAY_RATES", "images=fast"),
        ("RELAY_RATES", "status=1k"),
        ("RELAY_BUDGETS", "images@25:00-07:00=1M"),
        ("RELAY_BUDGETS", "images@07:00-07:00=1M"),
        ("RELAY_HEARTBEAT_SECONDS", "3600"),
        ("RELAY_CLOUD_TIMEZONE", "Middle/Earth"),
        ("AZURE_RELAY_LISTENERS", "5"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}="):
        loaded(monkeypatch, **{variable: value})


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^RELAY_PROXY cannot be used") as caught:
        loaded(monkeypatch, RELAY_PROXY="socks://name:hunter2@proxy:1080")
    assert "hunter2" not in str(caught.value)


def test_who_may_come_in_is_read_as_values(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch,
        RELAY_CORS_ORIGINS="https://viewer.example, https://VIEWER.example:8443",
        RELAY_OIDC_ISSUER="https://idp.example/realm",
        RELAY_OIDC_AUDIENCE="gateway",
        RELAY_OIDC_ROLES="mammo-staff=viewer, cn=it=admin",
        PACS_PEERS="SITE_PACS=10.0.0.1:104, WORKSTATION=10.0.0.2:104/tls",
    )
    assert settings.cors_origins == ("https://viewer.example", "https://viewer.example:8443")
    assert settings.oidc_roles == (("mammo-staff", "viewer"), ("cn=it", "admin"))
    assert settings.peers == ("SITE_PACS", "WORKSTATION")
    assert (settings.users_path, settings.audit_path) == (Path("data/users.json"), Path("data/audit"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("RELAY_CORS_ORIGINS", "*"), ("RELAY_CORS_ORIGINS", "https://viewer.example/"),
     ("RELAY_CORS_ORIGINS", "viewer.example"),
     ("RELAY_OIDC_ISSUER", "http://idp.example"), ("RELAY_OIDC_ISSUER", "idp"), ("RELAY_OIDC_ROLES", "staff=god"),
     ("RELAY_OIDC_ROLES", "viewer"), ("RELAY_HTTP_RATE", "-1"), ("RELAY_IDLE_MINUTES", "0"),
     ("RELAY_IDLE_MINUTES", "1000")],
)  # fmt: skip
def test_what_would_let_in_the_wrong_ones_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}=.* cannot be used"):
        loaded(monkeypatch, **{name: value})


def test_a_client_of_an_identity_provider_needs_to_know_which(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^RELAY_OIDC_ISSUER is not set; RELAY_OIDC_CLIENT_ID needs it"):
        loaded(monkeypatch, RELAY_OIDC_CLIENT_ID="gateway")
