"""Which view of which breast an image shows, read from its data set.

Rules (PS3.3 C.8.11.7; CID 4014 and 4015).

* The view is View Code Sequence; View Position counts only where no code is known. A disagreement is a finding.
* The side is Image Laterality; for multi-frame objects Frame Laterality; the series' Laterality comes last.
* An image with a view modifier or with Partial View YES does not stand for its view.
* A view was exposed as often as its most frequent kind of object.

Not here: which views the order wanted (`relay.exams.exam`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateway.dataset.dicom_json import DicomJson, items, number, text, values
from gateway.messages import Finding

STANDARD_VIEWS = ("RCC", "LCC", "RMLO", "LMLO")
"""In hanging order: right on the left, CC above MLO."""

_VIEWS = {
    "CC": ("399162004", "R-10242"),
    "MLO": ("399368009", "R-10226"),
    "ML": ("399260004", "R-10224"),
    "LM": ("399352003", "R-10228"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "FB": ("399196006", "R-10244"),
    "LMO": ("399099002", "R-10230"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
}
"""CID 4014: SNOMED CT code and the older SNOMED-RT code that units still send."""

_MODIFIERS = {
    "magnification": ("399163009", "R-102D6"),
    "spot compression": ("399055006", "R-102D7"),
    "implant displaced": ("399209000", "R-102D5"),
    "cleavage": ("399161006", "R-102D2"),
    "tangential": ("399110001", "R-102C2"),
    "rolled lateral": ("399197002", "R-102D3"),
    "axillary tail": ("399011000",),
    "nipple in profile": ("442581004",),
    "infra-mammary fold": ("442593008",),
    "anterior compression": ("441752004",),
}
"""CID 4015, inside the view's item."""

_KINDS = {
    "for presentation": ("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.13.1.4"),
    "for processing": ("1.2.840.10008.5.1.4.1.1.1.2.1", "1.2.840.10008.5.1.4.1.1.13.1.5"),
    "tomosynthesis": ("1.2.840.10008.5.1.4.1.1.13.1.3",),
}
_GENERATED = frozenset({"GENERATED_2D", "TOMO_2D"})
"""Image Type values of a 2D picture that was computed from a tomosynthesis."""

# A picture that was made to be read before one computed from a volume; raw data is not for display.
_SHOWN_FIRST = ("for presentation", "synthetic", "tomosynthesis", "other", "for processing")


def _by_code(names: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    return MappingProxyType({code: name for name, codes in names.items() for code in codes})


_VIEW_OF, _MODIFIER_OF, _KIND_OF = _by_code(_VIEWS), _by_code(_MODIFIERS), _by_code(_KINDS)


@dataclass(frozen=True)
class Image:
    """One instance as an exam sees it; `laterality` and `view` are empty where the object does not say.

    `kind` is "for presentation", "for processing", "tomosynthesis", "synthetic" or "other".
    """

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    kind: str
    laterality: str
    view: str
    modifiers: tuple[str, ...]
    is_partial: bool
    frames: int
    has_pixels: bool
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        """The view's name as radiographers say it: RCC, LMLO."""
        return self.laterality + self.view

    @property
    def is_standard(self) -> bool:
        """Whether the image stands for one of the four views."""
        # A modifier or Partial View YES marks a deliberate extra exposure, such as a magnification.
        return self.name in STANDARD_VIEWS and not self.modifiers and not self.is_partial

    @property
    def is_implant_displaced(self) -> bool:
        """Whether it is one of the four further views of a breast with an implant."""
        # Counted on their own, because they are taken in addition to the four standard views (Eklund).
        return self.name in STANDARD_VIEWS and self.modifiers == ("implant displaced",) and not self.is_partial


def image(data_set: DicomJson) -> Image:
    """Read view, side and kind of one instance."""
    # View Code Sequence has exactly one item (Type 1, PS3.3 C.8.11.7).
    view = next(iter(items(data_set, "ViewCodeSequence")), {})
    coded, position = _VIEW_OF.get(text(view, "CodeValue"), ""), _position(data_set)
    own_side, series_side = _own_laterality(data_set), text(data_set, "Laterality")
    frames = number(data_set, "NumberOfFrames")
    return Image(
        sop_instance_uid=text(data_set, "SOPInstanceUID"),
        series_instance_uid=text(data_set, "SeriesInstanceUID"),
        study_instance_uid=text(data_set, "StudyInstanceUID"),
        kind=_kind(data_set),
        laterality=own_side or series_side,
        view=coded or position,
        modifiers=_modifiers(view),
        is_partial=text(data_set, "PartialView") == "YES",
        frames=1 if frames is None else frames,
        has_pixels="00280010" in data_set,  # Rows, because the index leaves Pixel Data out
        findings=(*_view_conflict(coded, position), *_side_conflict(own_side, series_side)),
    )


def count(images: Iterable[Image]) -> dict[str, int]:
    """Count exposures per standard view: the most frequent kind of object of a view says how often it was taken."""
    # One exposure may arrive as raw, processed, tomosynthesis and synthetic object: those are one. Two processed images
    # of a view without a modifier are a repeat.
    kinds = Counter((each.name, each.kind) for each in images)
    return {view: max((n for (name, _), n in kinds.items() if name == view), default=0) for view in STANDARD_VIEWS}


def hanging(images: Sequence[Image]) -> dict[str, Image | None]:
    """Choose the picture to show for each standard view.

    Processed comes before synthetic, tomosynthesis and raw; of several exposures the last is shown. Extra views are
    shown only where the standard one is missing.
    """
    return {view: _shown(view, images) for view in STANDARD_VIEWS}


def _shown(view: str, images: Sequence[Image]) -> Image | None:
    # Reversed, because a repeat is made where the first exposure was not good enough; min() takes the first of equals.
    candidates = [each for each in reversed(images) if each.name == view]
    return min(candidates, key=lambda each: (not each.is_standard, _SHOWN_FIRST.index(each.kind)), default=None)


def _position(data_set: DicomJson) -> str:
    position = text(data_set, "ViewPosition").upper()
    return position if position in _VIEWS else ""


def _own_laterality(data_set: DicomJson) -> str:
    anatomies = (
        item
        for group in items(data_set, "SharedFunctionalGroupsSequence")
        for item in items(group, "FrameAnatomySequence")
    )
    return text(data_set, "ImageLaterality") or next((text(item, "FrameLaterality") for item in anatomies), "")


def _kind(data_set: DicomJson) -> str:
    if not _GENERATED.isdisjoint(map(str, values(data_set, "ImageType"))):
        return "synthetic"
    return _KIND_OF.get(text(data_set, "SOPClassUID"), "other")


def _modifiers(view: DicomJson) -> tuple[str, ...]:
    codes = [text(modifier, "CodeValue") for modifier in items(view, "ViewModifierCodeSequence")]
    return tuple(_MODIFIER_OF.get(code, "other modifier") for code in codes if code)


def _view_conflict(coded: str, position: str) -> Iterator[Finding]:
    if coded and position and coded != position:
        yield Finding(
            code="view_conflict", text=f"View Code Sequence says {coded}, View Position {position}; the code was used."
        )


def _side_conflict(own: str, series: str) -> Iterator[Finding]:
    if own and series and own != series:
        yield Finding(
            code="laterality_conflict", text="The laterality of image and series disagree; the image's was used."
        )
