"""A site whose DICOM ports take TLS with certificates only: its own tools work, others are told what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from simulator.exam.exam import Exam
from simulator.exam.phantom import mammogram
from simulator.modality.modality import ModalityError
from simulator.site import Site, wait_until
from tests.tools.certificates import authority, issued


def secured(folder: Path) -> Site:
    """A site with a certificate, that demands certificates of those who call."""
    ca = authority()
    certificate, key = issued("gateway", ca).write(folder, "gateway", ca)
    (folder / "machines.pem").write_bytes(authority("CA of the machines").pem)
    settings = {
        "GATEWAY_TLS_CERTIFICATE": str(certificate),
        "GATEWAY_TLS_KEY": str(key),
        "GATEWAY_TLS_CLIENT_CA": str(folder / "machines.pem"),
        "RELAY_DESTINATION": "none",
    }
    return Site(folder, settings=settings)


def gateway(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env=site.environment(), cwd=site.folder,
    )  # fmt: skip


def test_a_site_within_tls_proves_itself_and_turns_plain_machines_away(tmp_path: Path) -> None:
    with secured(tmp_path) as site:
        site.start("worklist", "pacs")
        site.start("relay")
        checked = gateway(site, "gateway", "check", "--local")
        assert checked.returncode == 0, checked.stdout
        misbehaved = gateway(site, "gateway", "modality", "--misbehave", "all")
        assert misbehaved.returncode == 0, misbehaved.stdout + misbehaved.stderr
        port = site.ports["pacs"]
        explained = gateway(site, "gateway", "tls", "check", "--connect", f"127.0.0.1:{port}")
        assert explained.returncode == 0, explained.stdout
        with pytest.raises(ModalityError):
            site.modality().echo_worklist()
        assert "The peer speaks DICOM without TLS, which this port takes only with TLS" in site.log("worklist")


def test_a_renewed_certificate_is_shown_by_a_site_that_runs(tmp_path: Path) -> None:
    with secured(tmp_path) as site:
        site.start("worklist", "pacs")
        issued("renewed").write(tmp_path, "gateway")
        for name in ("worklist", "pacs"):
            wait_until(lambda name=name: "certificate renewed" in site.log(name), what=f"the renewal of the {name}")  # type: ignore[misc]
        checked = gateway(site, "gateway", "check", "--local").stdout
        assert [line for line in checked.splitlines() if "'CN=renewed' is shown" in line]
        assert "ok      archive answers" in checked
        (tmp_path / "gateway.key").write_text("nothing")
        broken = gateway(site, "gateway", "check", "--local").stdout
        assert "GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY cannot be used" in broken


@pytest.mark.parametrize("module", ["worklist", "pacs"])
def test_a_key_that_is_not_there_ends_the_start_with_78(tmp_path: Path, module: str) -> None:
    site = secured(tmp_path)
    key = tmp_path / "gateway.key"
    key.unlink()
    ended = gateway(site, module)
    assert ended.returncode == 78
    assert f"GATEWAY_TLS_KEY={key} cannot be read by this service: No such file or directory." in ended.stderr


def test_an_upload_over_http_reaches_an_archive_within_tls(tmp_path: Path) -> None:
    with secured(tmp_path) as site:
        site.start("worklist", "pacs")
        site.start("relay")
        view = mammogram("RCC", Exam(accession_number="UPLOAD1"), rows=64, columns=48)
        view.save_as(tmp_path / "view.dcm", enforce_file_format=True)
        answer = DICOMwebClient(f"{site.url}/dicom-web").store_instances([dcmread(tmp_path / "view.dcm")])
        assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [view.SOPInstanceUID]
        assert '"calling_ae_title": "GATEWAY_UPLOAD"' in site.log("pacs")
