"""What does not make sense is refused in its own protocol with one explaining log line, and nothing is half visible."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind

from simulator.exam.exam import Exam
from simulator.exam.phantom import mammogram
from simulator.journey import IMAGE, create_item
from simulator.modality.modality import ModalityError, data_set_bytes
from simulator.site import Site, wait_until
from tests.journeys.steps import COLUMNS, ROWS, dcmtk, journey, now, personal, qido, status_of, stored, wait_for_events
from tests.tools.raw_peer import RawPeer


@pytest.fixture(autouse=True)
def still_whole(site: Site) -> Iterator[None]:
    """After every journey here the services still work, and no log tells who the participant is."""
    yield
    site.modality().echo_worklist()
    site.modality().echo_pacs()
    assert list(personal(site)) == []


def image(**changes: object) -> Dataset:
    ds = mammogram("RCC", Exam(accession_number="BAD1"), rows=ROWS, columns=COLUMNS)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def raw_store(site: Site, ds: Dataset, *, sop_class_uid: str, data: bytes) -> int:
    """C-STORE any bytes as an instance of any class; gives the status."""
    with RawPeer(site.ports["pacs"], sop_class_uid, ds.file_meta.TransferSyntaxUID) as peer:
        return peer.store(sop_class_uid, ds.file_meta.MediaStorageSOPInstanceUID, data).status or 0


def nothing_is_stored(site: Site) -> None:
    assert qido(site, "/instances") == []
    assert list((site.data / "instances").rglob("*.dcm")) == []


def explained(site: Site, name: str, *words: str) -> dict[str, object]:
    """The one line of a log that holds all words."""
    lines = [json.loads(line) for line in site.log(name).splitlines() if line.startswith("{")]
    [line] = [line for line in lines if all(word in json.dumps(line) for word in words)]
    return dict(line)


def test_a_data_set_without_sop_instance_uid(site: Site) -> None:
    ds = image()
    del ds.SOPInstanceUID
    assert raw_store(site, ds, sop_class_uid=ds.SOPClassUID, data=data_set_bytes(ds)) in range(0xC000, 0xD000)
    nothing_is_stored(site)


def test_a_data_set_that_is_cut_off(site: Site) -> None:
    ds = image()
    status = raw_store(site, ds, sop_class_uid=ds.SOPClassUID, data=data_set_bytes(ds)[:2000])
    assert status in range(0xC000, 0xD000)
    nothing_is_stored(site)


def test_a_data_set_of_another_class_than_announced(site: Site) -> None:
    ds = image()
    status = raw_store(site, ds, sop_class_uid="1.2.840.10008.5.1.4.1.1.7", data=data_set_bytes(ds))
    assert status in range(0xA900, 0xAA00)
    nothing_is_stored(site)


def test_a_second_different_image_under_one_uid(site: Site) -> None:
    [first] = stored(site, [image()])
    with pytest.raises(ModalityError, match=r"answered with status C111"):
        stored(site, [image(KVP="31")])
    exam = journey(site)
    exam.search([first])
    exam.retrieve([first])
    wait_for_events(site, {IMAGE: 1, "image.quarantined": 1})


def test_an_association_that_is_aborted_in_the_middle_of_an_image(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.ports["pacs"])) as peer:
        peer.sendall(b"\x01\x00\x00\x00\x00\xcd" + b"\x00" * 20)  # a part of an A-ASSOCIATE-RQ
    ds = image()
    ae = AE("BAD_MAMMO")
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", site.ports["pacs"], ae_title="SCREENING_PACS")
    assoc.abort()
    nothing_is_stored(site)


@pytest.mark.skipif(not shutil.which("storescu"), reason="DCMTK is not installed")
def test_a_file_that_is_not_whole_is_not_half_visible(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "whole.dcm"
    image().save_as(path, enforce_file_format=True)
    half = tmp_path / "half.dcm"
    half.write_bytes(path.read_bytes()[:-5000])
    dcmtk(site, "storescu", "-aec", "SCREENING_PACS", "127.0.0.1", str(site.ports["pacs"]), str(half))
    nothing_is_stored(site)
    assert dcmread(path).SOPInstanceUID


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"accession_number": "LONGER_THAN_SIXTEEN"}, "invalid"),
        ({"participant": {"name": "PHANTOM^SYNTHETIC"}}, "missing_attribute"),
        ({"scheduled": {"date": "22.11.2026", "time": "0930"}}, "invalid"),
    ],
)
def test_an_appointment_that_dicom_cannot_hold(site: Site, change: dict[str, object], code: str) -> None:
    action = create_item(now=now())
    match action:
        case {"parameters": {"worklist_item": dict(item)}}:
            item |= change
    wait_until(lambda: site.control.listeners() > 0, what="The relay at the stand-in cloud")
    answer = site.control.send(action)
    assert (answer["status"], answer["code"], answer["action_id"]) == ("error", code, action["action_id"])
    assert site.modality().find() == []
    assert explained(site, "relay", str(action["action_id"]))["level"] == "warning"


def test_an_action_nobody_knows(site: Site) -> None:
    wait_until(lambda: site.control.listeners() > 0, what="The relay at the stand-in cloud")
    answer = site.control.send({"action_type": "worklist.paint_it_blue", "action_id": "a1"})
    assert (answer["status"], answer["message"]) == ("error", "Unsupported action: worklist.paint_it_blue")


def test_a_query_with_nonsense_is_an_error_and_not_an_empty_list(site: Site) -> None:
    for query in ("StudyDate=yesterday", "limit=-1", "NoSuchAttribute=1", "StudyInstanceUID=1..2"):
        assert status_of(site, f"/dicom-web/studies?{query}") == 400, query


def test_a_worklist_query_with_nonsense_is_refused(site: Site) -> None:
    identifier = Dataset()
    sps = Dataset()
    sps.add_new("ScheduledProcedureStepStartDate", "LO", "yesterday")
    identifier.ScheduledProcedureStepSequence = [sps]
    ae = AE("BAD_MAMMO")
    ae.add_requested_context(ModalityWorklistInformationFind)
    assoc = ae.associate("127.0.0.1", site.ports["worklist"], ae_title="SCREENING_MWL")
    [(status, _)] = list(assoc.send_c_find(identifier, ModalityWorklistInformationFind))
    assoc.release()
    assert status.Status in (0xA900, 0xC001, 0xC000)
