import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.hybrid.errors import Trouble, closed, pause, refused_connect, refused_listen
from relay.hybrid.protocol import (
    Accept,
    Endpoint,
    FrameReader,
    HybridRequest,
    Pointer,
    Token,
    Unreadable,
    endpoint,
    reject_url,
    renew_token,
    response,
    sign,
)

AT = "wss://g1.example.net/$hc/actions?sb-hc-action=accept&sb-hc-id=1"


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ("site.servicebus.windows.net", Endpoint("wss://site.servicebus.windows.net", "actions")),
        (" wss://site.example:444/ ", Endpoint("wss://site.example:444", "actions")),
        ("ws://127.0.0.1:8080", Endpoint("ws://127.0.0.1:8080", "actions")),
        ("ws://localhost:8080", Endpoint("ws://localhost:8080", "actions")),
    ],
)
def test_a_namespace_is_a_host_name_or_a_service_on_this_machine(namespace: str, expected: Endpoint) -> None:
    assert endpoint(namespace, "/actions ") == expected


@pytest.mark.parametrize("namespace", ["", "https://site", "ws://site.example", "site/path", "wss://", "ws://10.0.0.1"])
def test_any_other_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(ValueError, match=r"namespace|encrypted"):
        endpoint(namespace, "actions")


def test_a_hybrid_connection_needs_a_name() -> None:
    with pytest.raises(ValueError, match="empty"):
        endpoint("site", " / ")


def test_addresses_are_those_of_the_service() -> None:
    at = endpoint("site.example", "a b")
    assert at.listen_url("x y") == "wss://site.example/$hc/a%20b?sb-hc-action=listen&sb-hc-id=x+y"
    assert at.connect_url() == "wss://site.example/$hc/a%20b?sb-hc-action=connect"
    assert at.audience == "http://site.example/a b"
    assert reject_url("ws://h/?a=1", 503, "too busy") == (
        "ws://h/?a=1&sb-hc-statusCode=503&sb-hc-statusDescription=too+busy"
    )


def test_a_token_is_the_signature_that_the_service_computes() -> None:
    # HMAC-SHA256 of "http%3A%2F%2Fsite.example%2Factions\n2000000000" under the text "secret", by openssl dgst.
    assert sign("http://site.example/actions", "listen key", "secret", expires_at=2_000_000_000) == Token(
        "SharedAccessSignature sr=http%3A%2F%2Fsite.example%2Factions"
        "&sig=niq8PFCz5KkoH76gV62pz5NZCgDOHFQ2f3S1r4UoA5s%3D&se=2000000000&skn=listen+key",
        2_000_000_000,
    )


def test_a_token_does_not_show_in_a_log() -> None:
    assert repr(Token("secret", 1)) == "Token(expires_at=1)"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"accept": {"address": AT, "id": "1", "connectHeaders": {}, "new": 1}}, Accept("1", AT)),
        ({"request": {"address": AT}}, Pointer(AT)),
        (
            {
                "request": {
                    "address": AT,
                    "id": "1",
                    "method": "GET",
                    "requestTarget": "/a?b",
                    "requestHeaders": {"X": "y"},
                }
            },
            HybridRequest("1", AT, "GET", "/a?b", {"X": "y"}),
        ),
        ({"accept": {"address": "ftp://h/", "id": "1"}}, Unreadable("an accept has no usable address")),
        ({"accept": {"id": "1"}}, Unreadable("a control message is none of accept and request (it has 1 keys)")),
        ({"request": {"id": "1"}}, Unreadable("a request lacks its address, id, method or target")),
        ([1], Unreadable("a control message is not a JSON object")),
    ],
)
def test_a_control_message_announces(frame: object, expected: object) -> None:
    assert FrameReader().text(json.dumps(frame)) == [expected]


def test_a_request_is_announced_once_its_body_is_here() -> None:
    reader = FrameReader()
    head = {"address": AT, "id": "1", "method": "POST", "requestTarget": "/", "body": True}
    assert reader.text(json.dumps({"request": head})) == []
    assert reader.binary(b"body") == [HybridRequest("1", AT, "POST", "/", {}, b"body")]
    assert reader.binary(b"body") == [Unreadable("a binary message came that no request announced")]


