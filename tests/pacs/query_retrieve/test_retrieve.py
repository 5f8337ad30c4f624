"""Query and retrieve: the rules by themselves, and the archive with DCMTK, pynetdicom and Orthanc over associations."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, RLELossless
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from structlog.testing import capture_logs

from gateway.dataset.data_sets import decode, encode
from gateway.dicom.application import Progress
from gateway.dicom.dimse import Command
from gateway.dicom.listener import Listener
from gateway.dicom.requestor import ANSWER_SECONDS, MOST_CONTEXTS, proposals
from gateway.errors import InvalidQuery, NotAcceptable
from gateway.remote_ae import Peer
from pacs import Archive
from pacs.archive.identity import Identity
from pacs.archive.index import Index, Receipt
from pacs.commitment.reporter import Reporter
from pacs.images.decompress import LARGEST, converted, decompressed
from pacs.query_retrieve.query import answer, query_level, wanted
from pacs.query_retrieve.retrieve import SendOutcome, after, ended, form, outcome
from pacs.scp import application
from simulator.site import free_port
from tests.pacs.archive.test_archive import archive, image, send
from tests.pacs.test_scp import data_set_bytes
from tests.tools import corpus
from tests.tools.dcmtk import running, with_dcmtk
from tests.tools.raw_peer import RawPeer
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

__all__ = ["archive"]

FIND = str(StudyRootQueryRetrieveInformationModelFind)
PATIENT_FIND = str(PatientRootQueryRetrieveInformationModelFind)
GET = str(StudyRootQueryRetrieveInformationModelGet)
MG = str(image().SOPClassUID)
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
JPEG_LOSSLESS, J2K = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"
STUDY = "2.25.1002"


def identifier(level: str, **keys: object) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


# ---- the rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sop_class", "asked", "sentence"),
    [
        (FIND, identifier("PATIENT"), "QueryRetrieveLevel has to be STUDY, SERIES, IMAGE."),
        (FIND, Dataset(), "QueryRetrieveLevel has to be STUDY, SERIES, IMAGE."),
        (FIND, identifier("SERIES"), "StudyInstanceUID has to have one value at the level SERIES."),
        (FIND, identifier("SERIES", StudyInstanceUID=["1.2", "1.3"]), "StudyInstanceUID has to have one value"),
        (FIND, identifier("IMAGE", StudyInstanceUID="1.2"), "SeriesInstanceUID has to have one value at the level"),
        (PATIENT_FIND, identifier("STUDY", PatientID="A*"), "PatientID has to have one value at the level STUDY."),
        (GET, identifier("STUDY"), "The request came in a presentation context of another service."),
    ],
)
def test_a_query_names_its_level_and_one_value_for_each_above(sop_class: str, asked: Dataset, sentence: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{sentence}"):
        query_level(sop_class, asked, relational=False)


def test_who_negotiated_relational_queries_may_leave_the_levels_above_out() -> None:
    assert query_level(FIND, identifier("IMAGE", InstanceNumber=1), relational=True) == "IMAGE"


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (identifier("STUDY", StudyInstanceUID=["1.2", "1.3"]), {"StudyInstanceUID": ["1.2", "1.3"]}),
        (identifier("IMAGE", SOPInstanceUID="1.5"), {"SOPInstanceUID": "1.5"}),
        (
            identifier("SERIES", StudyInstanceUID="1.2", SeriesInstanceUID="1.4", PatientName="A*"),
            {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.4"},
        ),
    ],
)
def test_a_retrieval_takes_its_unique_keys_and_nothing_else(asked: Dataset, chosen: dict[str, object]) -> None:
    assert {element.keyword: element.value for element in wanted(GET, asked)} == chosen


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (identifier("STUDY"), "StudyInstanceUID has to have a value at the level STUDY."),
        (identifier("STUDY", StudyInstanceUID="*"), "StudyInstanceUID has to be one value without wildcards"),
        (
            identifier("SERIES", StudyInstanceUID=["1.2", "1.3"], SeriesInstanceUID="1.4"),
            "StudyInstanceUID has to be one value without wildcards",
        ),
    ],
)
def test_a_retrieval_that_does_not_say_what_is_refused(asked: Dataset, sentence: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{sentence}"):
        wanted(GET, asked)


@given(outcomes=st.lists(st.sampled_from(SendOutcome), max_size=8), sent=st.integers(0, 8))
def test_counts_add_up_at_every_moment_and_the_status_says_what_they_say(
    outcomes: list[SendOutcome], sent: int
) -> None:
    instances = [image_of(number) for number in range(len(outcomes))]
    progress = Progress(remaining=len(outcomes))
    for number, each in enumerate(outcomes[:sent]):
        progress = after(progress, f"2.25.{number}", each)
        counted = progress.completed + progress.warning + len(progress.failed_uids)
        assert progress.remaining + counted == len(outcomes)
    last = ended(progress, instances)  # type: ignore[arg-type]
    failed = [f"2.25.{n}" for n, each in enumerate(outcomes) if n >= sent or each is SendOutcome.FAILED]
    assert (last.remaining, list(last.failed_uids)) == (0, failed)
    all_taken = not failed and SendOutcome.WARNING not in outcomes
    none_taken = bool(outcomes) and len(failed) == len(outcomes)
    assert last.status == (0x0000 if all_taken else 0xA702 if none_taken else 0xB000)


class image_of:  # noqa: N801  all that `ended` looks at
    def __init__(self, number: int) -> None:
        self.sop_instance_uid = f"2.25.{number}"


@pytest.mark.parametrize(
    ("stored", "accepted", "sent_as"),
    [
        (J2K, {EXPLICIT, J2K}, J2K),
        (J2K, {IMPLICIT, EXPLICIT}, EXPLICIT),
        (EXPLICIT, {IMPLICIT, J2K}, IMPLICIT),
    ],
)
def test_an_object_is_sent_as_stored_if_the_peer_takes_that(stored: str, accepted: set[str], sent_as: str) -> None:
    assert form(stored, frozenset(accepted)) == sent_as


def test_nothing_is_compressed_for_a_peer() -> None:
    with pytest.raises(NotAcceptable):
        form(EXPLICIT, frozenset({J2K}))


def test_what_a_response_means() -> None:
    statuses = [0x0000, 0xB000, 0xB007, 0xA700, 0xC123, 0x0122, None]
    assert [outcome(Command(command_field=0x8001, status=status)).name for status in statuses] == [
        "COMPLETED", "WARNING", "WARNING", "FAILED", "FAILED", "FAILED", "FAILED",
    ]  # fmt: skip


def test_each_kind_as_it_is_comes_first_and_there_is_no_129th_context() -> None:
    assert [(c.abstract_syntax, c.transfer_syntaxes) for c in proposals([(MG, J2K), (MG, J2K), ("1.2", EXPLICIT)])] == [
        (MG, (J2K,)), ("1.2", (EXPLICIT,)), (MG, (EXPLICIT,)), (MG, (IMPLICIT,)), ("1.2", (IMPLICIT,)),
    ]  # fmt: skip
    many = proposals([(f"1.2.{number}", J2K) for number in range(200)])
    assert (len(many), many[-1].context_id) == (MOST_CONTEXTS, 255)


# ---- over associations ----------------------------------------------------------------------------------------------

RECEIPT = Receipt(EXPLICIT, 0, 0, "", "", "", "")


@contextmanager
def listening(archive: Archive, *peers: Peer) -> Iterator[Listener]:
    served = application(archive, Reporter(archive, ()), ae_title="SCREENING_PACS", peers=peers)
    with Listener(served, host="127.0.0.1", port=0) as listener:
        yield listener


@pytest.fixture
def listener(archive: Archive) -> Iterator[Listener]:
    with listening(archive) as listener:
        yield listener


def keep(archive: Archive, *images: Dataset) -> None:
    for each in images:
        send(archive, each)


def keep_as(syntax: str, archive: Archive, folder: Path) -> bytes:
    """Keep image 1 in any transfer syntax, and give its bytes."""
    data = data_set_bytes(corpus.write(folder / "one.dcm", image(1, transfer_syntax_uid=syntax)))
    send(archive, image(1), data=data, transfer_syntax_uid=syntax)
    return data


def dcmtk(tool: str, listener: Listener, *arguments: str | Path, keys: Mapping[str, str]) -> str:
    asked = [part for key, value in keys.items() for part in ("-k", f"{key}={value}" if value else key)]
    command = [tool, "-v", "-S", "-aec", "SCREENING_PACS", *map(str, arguments), *asked]
    done = subprocess.run(
        [*command, "127.0.0.1", str(listener.port)], check=False, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


@with_dcmtk
def test_dcmtk_finds_a_study_with_its_counts_and_who_to_retrieve_it_from(archive: Archive, listener: Listener) -> None:
    keep(archive, image(1), image(2), image(3, SeriesInstanceUID="2.25.7", Modality="SR"))
    keys = dict.fromkeys(
        ["StudyInstanceUID", "ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"], ""
    )
    said = dcmtk("findscu", listener, keys={"QueryRetrieveLevel": "STUDY", "PatientID": "9990000018", **keys})
    for line in ("CS [ISO_IR 192]", "AE [SCREENING_PACS", "CS [MG\\SR", "IS [2", "IS [3", f"UI [{STUDY}"):
        assert line in said
    assert said.count("(Pending)") == 1
    assert "Received Final Find Response (Success)" in said


def asked(listener: Listener, ds: Dataset, sop_class: str = FIND) -> list[tuple[int, Dataset | None]]:
    entity = AE()
    entity.add_requested_context(sop_class)
    association = entity.associate("127.0.0.1", listener.port, ae_title="SCREENING_PACS")
    answers = [(status.Status, found) for status, found in association.send_c_find(ds, sop_class)]
    association.release()
    return answers


def test_every_level_is_answered_with_what_was_asked(archive: Archive, listener: Listener) -> None:
    keep(archive, image(1), image(2, SeriesInstanceUID="2.25.7"), image(3, StudyInstanceUID="2.25.8"))
    patient = {"PatientID": "9990000018"}
    study = patient | {"StudyInstanceUID": STUDY}
    series = study | {"SeriesInstanceUID": "2.25.1003"}
    counts = {"NumberOfPatientRelatedStudies": "", "NumberOfPatientRelatedInstances": ""}
    answers = {
        level: [
            {element.keyword: str(element.value) for element in found if element.keyword in shown}
            for _, found in asked(listener, identifier(level, **keys), PATIENT_FIND)[:-1]
            if found is not None
        ]
        for level, keys, shown in [
            ("PATIENT", patient | counts, ("PatientID", *counts)),
            ("STUDY", patient | {"StudyInstanceUID": "", "StudyComments": ""}, ("StudyInstanceUID", "StudyComments")),
            ("SERIES", study | {"Modality": "MG", "StudyDate": ""}, ("SeriesInstanceUID", "Modality", "StudyDate")),
            ("IMAGE", series | {"InstanceNumber": "", "Rows": ""}, ("SOPInstanceUID", "InstanceNumber", "Rows")),
        ]
    }
    assert answers == {
        "PATIENT": [
            {"PatientID": "9990000018", "NumberOfPatientRelatedStudies": "2", "NumberOfPatientRelatedInstances": "3"}
        ],
        "STUDY": [
            {"StudyInstanceUID": "2.25.8", "StudyComments": ""},
            {"StudyInstanceUID": STUDY, "StudyComments": ""},
        ],
        "SERIES": [
            {"SeriesInstanceUID": "2.25.1003", "Modality": "MG", "StudyDate": "20261122"},
            {"SeriesInstanceUID": "2.25.7", "Modality": "MG", "StudyDate": "20261122"},
        ],
        "IMAGE": [{"SOPInstanceUID": "2.25.1", "InstanceNumber": "1", "Rows": "40"}],
    }


def test_a_key_that_cannot_be_matched_warns_and_one_that_makes_no_sense_is_refused(
    archive: Archive, listener: Listener
) -> None:
    keep(archive, image(1))
    warned = asked(listener, identifier("STUDY", StudyInstanceUID="", PatientComments="something"))
    refused = asked(listener, identifier("STUDY", StudyDate="yesterday"))
    assert [status for status, _ in warned] == [0xFF01, 0x0000]
    assert [status for status, _ in refused] == [0xA900]


ODD: dict[str, dict[str, object]] = {
    "00200013": {"vr": "IS", "Value": ["first"]},
    "00280010": {"vr": "US", "Value": ["many"]},
    "00280030": {"vr": "DS", "Value": ["wide", None]},
    "00080020": {"vr": "DA", "Value": ["yesterday"]},
    "00080070": {"vr": "LO", "Value": ["A" * 300, "\u0000"]},
    "00100010": {"vr": "PN", "Value": [{"Ideographic": "\u5c71\u7530"}]},
    "00081199": {"vr": "SQ", "Value": [{"00280010": {"vr": "US", "Value": ["many"]}}, {}]},
    "00091001": {"vr": "UN", "InlineBinary": "AAAA"},
    "7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"},
    "00281201": {"vr": "OW"},
    "00200010": {},
}


@given(tags=st.sets(st.sampled_from(sorted(ODD))), syntax=st.sampled_from([EXPLICIT, IMPLICIT]))
def test_an_odd_value_costs_nobody_the_answer(tags: set[str], syntax: str) -> None:
    asked_for = identifier("IMAGE", SOPInstanceUID="")
    for tag, element in ODD.items():
        asked_for.add_new(int(tag, 16), str(element.get("vr", "SH")), None)
    found = {tag: ODD[tag] for tag in tags} | {"00080018": {"vr": "UI", "Value": ["2.25.1"]}}
    given_back = decode(answer(found, asked_for, "IMAGE", ae_title="P", transfer_syntax=syntax), syntax)
    assert (given_back.SOPInstanceUID, given_back.RetrieveAETitle) == ("2.25.1", "P")


@with_dcmtk
def test_more_answers_than_a_page_come_once_each_and_can_be_cancelled(archive: Archive, listener: Listener) -> None:
    with archive.write() as conn:
        for number in range(1200):
            one = {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}, "00100020": {"vr": "LO", "Value": ["P"]}}
            Index(archive).add(conn, one, Identity(f"1.2.{number}", "1.3", f"1.4.{number}", MG), RECEIPT)
    found = [ds.StudyInstanceUID for _, ds in asked(listener, identifier("STUDY", PatientID="P")) if ds is not None]
    assert (len(found), len(set(found))) == (1200, 1200)
    said = dcmtk("findscu", listener, "--cancel", "3", keys={"QueryRetrieveLevel": "STUDY", "PatientID": "P"})
    assert "(Cancel: MatchingTerminatedDueToCancelRequest)" in said


def got(folder: Path) -> dict[str, Dataset]:
    files = [dcmread(path) for path in folder.iterdir()]
    return {str(file.SOPInstanceUID): file for file in files}


@with_dcmtk
def test_dcmtk_gets_a_study_over_its_own_association(archive: Archive, listener: Listener, tmp_path: Path) -> None:
    keep(archive, image(1), image(2), image(3, StudyInstanceUID="2.25.9"))
    folder = tmp_path / "got"
    folder.mkdir()
    said = dcmtk("getscu", listener, "-od", folder, keys={"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY})
    assert "Number of Completed Suboperations : 2" in said
    assert {uid: file.pixel_array.tolist() for uid, file in got(folder).items()} == {
        uid: corpus.GREY.tolist() for uid in ("2.25.1", "2.25.2")
    }


def test_dcmtk_gets_its_cancel_honoured_and_what_is_left_is_not_sent(archive: Archive, tmp_path: Path) -> None:
    keep(archive, *(image(number) for number in range(1, 6)))
    with listening(archive) as listener, storing(listener, GET, cancel_after=2) as (association, kept):
        answers = list(association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET, msg_id=7))
    status, _ = answers[-1]
    assert (status.Status, status.NumberOfCompletedSuboperations) == (0xFE00, len(kept))
    assert status.NumberOfRemainingSuboperations == 5 - len(kept) > 0


@contextmanager
def storing(
    listener: Listener, sop_class: str, *, syntaxes: tuple[str, ...] = (EXPLICIT,), cancel_after: int = 0
) -> Iterator[tuple[Association, dict[str, bytes]]]:
    """An association of pynetdicom that takes mammograms and keeps their bytes; it may cancel message 7."""
    kept: dict[str, bytes] = {}

    def take(event: evt.Event) -> int:
        kept[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        if len(kept) == cancel_after:
            event.assoc.send_c_cancel(7, query_model=sop_class)
        return 0x0000 if event.request.AffectedSOPInstanceUID != "2.25.4" else 0xA700

    entity = AE()
    entity.add_requested_context(sop_class)
    for syntax in syntaxes:
        entity.add_requested_context(MG, syntax)
    association = entity.associate(
        "127.0.0.1",
        listener.port,
        ae_title="SCREENING_PACS",
        ext_neg=[build_role(MG, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, take)],
    )
    try:
        yield association, kept
    finally:
        association.release()


def test_what_is_stored_is_given_byte_for_byte_and_each_answer_counts(archive: Archive, listener: Listener) -> None:
    keep(archive, image(1), image(2), image(4))
    with storing(listener, GET) as (association, kept):
        answers = list(association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET))
    counts = [
        (
            status.Status,
            status.get("NumberOfRemainingSuboperations"),
            status.NumberOfCompletedSuboperations,
            status.NumberOfFailedSuboperations,
        )
        for status, _ in answers
    ]
    assert counts == [(0xFF00, 2, 1, 0), (0xFF00, 1, 2, 0), (0xB000, None, 2, 1)]
    assert answers[-1][1].FailedSOPInstanceUIDList == "2.25.4"
    stored = archive.instance("2.25.2")
    assert kept["2.25.2"] == stored.path.read_bytes()[stored.data_set_offset :]


@pytest.mark.parametrize("syntax", [IMPLICIT, *corpus.REVERSIBLE], ids=lambda uid: UID(uid).name)
def test_what_the_peer_cannot_take_is_decompressed_for_it_and_looks_the_same(
    archive: Archive, listener: Listener, syntax: str, tmp_path: Path
) -> None:
    keep_as(syntax, archive, tmp_path)
    with storing(listener, GET) as (association, kept):
        *_, (status, _) = association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET)
    assert status.Status == 0x0000
    found = decode(kept["2.25.1"], EXPLICIT)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    assert np.array_equal(found.pixel_array, corpus.GREY)
    assert {element.keyword for element in found} == {element.keyword for element in image(1)}


def test_what_is_stored_is_preferred_when_the_peer_offers_both(
    archive: Archive, listener: Listener, tmp_path: Path
) -> None:
    data = keep_as(J2K, archive, tmp_path)
    with storing(listener, GET, syntaxes=(EXPLICIT, J2K)) as (association, kept):
        list(association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET))
    assert kept["2.25.1"] == data


def test_a_damaged_object_that_would_have_to_be_decompressed_is_a_failure_in_words(
    archive: Archive, listener: Listener, tmp_path: Path
) -> None:
    data = data_set_bytes(corpus.write(tmp_path / "one.dcm", image(1, transfer_syntax_uid=JPEG_LOSSLESS)))
    start = data.index(b"\xff\xc3")
    send(archive, image(1), data=data[:start] + bytes(12) + data[start + 12 :], transfer_syntax_uid=JPEG_LOSSLESS)
    keep(archive, image(2))
    with storing(listener, GET) as (association, kept), capture_logs() as logs:
        *_, (status, failed) = association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET)
    assert (status.Status, failed.FailedSOPInstanceUIDList, list(kept)) == (0xB000, "2.25.1", ["2.25.2"])
    assert [line["reason"] for line in logs if line["event"] == "instance not taken as it should be"] == [
        "The object's pixels could not be decompressed for this peer."
    ]


def test_what_is_too_large_is_not_converted(tmp_path: Path) -> None:
    with (tmp_path / "tomosynthesis.dcm").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(NotAcceptable, match="larger than 256 MB"):
        converted(tmp_path / "tomosynthesis.dcm", EXPLICIT, IMPLICIT)


def test_colour_is_decompressed_to_rgb(tmp_path: Path) -> None:
    grey = corpus.GREY.astype(np.uint8)
    colours = np.stack([grey, np.flip(grey), grey // 16], axis=2)
    one = corpus.data_set(colours)
    one.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    native = decompressed(corpus.write(tmp_path / "colour.dcm", one))
    assert (native.PhotometricInterpretation, native.PlanarConfiguration) == ("RGB", 0)
    assert native.PixelData == colours.tobytes()


def test_a_peer_that_does_not_offer_to_be_scp_is_sent_nothing(archive: Archive, listener: Listener) -> None:
    keep(archive, image(1))
    entity = AE()
    entity.add_requested_context(GET)
    entity.add_requested_context(MG, EXPLICIT)
    association = entity.associate("127.0.0.1", listener.port, ae_title="SCREENING_PACS")
    with capture_logs() as logs:
        [(status, failed)] = association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET)
    association.release()
    assert (status.Status, failed.FailedSOPInstanceUIDList) == (0xA702, "2.25.1")
    assert [line["sop_instance_uid"] for line in logs if line["event"] == "instance not taken as it should be"] == [
        "2.25.1"
    ]


def test_a_file_that_is_not_whole_is_a_failure_and_the_rest_is_sent(archive: Archive, listener: Listener) -> None:
    keep(archive, image(1), image(2))
    archive.instance("2.25.1").path.unlink()
    with storing(listener, GET) as (association, kept):
        *_, (status, failed) = association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET)
    assert (status.Status, failed.FailedSOPInstanceUIDList, list(kept)) == (0xB000, "2.25.1", ["2.25.2"])


def test_nothing_found_is_success_without_suboperations(listener: Listener) -> None:
    with storing(listener, GET) as (association, _):
        [(status, _)] = association.send_c_get(identifier("STUDY", StudyInstanceUID="2.25.404"), GET)
    assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, 0)


def get_request(message_id: int = 1) -> Command:
    return Command(command_field=0x0010, message_id=message_id, priority=0, command_data_set_type=1,
                   affected_sop_class_uid=GET)  # fmt: skip


def test_what_does_not_fit_the_service_is_refused_and_the_association_goes_on(listener: Listener) -> None:
    with RawPeer(listener.port, GET, EXPLICIT) as peer:
        peer.send(replace(get_request(), command_field=0x0020), encode(identifier("STUDY"), EXPLICIT))
        refused = peer.response()
        peer.send(get_request(2), b"not a data set")
        nonsense = peer.response()
    assert (refused.status, nonsense.status) == (0xA900, 0xC000)


def test_a_peer_that_vanishes_in_the_middle_costs_nobody_else_anything(archive: Archive, listener: Listener) -> None:
    keep(archive, *(image(number) for number in range(1, 30)))

    def vanish(event: evt.Event) -> int:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000

    entity = AE()
    entity.add_requested_context(GET)
    entity.add_requested_context(MG, EXPLICIT)
    association = entity.associate(
        "127.0.0.1", listener.port, ae_title="SCREENING_PACS", ext_neg=[build_role(MG, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, vanish)],
    )  # fmt: skip
    with capture_logs() as logs:
        list(association.send_c_get(identifier("STUDY", StudyInstanceUID=STUDY), GET))
        wait_until(lambda: any(line["event"] == "association lost" for line in logs), "the loss")
    assert [line["event"] for line in logs].count("association lost") == 1
    assert [line for line in logs if line["log_level"] == "error"] == []
    assert asked(listener, identifier("STUDY", StudyInstanceUID=STUDY))[-1][0] == 0x0000


# ---- C-MOVE ---------------------------------------------------------------------------------------------------------


@with_dcmtk
def test_dcmtk_has_a_study_moved_to_dcmtk(archive: Archive, tmp_path: Path) -> None:
    keep(archive, image(1), image(2))
    port, folder = free_port(), tmp_path / "moved"
    folder.mkdir()
    with (
        listening(archive, Peer("SITE_PACS", "127.0.0.1", port)) as listener,
        running(port, "storescp", "-aet", "SITE_PACS", "-od", folder, str(port)),
    ):
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}
        said = dcmtk("movescu", listener, "-aem", "SITE_PACS", keys=keys)
    assert "Received Final Move Response (Success)" in said
    assert sorted(got(folder)) == ["2.25.1", "2.25.2"]


@with_dcmtk
def test_a_destination_that_takes_uncompressed_only_gets_uncompressed(archive: Archive, tmp_path: Path) -> None:
    keep_as(J2K, archive, tmp_path)
    port, folder = free_port(), tmp_path / "moved"
    folder.mkdir()
    with (
        listening(archive, Peer("SITE_PACS", "127.0.0.1", port)) as listener,
        running(port, "storescp", "-aet", "SITE_PACS", "-od", folder, str(port)),
    ):
        dcmtk("movescu", listener, "-aem", "SITE_PACS", keys={"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY})
    [moved] = got(folder).values()
    assert moved.file_meta.TransferSyntaxUID == EXPLICIT
    assert np.array_equal(moved.pixel_array, corpus.GREY)


MOVE = str(StudyRootQueryRetrieveInformationModelMove)


def moved(listener: Listener, destination: str) -> list[tuple[Dataset, Dataset | None]]:
    entity = AE(ae_title="WORKSTATION")
    entity.add_requested_context(MOVE)
    association = entity.associate("127.0.0.1", listener.port, ae_title="SCREENING_PACS")
    answers = list(association.send_c_move(identifier("STUDY", StudyInstanceUID=STUDY), destination, MOVE, msg_id=9))
    association.release()
    return answers


def test_the_destination_is_told_who_moves_and_each_answer_counts(archive: Archive) -> None:
    keep(archive, image(1), image(2))
    told: list[tuple[object, ...]] = []

    def take(event: evt.Event) -> int:
        request = event.request
        told.append((event.assoc.requestor.ae_title, request.MoveOriginatorApplicationEntityTitle,
                     request.MoveOriginatorMessageID))  # fmt: skip
        return 0xB000

    entity = AE("SITE_PACS")
    entity.add_supported_context(MG, EXPLICIT)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    with listening(archive, Peer("SITE_PACS", "127.0.0.1", server.server_address[1])) as listener:
        answers = moved(listener, "SITE_PACS")
    server.shutdown()
    assert told == [("SCREENING_PACS", "WORKSTATION", 9)] * 2
    assert [(status.Status, status.NumberOfWarningSuboperations) for status, _ in answers] == [(0xFF00, 1), (0xB000, 2)]


def test_a_destination_that_is_not_configured_is_a801(archive: Archive, listener: Listener) -> None:
    keep(archive, image(1))
    [(status, _)] = moved(listener, "ELSEWHERE")
    assert (status.Status, status.ErrorComment) == (0xA801, "Move destination 'ELSEWHERE' is not in PACS_PEERS.")


def test_a_destination_that_cannot_be_reached_fails_everything_by_name(archive: Archive) -> None:
    keep(archive, image(1), image(2))
    with listening(archive, Peer("SITE_PACS", "127.0.0.1", free_port())) as listener, capture_logs() as logs:
        [(status, failed)] = moved(listener, "SITE_PACS")
    assert (status.Status, status.NumberOfFailedSuboperations) == (0xA702, 2)
    assert failed.FailedSOPInstanceUIDList == ["2.25.1", "2.25.2"]
    assert [line["reason"].split(":")[-1] for line in logs if line["event"] == "destination not reached"] == [
        " Connection refused."
    ]


def test_a_destination_that_is_lost_half_way_fails_the_rest(archive: Archive) -> None:
    keep(archive, image(1), image(2), image(3))

    def take(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == "2.25.2":
            event.assoc.abort()
        return 0x0000

    entity = AE("SITE_PACS")
    entity.add_supported_context(MG, EXPLICIT)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    with listening(archive, Peer("SITE_PACS", "127.0.0.1", server.server_address[1])) as listener:
        *_, (status, failed) = moved(listener, "SITE_PACS")
    server.shutdown()
    assert (status.Status, status.NumberOfCompletedSuboperations) == (0xB000, 1)
    assert failed.FailedSOPInstanceUIDList == ["2.25.2", "2.25.3"]


def test_stopping_does_not_wait_for_a_destination_that_is_silent(archive: Archive) -> None:
    keep(archive, image(1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer("SITE_PACS", "127.0.0.1", server.getsockname()[1])
        with listening(archive, peer) as listener, RawPeer(listener.port, MOVE, EXPLICIT) as workstation:
            command = Command(command_field=0x0021, message_id=1, priority=0, command_data_set_type=1,
                              affected_sop_class_uid=MOVE, move_destination="SITE_PACS")  # fmt: skip
            workstation.send(command, encode(identifier("STUDY", StudyInstanceUID=STUDY), EXPLICIT))
            with server.accept()[0]:
                began = time.monotonic()
                listener.stop(grace_seconds=0.1)
    assert time.monotonic() - began < PATIENCE_SECONDS < ANSWER_SECONDS


@pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
def test_orthanc_is_a_destination(archive: Archive, tmp_path: Path) -> None:
    keep(archive, image(1), image(2))
    dicom, http = free_port(), free_port()
    settings = {
        "DicomPort": dicom, "HttpPort": http, "DicomAet": "ORTHANC", "AuthenticationEnabled": False,
        "StorageDirectory": str(tmp_path / "orthanc"), "Plugins": [], "DicomAlwaysAllowStore": True,
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (
        listening(archive, Peer("ORTHANC", "127.0.0.1", dicom)) as listener,
        running(dicom, "Orthanc", tmp_path / "orthanc.json"),
    ):
        *_, (status, _) = moved(listener, "ORTHANC")
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/statistics", timeout=10) as answer:
            counted = json.load(answer)
    assert (status.Status, counted["CountInstances"]) == (0x0000, 2)
