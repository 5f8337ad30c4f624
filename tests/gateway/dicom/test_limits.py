"""Who is let in and how many, by itself and over real associations; ARTIM, idle timer and the drain on stop."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, Verification
from structlog.testing import capture_logs

from gateway.dicom.admission import OWN_TITLE, Slot, rejection
from gateway.dicom.application import Application, ListenerLimits
from gateway.dicom.listener import Listener
from gateway.dicom.negotiation import AssociateRequest, ProposedContext, Rejection
from gateway.remote_ae import Caller
from tests.gateway.dicom.test_listener import (
    FAR_BELOW_ARTIM,
    SYNTAXES,
    Memory,
    everything,
    image,
    raw_connection,
)
from tests.gateway.dicom.test_negotiation import CT, EXPLICIT
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

STORE = AssociateRequest(
    called_ae_title="SCREENING_PACS",
    calling_ae_title="MAMMO_1",
    application_context="1.2.840.10008.3.1.1.1",
    contexts=(ProposedContext(1, CT, (EXPLICIT,)),),
    max_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="",
    roles=(),
)
ECHO = replace(STORE, contexts=(ProposedContext(1, str(Verification), (EXPLICIT,)),))
BOTH = replace(STORE, contexts=(*STORE.contexts, ProposedContext(3, str(Verification), (EXPLICIT,))))
LISTED = [Caller.parse("MAMMO_1@10.0.1.0/24"), Caller.parse("MAMMO_1@10.0.2.7"), Caller.parse("MAMMO_2")]


def decided(request: AssociateRequest, address: str, *taken: Slot, callers: list[Caller] = LISTED) -> Rejection | None:
    limits = ListenerLimits(associations=3, associations_per_peer=2, echoes=1)
    return rejection(
        request, address, at="10.0.1.200", ae_title="SCREENING_PACS", callers=callers, limits=limits, taken=taken
    )


ASKED = [
    (STORE, "10.0.1.200", None),
    (STORE, "10.0.2.7", None),
    (replace(STORE, calling_ae_title="MAMMO_2"), "192.168.9.9", None),
    (replace(STORE, protocol_version=3), "10.0.1.200", None),
    (
        STORE,
        "10.0.2.8",
        Rejection(
            1, 1, 3, "'MAMMO_1' may call from 10.0.1.0/24 or 10.0.2.7/32 only (GATEWAY_CALLING_AETS), and not from "
            "10.0.2.8.",
        ),
    ),
    (
        replace(STORE, calling_ae_title="OTHER"),
        "10.0.1.200",
        Rejection(1, 1, 3, "'OTHER' is not in GATEWAY_CALLING_AETS; add it if this modality may connect."),
    ),
    (
        replace(ECHO, calling_ae_title="OTHER"),
        "10.0.1.200",
        Rejection(1, 1, 3, "'OTHER' is not in GATEWAY_CALLING_AETS; add it if this modality may connect."),
    ),
    (
        replace(STORE, called_ae_title="ELSE"),
        "10.0.1.200",
        Rejection(1, 1, 7, "The peer called 'ELSE', but this is 'SCREENING_PACS': set it on the modality."),
    ),
    (
        replace(STORE, application_context="1.2.3"),
        "10.0.1.200",
        Rejection(1, 1, 2, "The application context '1.2.3' is not DICOM's."),
    ),
    (
        replace(STORE, protocol_version=2),
        "10.0.1.200",
        Rejection(1, 2, 2, "The peer speaks version 2 of the protocol, and not 1."),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "address", "expected"), ASKED)
def test_who_may_come_in(request_: AssociateRequest, address: str, expected: Rejection | None) -> None:
    assert decided(request_, address) == expected


OWN = replace(ECHO, calling_ae_title=OWN_TITLE)
UNLISTED = Rejection(1, 1, 3, f"{OWN_TITLE!r} is not in GATEWAY_CALLING_AETS; add it if this modality may connect.")


@pytest.mark.parametrize(
    ("request_", "address", "expected"),
    [
        (OWN, "10.0.1.200", None),
        (OWN, "10.0.1.201", UNLISTED),
        (replace(BOTH, calling_ae_title=OWN_TITLE), "10.0.1.200", UNLISTED),
    ],
)
def test_the_gateways_own_echo_needs_no_place_on_the_list(
    request_: AssociateRequest, address: str, expected: Rejection | None
) -> None:
    assert decided(request_, address) == expected


def test_without_a_list_anyone_may_call() -> None:
    assert decided(replace(STORE, calling_ae_title="OTHER"), "192.168.9.9", callers=[]) is None


def full(what: str, setting: str) -> Rejection:
    return Rejection(2, 3, 2, f"{what}, which is the limit ({setting}); the peer may try again.")


HERE, THERE, ELSEWHERE = Slot("10.0.1.1", "MAMMO_1"), Slot("10.0.1.2", "MAMMO_2"), Slot("10.0.1.3", "MAMMO_3")
ALL_TAKEN = full("3 associations are open already", "GATEWAY_MAX_ASSOCIATIONS")
PEER = "GATEWAY_MAX_ASSOCIATIONS_PER_PEER"
ROOM = [
    (STORE, [HERE, THERE], None),
    (STORE, [HERE, THERE, ELSEWHERE], ALL_TAKEN),
    (BOTH, [HERE, THERE, ELSEWHERE], ALL_TAKEN),
    (ECHO, [HERE, THERE, ELSEWHERE], None),
    (ECHO, [HERE, THERE, ELSEWHERE, HERE], full("4 associations are open already", "GATEWAY_MAX_ASSOCIATIONS")),
    (STORE, [Slot("10.0.1.1", "OTHER")] * 2, full("2 associations with '10.0.1.1' are open already", PEER)),
    (STORE, [Slot("10.0.1.9", "MAMMO_1")] * 2, full("2 associations with 'MAMMO_1' are open already", PEER)),
    (ECHO, [HERE, HERE], None),
    (STORE, [HERE, THERE, Slot("10.0.1.3", "MAMMO_3", is_echo=True)], None),
    (STORE, [HERE, Slot("10.0.1.1", "MAMMO_1", is_echo=True)], None),
    (STORE, [HERE, THERE, *[Slot("10.0.1.3", "MAMMO_3", is_echo=True)] * 2], ALL_TAKEN),
    (ECHO, [HERE, HERE, HERE], full("3 associations with '10.0.1.1' are open already", PEER)),
]


@pytest.mark.parametrize(("request_", "taken", "expected"), ROOM)
def test_how_many_may_come_in(request_: AssociateRequest, taken: list[Slot], expected: Rejection | None) -> None:
    assert decided(request_, "10.0.1.1", *taken) == expected


@contextmanager
def listening(limits: ListenerLimits, callers: list[Caller] | None = None, **handlers: object) -> Iterator[Listener]:
    application = Application(ae_title="SCREENING_PACS", contexts={CT: SYNTAXES}, **handlers)  # type: ignore[arg-type]
    with Listener(application, host="127.0.0.1", port=0, limits=limits, callers=callers or []) as listener:
        yield listener


@contextmanager
def associated(
    listener: Listener, *classes: str, title: str = "TESTER", address: str = "127.0.0.1"
) -> Iterator[Association]:
    entity = AE(ae_title=title)
    for name in classes:
        entity.add_requested_context(name, list(SYNTAXES))
    association = entity.associate("127.0.0.1", listener.port, ae_title="SCREENING_PACS", bind_address=(address, 0))
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def reasons(logs: Sequence[Mapping[str, object]], event: str) -> list[object]:
    return [line["reason"] for line in logs if line["event"] == event]


def test_an_echo_is_answered_while_every_place_is_taken() -> None:
    with listening(ListenerLimits(associations=2, echoes=1)) as listener, ExitStack() as stack, capture_logs() as logs:
        for _ in range(2):
            assert stack.enter_context(associated(listener, CTImageStorage, Verification)).is_established
        assert not stack.enter_context(associated(listener, CTImageStorage, Verification)).is_established
        assert stack.enter_context(associated(listener, Verification)).send_c_echo().Status == 0x0000
        assert not stack.enter_context(associated(listener, Verification)).is_established
    assert reasons(logs, "association rejected") == [
        "2 associations are open already, which is the limit (GATEWAY_MAX_ASSOCIATIONS); the peer may try again.",
        "3 associations are open already, which is the limit (GATEWAY_MAX_ASSOCIATIONS); the peer may try again.",
    ]


def test_one_machine_that_opens_too_many_leaves_room_for_the_others() -> None:
    with listening(ListenerLimits(associations_per_peer=2)) as listener, ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(associated(listener, CTImageStorage)).is_established
        assert not stack.enter_context(associated(listener, CTImageStorage)).is_established
        other = associated(listener, CTImageStorage, title="OTHER", address="127.0.0.2")
        assert stack.enter_context(other).is_established


def test_a_caller_on_the_list_is_let_in_from_its_own_network_only() -> None:
    callers = [Caller.parse("TESTER@127.0.0.0/8"), Caller.parse("FAR@10.0.0.0/8")]
    with listening(ListenerLimits(), callers) as listener, capture_logs() as logs:
        with associated(listener, Verification) as near:
            assert near.send_c_echo().Status == 0x0000
        with associated(listener, Verification, title="FAR") as far:
            assert not far.is_established
    assert reasons(logs, "association rejected") == [
        "'FAR' may call from 10.0.0.0/8 only (GATEWAY_CALLING_AETS), and not from 127.0.0.1."
    ]


def test_the_offer_and_the_choice_are_logged() -> None:
    with (
        listening(ListenerLimits()) as listener,
        capture_logs() as logs,
        associated(listener, CTImageStorage, "1.2.3.4.5"),
    ):
        pass
    [accepted] = [line for line in logs if line["event"] == "association accepted"]
    facts = ("address", "calling_ae_title", "proposed", "accepted", "refused")
    assert {fact: accepted[fact] for fact in facts} == {
        "address": "127.0.0.1",
        "calling_ae_title": "TESTER",
        "proposed": 2,
        "accepted": ["Explicit VR Little Endian"],
        "refused": ["1.2.3.4.5"],
    }


def test_a_connection_that_asks_for_nothing_ends_with_its_time() -> None:
    with listening(ListenerLimits(artim_seconds=0.3)) as listener, capture_logs() as logs:
        began = time.monotonic()
        with raw_connection(listener) as connection:
            assert everything(connection) == b""
        assert 0.25 < time.monotonic() - began < FAR_BELOW_ARTIM
        wait_until(lambda: not listener._open)
    assert reasons(logs, "association lost") == ["the peer has been silent for too long"]


def test_an_association_that_says_nothing_any_more_ends_and_frees_its_place() -> None:
    limits = ListenerLimits(associations=1, idle_seconds=2.0, echoes=0)  # in which the next one has to speak
    with listening(limits) as listener, capture_logs() as logs, associated(listener, Verification) as silent:
        wait_until(lambda: not listener._open)
        with associated(listener, Verification) as next_one:
            assert next_one.send_c_echo().Status == 0x0000
        silent.abort()
    assert reasons(logs, "association lost") == ["the peer has been silent for too long"]


def test_a_stop_takes_nobody_new_and_lets_the_object_under_way_end() -> None:
    go_on = threading.Event()
    memory = Memory(go_on=go_on)
    with (
        listening(ListenerLimits(), handle_store=memory) as listener,
        associated(listener, CTImageStorage) as peer,
        ThreadPoolExecutor() as pool,
    ):
        sent = pool.submit(peer.send_c_store, image(3_000_000))
        assert memory.busy.wait(PATIENCE_SECONDS)
        stopped = pool.submit(listener.stop, grace_seconds=PATIENCE_SECONDS)
        wait_until(lambda: refuses(listener))
        assert not stopped.done()
        go_on.set()
        assert sent.result(PATIENCE_SECONDS).Status == 0x0000
        stopped.result(PATIENCE_SECONDS)
    assert len(memory.kept) == 1


def refuses(listener: Listener) -> bool:
    try:
        raw_connection(listener).close()
    except ConnectionRefusedError:
        return True
    return False