def test_a_request_whose_body_does_not_follow_is_reported_and_forgotten() -> None:
    reader = FrameReader()
    head = {"address": AT, "id": "1", "method": "POST", "requestTarget": "/", "body": True}
    reader.text(json.dumps({"request": head}))
    assert reader.text(json.dumps({"accept": {"address": AT, "id": "2"}})) == [
        Unreadable("the body that a request announced did not follow it"),
        Accept("2", AT),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([AT, "ws://[", "GET"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["accept", "request", "address", "id", "method", "requestTarget", "requestHeaders", "body"])
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.lists(st.text() | st.binary() | JSON.map(json.dumps), max_size=5))
@example(["[" * 100_000])
@example(['{"accept": {"address": "ws://[", "id": "1"}}'])
def test_nothing_that_comes_can_make_the_reader_fail(messages: list[str | bytes]) -> None:
    reader = FrameReader()
    for message in messages:
        found = reader.binary(message) if isinstance(message, bytes) else reader.text(message)
        assert all(isinstance(one, Accept | HybridRequest | Pointer | Unreadable) for one in found)


def test_what_cannot_be_read_is_never_quoted() -> None:
    assert "Jane" not in str(FrameReader().text('{"Jane": "Doe"}') + FrameReader().text("Jane Doe"))


def test_frames_to_the_service() -> None:
    assert json.loads(renew_token(Token("t", 1))) == {"renewToken": {"token": "t"}}
    assert json.loads(response("1", 200, headers={"A": "b"}, has_body=True)) == {
        "response": {"requestId": "1", "statusCode": 200, "responseHeaders": {"A": "b"}, "body": True}
    }


@pytest.mark.parametrize(
    ("trouble", "code", "lasting"),
    [
        (refused_listen(401), "token_refused", True),
        (refused_listen(403), "not_allowed", True),
        (refused_listen(404), "no_such_entity", True),
        (refused_connect(404), "no_listener", False),
        (refused_connect(401), "token_refused", True),
        (refused_listen(408), "no_answer", False),
        (refused_listen(410), "gone", False),
        (refused_listen(429), "throttled", False),
        (refused_listen(500), "service_trouble", False),
        (refused_listen(503), "busy", False),
        (refused_listen(504), "no_answer", False),
        (refused_listen(418), "refused", False),
        (closed(1000), "closed", False),
        (closed(1001), "gone", False),
        (closed(None), "cut", False),
        (closed(1006), "cut", False),
        (closed(1008), "token_refused", False),
        (closed(1008, "ExpiredToken: x"), "token_expired", False),
        (closed(1011, "ExpiredToken: x"), "token_expired", False),
        (closed(1011), "service_trouble", False),
        (closed(4000), "closed", False),
    ],
)
def test_each_code_has_its_own_meaning(trouble: Trouble, code: str, lasting: bool) -> None:
    assert (trouble.code, trouble.lasting, trouble.text.endswith(".")) == (code, lasting, True)


def test_pauses_grow_and_then_repeat() -> None:
    delays, passing = (0.0, 1.0, 2.0, 30.0), Trouble("cut", "")
    assert [pause(delays, attempt, passing, jitter=0.5) for attempt in range(6)] == [0, 1, 2, 30, 30, 30]


def test_what_somebody_has_to_mend_is_tried_slowly_from_the_start() -> None:
    delays, lasting = (0.0, 1.0, 2.0, 30.0), Trouble("token_refused", "", lasting=True)
    assert [pause(delays, 0, lasting, jitter=jitter) for jitter in (0.0, 1.0)] == [30, 60]


def test_operations_says_what_each_code_means_and_what_to_do() -> None:
    root = Path(__file__).parents[3]
    codes = {
        code
        for module in (root / "relay" / "hybrid").glob("*.py")
        for code in re.findall(r'Trouble\(\s*"([a-z_]+)"', module.read_text())
    }
    table = (root / "OPERATIONS.md").read_text().partition("## The link to the cloud")[2].partition("\n## ")[0]
    assert {"dns", "deaf", "not_proven"} <= codes
    assert {code for code in codes if f"`{code}`" not in table} == set()
