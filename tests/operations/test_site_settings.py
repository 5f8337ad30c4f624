"""Who `gateway check` says it is."""

import pytest

from operations.site_settings import CALLING_AE_TITLE, SiteSettings


@pytest.mark.parametrize(
    ("callers", "host", "title"),
    [
        ("", "0.0.0.0", CALLING_AE_TITLE),
        ("MAMMO_1,MAMMO_2", "0.0.0.0", "MAMMO_1"),
        ("MAMMO_1@10.0.1.7,CHECK@127.0.0.1", "0.0.0.0", "CHECK"),
        ("MAMMO_1@10.0.1.7,CHECK@127.0.0.0/8", "localhost", "CHECK"),
        ("MAMMO_1@10.0.1.7,CHECK@10.0.1.2", "10.0.1.2", "CHECK"),
        ("MAMMO_1@10.0.1.7", "0.0.0.0", CALLING_AE_TITLE),
    ],
)
def test_it_calls_as_the_first_title_that_may_call_from_this_machine(
    monkeypatch: pytest.MonkeyPatch, callers: str, host: str, title: str
) -> None:
    monkeypatch.setenv("GATEWAY_CALLING_AETS", callers)
    monkeypatch.setenv("WORKLIST_HOST", host)

    settings = SiteSettings.load()

    assert settings.calling_ae_title == title
