"""How an operator writes the address of another DICOM application."""

import pytest

from gateway.remote_ae import Peer


@pytest.mark.parametrize(
    ("text", "peer"),
    [("A=h:104", Peer("A", "h", 104)), (" SITE PACS = [::1]:11112", Peer("SITE PACS", "::1", 11112))],
)
def test_a_peer_is_read(text: str, peer: Peer) -> None:
    assert Peer.parse(text, "=") == peer


@pytest.mark.parametrize(
    "text", ["", "A", "A=h", "A=h:0", "A=h:x", "A=:104", "=h:104", "A" * 17 + "=h:104", "A=h:99999"]
)
def test_what_is_no_peer_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"AET=host:port|AE title"):
        Peer.parse(text, "=")
