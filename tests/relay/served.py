"""A whole site behind a real HTTP server: archive and worklist with content, for tests that are web clients."""

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset
from pydicom import Sequence as Items
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from gateway.messages import Check, HealthReport
from gateway.tls_reload import ServerTls
from pacs import Archive
from pacs.archive.receiving import ObjectOrigin
from relay.access.middleware import AccessControl
from relay.dicomweb.routes import Changes
from relay.dicomweb.spool import Spool
from relay.exams.evidence import Evidence
from relay.exams.holding import HoldRules
from relay.pages.site_facts import SiteFacts
from relay.render_pool import Renderer
from relay.slow_clients import PATIENCE_SECONDS
from relay.web import IDLE_SECONDS, application, serving
from tests.tools import corpus
from worklist import Item, Worklist

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
PEERS = ("SITE_PACS", "WORKSTATION")
STUDY, OTHER_STUDY = "2.25.100", "2.25.200"
TOMO_CLASS = str(BreastTomosynthesisImageStorage)
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.67"
VIEW_CODES = {"CC": "399162004", "MLO": "399368009"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class Site:
    """What a test may talk to and look into; `report` is what the health check says."""

    port: int
    archive: Archive
    worklist: Worklist
    report: HealthReport
    folder: Path
    changes: Changes
    viewer: Path
    access: AccessControl | None = None
    tls: ServerTls | None = None
    site_facts: SiteFacts = field(default_factory=SiteFacts)
    routes: tuple[tuple[str, str], ...] = ()
    """Method and path of all there are."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(
        self, path: str, *, accept: str = "", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        sent = {**({"Accept": accept} if accept else {}), **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection.request(method, path, body, headers=sent)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer


def mammogram(name: str, number: int, *, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    """One standard view of the first study, small; `name` is RCC, LMLO ..."""
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = VIEW_CODES[name[1:]], "SCT", name[1:]
    view.ViewModifierCodeSequence = Items()
    values = {
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.1",
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "BJÖRK^ANNA",
        "PatientID": "9990000018",
        "PatientBirthDate": "19620504",
        "PatientSex": "F",
        "AccessionNumber": "ACC-1",
        "StudyDate": "20261122",
        "StudyTime": "091500",
        "SeriesNumber": "1",
        "InstanceNumber": str(number),
        "ImageLaterality": name[0],
        "ViewPosition": name[1:],
        "ViewCodeSequence": Items([view]),
        "WindowCenter": "2048",
        "WindowWidth": "4096",
    }
    return corpus.data_set(transfer_syntax_uid=syntax, **{**values, **attributes})


def tomosynthesis(frames: int = 3) -> Dataset:
    """A small multi-frame object in a series of its own."""
    return corpus.data_set(
        *[corpus.GREY // 2 + number for number in range(frames)],
        transfer_syntax_uid=RLELossless,
        sop_class_uid=TOMO_CLASS,
        SOPInstanceUID=f"{STUDY}.2.1",
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=f"{STUDY}.2",
        PatientName="BJÖRK^ANNA",
        SpecificCharacterSet="ISO_IR 100",
        PatientID="9990000018",
        AccessionNumber="ACC-1",
        StudyDate="20261122",
        SeriesNumber="2",
        InstanceNumber="1",
    )


def report() -> Dataset:
    """A dose report: an instance without pixels."""
    without = ("PixelData", "Rows", "Columns", "ImageLaterality", "ViewCodeSequence", "ViewPosition")
    ds = mammogram("RCC", 9, Modality="SR", SeriesInstanceUID=f"{STUDY}.3", SeriesNumber="3")
    for keyword in without:
        del ds[keyword]
    ds.SOPClassUID = REPORT_CLASS
    return ds


def other_study() -> Dataset:
    """A second participant, stored with Implicit VR; the private value is too long for metadata."""
    ds = mammogram("RCC", 1, syntax=ImplicitVRLittleEndian, AccessionNumber="ACC-2", PatientID="9990000026")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = OTHER_STUDY, f"{OTHER_STUDY}.1", f"{OTHER_STUDY}.1.1"
    ds.PatientName, ds.StudyDate = "<script>alert(1)</script>^EVE", "20261121"
    icon = Dataset()
    icon.add_new(0x00091010, "OB", b"\1\2" * 10_000)
    icon.add_new(0x00090010, "LO", "TESTS")
    ds.IconImageSequence = Items([icon])
    return ds


def first_study() -> list[Dataset]:
    """Three standard views in four syntaxes' worth of encodings, a tomosynthesis and a report; LMLO is missing."""
    return [
        mammogram("RCC", 1),
        mammogram("LCC", 2, syntax=JPEG2000Lossless),
        mammogram("RMLO", 3, syntax=JPEGLSLossless, PhotometricInterpretation="MONOCHROME1"),
        tomosynthesis(),
        report(),
    ]


def receive(archive: Archive, ds: Dataset, folder: Path) -> Path:
    """Let the archive take a data set as if a modality had sent it; returns the file it was sent from."""
    path = corpus.write(folder / f"{ds.SOPInstanceUID}.dcm", ds)
    origin = ObjectOrigin(ds.SOPClassUID, ds.SOPInstanceUID, ds.file_meta.TransferSyntaxUID, "MODALITY", "1")
    incoming = archive.receive(origin, now=NOW)
    incoming.write(memoryview(path.read_bytes())[data_set_offset(path) :])
    incoming.finish()
    return path


def data_set_offset(path: Path) -> int:
    """Where the data set begins in a Part 10 file: preamble, prefix, and the group length that says the rest."""
    head = path.read_bytes()[:144]
    return 144 + int.from_bytes(head[140:144], "little")


def item(accession_number: str = "ACC-1", **attributes: str) -> Item:
    """An appointment of the day."""
    values = {"PatientName": "BJÖRK^ANNA", "PatientID": "9990000018", "PatientBirthDate": "19620504", **attributes}
    ds = Dataset()
    ds.AccessionNumber, ds.StudyInstanceUID = accession_number, values.pop("StudyInstanceUID", STUDY)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    step = Dataset()
    step.ScheduledProcedureStepStartDate = NOW.astimezone().strftime("%Y%m%d")
    step.ScheduledProcedureStepStartTime, step.Modality = "091500", "MG"
    ds.ScheduledProcedureStepSequence = Items([step])
    return Item.from_dicom_json(ds.to_json_dict())


def healthy() -> HealthReport:
    checks = {"archive": Check(ok=True, detail="Nothing open.", proven_at="2026-11-22T09:29:48.000Z")}
    return HealthReport(healthy=True, version="0.1.0", listener_uptime_seconds=60, checks=checks)


@contextmanager
def site(
    folder: Path,
    data_sets: Iterable[Dataset] = (),
    items: Iterable[Item] = (),
    *,
    changes: Changes | None = None,
    access: Callable[[Archive], AccessControl] | None = None,
    tls: ServerTls | None = None,
    site_facts: SiteFacts = SiteFacts(),  # noqa: B008 - frozen
    idle_seconds: float = IDLE_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[Site]:
    """Run the web server in a thread of its own, over a real archive and worklist with this content."""
    archive = Archive.open(folder / "pacs.db", folder / "instances")
    worklist = Worklist.open(folder / "worklist.db")
    for ds in data_sets:
        receive(archive, ds, folder)
    for each in items:
        worklist.schedule(each, action_id=f"action-{each.accession_number}", content_hash="1", now=NOW)
    opened = access(archive) if access else None
    served = Site(
        0, archive, worklist, healthy(), folder, changes or Changes(), folder / "viewer", opened, tls, site_facts
    )
    try:
        with _serving(served, idle_seconds, patience_seconds):
            yield served
    finally:
        archive.close()
        worklist.close()


@contextmanager
def _serving(served: Site, idle_seconds: float, patience_seconds: float) -> Iterator[None]:
    ready, loop = threading.Event(), asyncio.new_event_loop()
    spool = Spool(served.folder / "spool")
    spool.open()
    stop = asyncio.Event()

    async def serve() -> None:
        async with Renderer(1) as renderer:
            app = application(
                served.archive, served.worklist, renderer, spool=spool, changes=served.changes, viewer=served.viewer,
                health=lambda: served.report, site="Van 7",
                clock=lambda: NOW, access=served.access, peers=PEERS, patience_seconds=patience_seconds,
                site_facts=served.site_facts,
                evidence=Evidence(served.archive, served.worklist, holding=HoldRules(served.archive, served.worklist)),
            )  # fmt: skip
            served.routes = tuple((each.method, each.resource.canonical) for each in app.router.routes())
            options = {"tls": served.tls, "idle_seconds": idle_seconds}
            async with serving(app, host="127.0.0.1", port=0, **options) as served.port:
                ready.set()
                await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
