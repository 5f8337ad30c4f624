"""The picture of a planned exposure, uncompressed.

Not for: what a picture shows (`simulator.exam.phantom`), nor for which are taken (`plan`).
"""

from typing import TypedDict

from pydicom import Dataset

from simulator.exam import phantom
from simulator.exam.exam import Exam
from simulator.modality.plan import Shot


class _Size(TypedDict):
    instance_number: int
    rows: int
    columns: int


def picture(shot: Shot, exam: Exam) -> Dataset:
    """Make a planned image, uncompressed."""
    size: _Size = {"instance_number": shot.number, "rows": shot.rows, "columns": shot.columns}
    match shot.kind:
        case "processing":
            return phantom.raw_mammogram(shot.view, exam, **size)
        case "tomosynthesis":
            return phantom.tomosynthesis(shot.view, exam, frames=shot.frames, **size)
        case "synthetic":
            return phantom.synthetic_view(shot.view, exam, **size)
    return phantom.mammogram(
        shot.view, exam, modifiers=shot.modifiers, implant=shot.implant, partial=shot.partial, **size
    )
