"""The event of a stored image, made from its data set (CONTRACTS H). Pure.

Not for: thumbnail and action id, which the relay adds when it sends; the id of the event (`pacs.archive.archive`).
"""

from collections.abc import Mapping

from gateway.dataset.dicom_json import DicomJson, items, number, person_name, verbatim
from gateway.messages import (
    Acquisition,
    Dimensions,
    Image,
    ImagedParticipant,
    ImageReceived,
    Series,
    Study,
)
from pacs.archive.attributes import frame_count
from pacs.archive.identity import Identity
from pacs.archive.index import Receipt


def image_received(data_set: DicomJson, found: Identity, receipt: Receipt) -> ImageReceived:
    """The event of a stored image."""
    return ImageReceived(
        participant=ImagedParticipant(
            nhs_number=verbatim(data_set, "PatientID"), patient_name=person_name(data_set, "PatientName").alphabetic
        ),
        study=Study(
            accession_number=verbatim(data_set, "AccessionNumber"),
            study_instance_uid=found.study_instance_uid,
            modality=verbatim(data_set, "Modality"),
            study_date=verbatim(data_set, "StudyDate"),
            study_time=verbatim(data_set, "StudyTime"),
            study_description=verbatim(data_set, "StudyDescription"),
        ),
        series=Series(
            series_instance_uid=found.series_instance_uid,
            series_number=verbatim(data_set, "SeriesNumber"),
            series_description=verbatim(data_set, "SeriesDescription"),
        ),
        image=Image(
            sop_instance_uid=found.sop_instance_uid,
            sop_class_uid=found.sop_class_uid,
            transfer_syntax_uid=receipt.transfer_syntax_uid,
            instance_number=verbatim(data_set, "InstanceNumber"),
            dimensions=Dimensions(
                rows=number(data_set, "Rows"), columns=number(data_set, "Columns"), frames=frame_count(data_set)
            ),
            acquisition=acquisition(data_set),
            size_bytes=receipt.size_bytes,
            sha256=receipt.sha256,
            received_at=receipt.received_at,
        ),
    )


def acquisition(data_set: DicomJson) -> Acquisition:
    """The acquisition of an image (PS3.3 C.8.11.7)."""
    view = next(iter(items(data_set, "ViewCodeSequence")), {})
    found: dict[str, object] = {name: verbatim(data_set, keyword) for name, keyword in _ACQUISITION.items()}
    found["view_code"] = _code(view)
    found["view_modifiers"] = tuple(code for item in items(view, "ViewModifierCodeSequence") if (code := _code(item)))
    found["laterality"] = verbatim(data_set, "ImageLaterality") or _frame_laterality(data_set)
    return Acquisition.model_validate(found)


_ACQUISITION: Mapping[str, str] = {
    "view_position": "ViewPosition",
    "presentation_intent": "PresentationIntentType",
    "partial_view": "PartialView",
    "breast_implant_present": "BreastImplantPresent",
    "organ_dose_dgy": "OrganDose",
    "entrance_dose_mgy": "EntranceDoseInmGy",
    "kvp": "KVP",
    "exposure_uas": "ExposureInuAs",
    "half_value_layer_mm": "HalfValueLayer",
    "compression_force_n": "CompressionForce",
    "body_part_thickness_mm": "BodyPartThickness",
    "anode_target_material": "AnodeTargetMaterial",
    "filter_material": "FilterMaterial",
    "detector_id": "DetectorID",
}


def _code(item: DicomJson) -> str:
    return verbatim(item, "CodeValue") or verbatim(item, "LongCodeValue")


# Of a tomosynthesis the laterality stands in Frame Anatomy, shared or of the first frame.
def _frame_laterality(data_set: DicomJson) -> str:
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for anatomy in items(next(iter(items(data_set, groups)), {}), "FrameAnatomySequence"):
            return verbatim(anatomy, "FrameLaterality")
    return ""
