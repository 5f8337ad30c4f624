"""The events about images: received, rejected, quarantined. Texts are as they came, measures are numbers or null.

Not for: making them of a data set (`pacs.archive.image_event`), the thumbnail (`relay.delivery.composer`).
"""

from typing import Literal

from gateway.messages.envelope import EventParameters, Message
from gateway.messages.fields import Measure


class ImagedParticipant(Message):
    nhs_number: str = ""
    patient_name: str = ""


class Study(Message):
    accession_number: str = ""
    study_instance_uid: str
    modality: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""


class Series(Message):
    series_instance_uid: str
    series_number: str = ""
    series_description: str = ""


class Dimensions(Message):
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None


class Acquisition(Message):
    """How the image was taken (PS3.3 C.8.11.7); the unit is in the name.

    `view_code` and `view_modifiers` are SNOMED CT codes, `view_position` is the older text.
    """

    view_position: str = ""
    view_code: str = ""
    view_modifiers: tuple[str, ...] = ()
    laterality: str = ""
    presentation_intent: str = ""
    partial_view: str = ""
    breast_implant_present: str = ""
    organ_dose_dgy: Measure = None
    entrance_dose_mgy: Measure = None
    kvp: Measure = None
    exposure_uas: Measure = None
    half_value_layer_mm: Measure = None
    compression_force_n: Measure = None
    body_part_thickness_mm: Measure = None
    anode_target_material: str = ""
    filter_material: str = ""
    detector_id: str = ""


class Thumbnail(Message):
    """A small picture to recognise an image by, never to read; `data` is base64, `note` a warning to show with it."""

    data: str
    format: Literal["jpeg"] = "jpeg"
    width: int
    height: int
    note: str = ""


class Image(Message):
    """One stored instance. `sha256` is that of the data set's file as kept; the thumbnail is added at delivery.

    Without a thumbnail, `thumbnail_reason` says why there is none, and `thumbnail_path` where one can be fetched later:
    below the address of this site's HTTP, which the cloud reaches through the hybrid connection.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str = ""
    dimensions: Dimensions = Dimensions()
    acquisition: Acquisition = Acquisition()
    size_bytes: int
    sha256: str
    thumbnail: Thumbnail | None = None
    thumbnail_reason: str | None = None
    thumbnail_path: str | None = None
    received_at: str


class ImageReceived(EventParameters):
    participant: ImagedParticipant
    study: Study
    series: Series
    image: Image

    @property
    def message_type(self) -> str:
        return "study.image_received"

    @property
    def message_id(self) -> str:
        # An object that a modality sends twice is one event, because its instance is stored once.
        return self.image.sop_instance_uid

    @property
    def subject(self) -> str:
        return self.study.study_instance_uid


class ImageRejected(EventParameters):
    """An image is not passed on, for good: a person looked at what was held back and decided so. It stays on site."""

    accession_number: str = ""
    study_instance_uid: str = ""
    sop_instance_uid: str
    reason: str

    @property
    def message_type(self) -> str:
        return "image.rejected"

    @property
    def message_id(self) -> str:
        return f"{self.sop_instance_uid}/rejected"

    @property
    def subject(self) -> str:
        return self.study_instance_uid or self.accession_number or self.sop_instance_uid


class ImageQuarantined(EventParameters):
    """A second, different object came under a UID that is taken; it is kept aside under its `sha256`."""

    accession_number: str = ""
    study_instance_uid: str = ""
    sop_instance_uid: str
    sha256: str
    reason: str

    @property
    def message_type(self) -> str:
        return "image.quarantined"

    @property
    def message_id(self) -> str:
        # With the digest, because any number of different objects may come under one UID.
        return f"{self.sop_instance_uid}/quarantined/{self.sha256[:16]}"

    @property
    def subject(self) -> str:
        return self.study_instance_uid or self.accession_number or self.sop_instance_uid
