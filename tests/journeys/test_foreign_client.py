"""Files sent from outside with DCMTK: found by QIDO-RS, given back bit for bit, told to the cloud with a picture."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1

from simulator.cloud.remote_control import Json
from simulator.exam.exam import Exam
from simulator.exam.phantom import mammogram
from simulator.journey import IMAGE, Journey, data_set_of
from simulator.modality.modality import Sent
from simulator.site import Site, wait_until
from tests.journeys.steps import dcmtk, journey, qido, wait_for_events
from tests.tools.corpus import compressed

pytestmark = pytest.mark.skipif(not shutil.which("storescu"), reason="DCMTK is not installed")


@pytest.fixture
def uncompressed(tmp_path: Path) -> Path:
    """A view as DCMTK writes it, so that what it sends is what the file holds."""
    made, path = tmp_path / "made.dcm", tmp_path / "uncompressed.dcm"
    exam = Exam(accession_number="FOREIGN1")
    mammogram("LMLO", exam, rows=832, columns=640).save_as(made, enforce_file_format=True)
    subprocess.run(["dcmconv", "+te", str(made), str(path)], check=True)
    return path


def send(site: Site, path: Path, *options: str) -> Sent:
    """Send a file with storescu; gives what was sent."""
    done = dcmtk(site, "storescu", *options, "-aec", "SCREENING_PACS", "127.0.0.1", str(site.ports["pacs"]), str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    ds, data = dcmread(path, stop_before_pixels=True), data_set_of(path.read_bytes())
    return Sent(
        study_instance_uid=str(ds.StudyInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        description=str(ds.SeriesDescription),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def expect_all_the_way(site: Site, image: Sent) -> Json:
    """Found, bit-identical, with a thumbnail, and in the cloud; gives the event."""
    exam: Journey = journey(site)
    exam.search([image])
    exam.retrieve([image])
    exam.look([image])
    wait_until(lambda: bool(site.control.events(IMAGE)), what="The image's event")
    [event] = site.control.events(IMAGE)
    assert event["message_id"] == image.sop_instance_uid
    return event


def test_an_uncompressed_file(site: Site, uncompressed: Path) -> None:
    event = expect_all_the_way(site, send(site, uncompressed))
    match event:
        case {"parameters": {"study": study, "image": {"thumbnail": thumbnail, "acquisition": acquisition}}}:
            assert study["accession_number"] == "FOREIGN1"
            assert (thumbnail["format"], len(thumbnail["data"]) > 1000) == ("jpeg", True)
            assert (acquisition["laterality"], acquisition["view_position"]) == ("L", "MLO")
        case _:
            raise AssertionError(event)


def test_a_jpeg_lossless_file(site: Site, uncompressed: Path, tmp_path: Path) -> None:
    path = tmp_path / "lossless.dcm"
    # SV1 is what mammography units like best.
    done = dcmtk(site, "dcmcjpeg", "+e1", "+un", str(uncompressed), str(path))
    assert done.returncode == 0, done.stderr
    assert dcmread(path).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    expect_all_the_way(site, send(site, path, "-xs"))


def test_a_jpeg_2000_file(site: Site, uncompressed: Path, tmp_path: Path) -> None:
    path = tmp_path / "j2k.dcm"
    ds = dcmread(uncompressed)
    picture = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
    ds.PixelData = encapsulate([compressed(picture, JPEG2000Lossless)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(tmp_path / "made.dcm", enforce_file_format=True)
    # DCMTK cannot decode JPEG 2000 but passes it on; rewritten, so that what it sends is what the file holds.
    done = dcmtk(site, "dcmconv", "+t=", str(tmp_path / "made.dcm"), str(path))
    assert done.returncode == 0, done.stderr
    expect_all_the_way(site, send(site, path, "-xv"))


def test_the_same_file_twice_is_one_image(site: Site, uncompressed: Path) -> None:
    first, second = send(site, uncompressed), send(site, uncompressed)
    assert first == second
    expect_all_the_way(site, first)
    wait_for_events(site, {IMAGE: 1})
    assert len(qido(site, "/instances")) == 1


def test_both_services_answer_echoscu(site: Site) -> None:
    for title, name in (("SCREENING_MWL", "worklist"), ("SCREENING_PACS", "pacs")):
        done = dcmtk(site, "echoscu", "-aec", title, "127.0.0.1", str(site.ports[name]))
        assert done.returncode == 0, done.stderr


def test_findscu_reads_the_worklist(site: Site) -> None:
    from simulator.journey import accession_of, create_item
    from tests.journeys.steps import now

    action = create_item(now=now())
    journey(site).appoint(action)
    done = dcmtk(
        site, "findscu", "-W", "-aec", "SCREENING_MWL", "-k", f"AccessionNumber={accession_of(action)}",
        "-k", "PatientID", "-k", "(0040,0100)[0].Modality=MG", "127.0.0.1", str(site.ports["worklist"]),
    )  # fmt: skip
    assert done.returncode == 0
    assert "9990000018" in done.stdout + done.stderr
