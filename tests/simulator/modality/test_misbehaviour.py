"""The table of misbehaviours proves something: a gateway that takes everything does not pass.

What a good gateway answers is proven against the real processes in `tests/journeys/test_machine.py`.
"""

from collections.abc import Iterator
from datetime import datetime

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    DigitalMammographyXRayImageStorageForPresentation,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from gateway.hops import Hops
from gateway.remote_ae import Peer
from simulator.modality.misbehaviour import TABLE, show
from simulator.modality.misbehaviour_kit import Proof, fits
from simulator.modality.raw_association import Dialer

NOW = datetime(2026, 11, 22, 9, 30, 15).astimezone()


@pytest.mark.parametrize(
    ("expected", "seen", "is_fitting"),
    [
        (("0000", "1 visible"), ["0000", "1 visible"], True),
        (("0000", "1 visible"), ["0000", "0 visible"], False),
        (("0000",), ["0000", "0000"], False),
        (("Cxxx",), ["C111"], True),
        (("Cxxx",), ["0111"], False),
        (("aborted or closed",), ["closed"], True),
        (("aborted or closed",), ["silent"], False),
        (("A9xx or Cxxx",), ["A900"], True),
        (("0120 or 0121",), ["0122"], False),
    ],
)
def test_seen_is_compared_word_by_word(expected: tuple[str, ...], seen: list[str], is_fitting: bool) -> None:
    assert fits(expected, seen) is is_fitting


@pytest.fixture(scope="module")
def lax() -> Iterator[Peer]:
    """A gateway that takes whatever comes, and shows one of whatever it is asked for."""

    def found(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        match = Dataset()
        match.InstanceNumber, match.PatientID = "77", "9990000026"
        yield 0xFF00, match

    ae = AE("LAX")
    for uid in (
        DigitalMammographyXRayImageStorageForPresentation, ModalityPerformedProcedureStep, Verification,
        ModalityWorklistInformationFind, StudyRootQueryRetrieveInformationModelFind,
    ):  # fmt: skip
        ae.add_supported_context(uid, ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_FIND, found),
            (evt.EVT_C_STORE, lambda event: 0x0000),
            (evt.EVT_N_CREATE, lambda event: (0x0000, Dataset())),
            (evt.EVT_N_SET, lambda event: (0x0000, Dataset())),
        ],
    )
    yield Peer("LAX", "127.0.0.1", server.socket.getsockname()[1])
    server.shutdown()


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("truncated", "expected Cxxx, 0 visible; seen 0000, 1 visible."),
        ("hang-up", "expected 0 visible, 0000, 1 visible; seen 1 visible, 0000, 1 visible."),
        ("other-content", "expected 0000, Cxxx, 1 visible, first kept; seen 0000, 0000, 1 visible, first not kept."),
        ("wrong-title", "expected rejected 1/7; seen accepted."),
        ("nonsense-query", "expected A9xx or Cxxx; seen FF00, 0000."),
        ("created-finished", "expected 0106; seen 0000."),
        ("set-unknown", "expected 0112; seen 0000."),
        ("ended-twice", "expected 0000, 0000, 0110; seen 0000, 0000, 0000."),
    ],
)
def test_a_gateway_that_takes_everything_is_found_out(lax: Peer, name: str, seen: str) -> None:
    hops = Hops()
    show(TABLE[name], Proof(Dialer("MAMMO", seconds=5), worklist=lax, pacs=lax, now=NOW), hops)
    assert [(hop.name, hop.state, hop.detail) for hop in hops.seen] == [(name, "failed", f"{TABLE[name].what}; {seen}")]


def test_a_gateway_that_is_not_there_is_found_out() -> None:
    hops, nobody = Hops(), Peer("NOBODY", "127.0.0.1", 1)
    show(TABLE["twice"], Proof(Dialer("MAMMO", seconds=5), worklist=nobody, pacs=nobody, now=NOW), hops)
    assert [(hop.state, hop.detail) for hop in hops.seen] == [
        ("failed", "NOBODY at 127.0.0.1:1 cannot be reached: Connection refused.")
    ]
