"""What the cloud is told of an image: the event's parameters out of the data set (CONTRACTS H). Pure.

Thumbnail and action id are added by the relay when it sends, because they can be derived then.
"""

from collections.abc import Mapping

from gateway.messages import (
    Acquisition,
    Dimensions,
    Image,
    ImagedParticipant,
    ImageReceived,
    Series,
    Study,
)
from pacs.archive.attributes import Json, count, frame_count, items, text
from pacs.archive.identity import Identity
from pacs.archive.index import Receipt


def image_received(data_set: Json, found: Identity, receipt: Receipt) -> ImageReceived:
    """Describe a stored image."""
    return ImageReceived(
        participant=ImagedParticipant(nhs_number=text(data_set, "00100020"), patient_name=text(data_set, "00100010")),
        study=Study(
            accession_number=text(data_set, "00080050"),
            study_instance_uid=found.study_instance_uid,
            modality=text(data_set, "00080060"),
            study_date=text(data_set, "00080020"),
            study_time=text(data_set, "00080030"),
            study_description=text(data_set, "00081030"),
        ),
        series=Series(
            series_instance_uid=found.series_instance_uid,
            series_number=text(data_set, "00200011"),
            series_description=text(data_set, "0008103E"),
        ),
        image=Image(
            sop_instance_uid=found.sop_instance_uid,
            sop_class_uid=found.sop_class_uid,
            transfer_syntax_uid=receipt.transfer_syntax_uid,
            instance_number=text(data_set, "00200013"),
            dimensions=Dimensions(
                rows=count(data_set, "00280010"), columns=count(data_set, "00280011"), frames=frame_count(data_set)
            ),
            acquisition=acquisition(data_set),
            size_bytes=receipt.size_bytes,
            sha256=receipt.sha256,
            received_at=receipt.received_at,
        ),
    )


def acquisition(data_set: Json) -> Acquisition:
    """How the image was taken (PS3.3 C.8.11.7); for tomosynthesis the laterality stands in Frame Anatomy."""
    view = next(iter(items(data_set, "00540220")), Json())
    found: dict[str, object] = {name: text(data_set, tag) for name, tag in _ACQUISITION.items()}
    found["view_code"] = _code(view)
    found["view_modifiers"] = tuple(code for item in items(view, "00540222") if (code := _code(item)))
    found["laterality"] = text(data_set, "00200062") or _frame_laterality(data_set)
    return Acquisition.model_validate(found)


_ACQUISITION: Mapping[str, str] = {
    "view_position": "00185101",
    "presentation_intent": "00080068",
    "partial_view": "00281350",
    "breast_implant_present": "00281300",
    "organ_dose_dgy": "00400316",
    "entrance_dose_mgy": "00408302",
    "kvp": "00180060",
    "exposure_uas": "00181153",
    "half_value_layer_mm": "00400314",
    "compression_force_n": "001811A2",
    "body_part_thickness_mm": "001811A0",
    "anode_target_material": "00181191",
    "filter_material": "00187050",
    "detector_id": "0018700A",
}


def _code(item: Json) -> str:
    return text(item, "00080100") or text(item, "00080119")


def _frame_laterality(data_set: Json) -> str:
    for groups in (items(data_set, "52009229"), items(data_set, "52009230")):  # shared, then per frame
        for anatomy in items(next(iter(groups), Json()), "00209071"):
            return text(anatomy, "00209072")
    return ""
