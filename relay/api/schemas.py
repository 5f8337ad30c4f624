"""The answers of the REST for scripts: one frozen class for each JSON object, and its making from rows.

Dates and times of DICOM stay as DICOM writes them, our own are UTC ISO text. An unknown value is an empty text. Class
docstrings are descriptions in the OpenAPI document.

Not here: routes and the OpenAPI document (`relay.api.operations`), HTTP (`relay.api.handlers`).
"""

from dataclasses import dataclass

from gateway.dataset.dicom_json import person_name, text
from pacs import SeriesRow, Stored, StudyRow
from worklist import Item


@dataclass(frozen=True, slots=True)
class Study:
    """A study in the archive."""

    study_instance_uid: str
    accession_number: str
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    study_date: str
    study_time: str
    study_description: str
    modalities: tuple[str, ...]
    series_count: int
    instance_count: int
    size_bytes: int
    first_received_at: str
    last_received_at: str


@dataclass(frozen=True, slots=True)
class Series:
    """A series of a study."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    series_number: str
    series_description: str
    instance_count: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored object; `sha256` is that of the file as `/file` gives it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str
    frames: int
    size_bytes: int
    sha256: str
    received_at: str
    calling_ae_title: str


@dataclass(frozen=True, slots=True)
class Appointment:
    """A worklist item."""

    accession_number: str
    state: str
    date: str
    time: str
    modality: str
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    study_instance_uid: str
    study_description: str
    station_ae_titles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an instance; `kind` is stored or removed."""

    number: int
    kind: str
    at: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application that objects can be sent to."""

    ae_title: str


@dataclass(frozen=True, slots=True)
class Studies:
    """A page of studies, the newest first; `next` is the cursor of the next page, empty on the last."""

    studies: tuple[Study, ...]
    next: str


@dataclass(frozen=True, slots=True)
class SeriesList:
    """The series of a study."""

    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Instances:
    """A page of instances in the order of their numbers; `next` is the cursor of the next page, empty on the last."""

    instances: tuple[Instance, ...]
    next: str


@dataclass(frozen=True, slots=True)
class Appointments:
    """The worklist of a day, in clinic order."""

    date: str
    appointments: tuple[Appointment, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes after a number, in order; `last` is the number to ask with next time, `more` whether to ask at once."""

    changes: tuple[Change, ...]
    last: int
    more: bool


@dataclass(frozen=True, slots=True)
class Peers:
    """Whom objects can be sent to."""

    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where something shall be sent: the AE title of one of the peers."""

    to: str


@dataclass(frozen=True, slots=True)
class Owed:
    """How many instances will be sent, and to whom; the archive tries until they are there."""

    to: str
    instances: int


@dataclass(frozen=True, slots=True)
class Error:
    """Why something was refused: a word for programs and a sentence for people."""

    code: str
    message: str


def study(row: StudyRow) -> Study:
    """Make the answer from a study of the archive's list."""
    data_set = row.data_set
    return Study(
        study_instance_uid=row.study_instance_uid,
        accession_number=text(data_set, "AccessionNumber"),
        patient_id=text(data_set, "PatientID"),
        patient_name=person_name(data_set, "PatientName").shown,
        patient_birth_date=text(data_set, "PatientBirthDate"),
        patient_sex=text(data_set, "PatientSex"),
        study_date=text(data_set, "StudyDate"),
        study_time=text(data_set, "StudyTime"),
        study_description=text(data_set, "StudyDescription"),
        modalities=row.modalities,
        series_count=row.series_count,
        instance_count=row.instance_count,
        size_bytes=row.byte_count,
        first_received_at=row.first_received_at,
        last_received_at=row.last_received_at,
    )


def series(study_instance_uid: str, row: SeriesRow) -> Series:
    """Make the answer from a series of the archive's list."""
    data_set = row.data_set
    return Series(
        study_instance_uid=study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        modality=text(data_set, "Modality"),
        series_number=text(data_set, "SeriesNumber"),
        series_description=text(data_set, "SeriesDescription"),
        instance_count=row.instance_count,
    )


def instance(stored: Stored) -> Instance:
    """Make the answer from a stored object."""
    return Instance(**{name: getattr(stored, name) for name in Instance.__slots__})


def appointment(item: Item) -> Appointment:
    """Make the answer from a worklist item."""
    return Appointment(
        accession_number=item.accession_number,
        state=item.state,
        date=item.date,
        time=item.time,
        modality=item.modality,
        patient_id=item.participant_id,
        patient_name=item.patient_name,
        patient_birth_date=item.birth_date,
        patient_sex=item.sex,
        study_instance_uid=item.study_instance_uid,
        study_description=item.study_description,
        station_ae_titles=item.station_ae_titles,
    )
