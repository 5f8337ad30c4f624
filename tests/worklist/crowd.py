"""Worklists of thousands of items, filled through the worklist's own code."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from gateway.dataset.dicom_json import DicomJson, items, sequence, tag
from gateway.dataset.dicom_json import element as attribute
from gateway.messages import WorklistItem
from worklist import Item, Worklist

A_DAY = 50
FIRST_DAY = date(2020, 1, 6)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
WRITERS = 64
"""Threads that schedule: as many as share a commit."""

_STEP = "ScheduledProcedureStepSequence"


def scheduled(number: int, model: Item) -> Item:
    """The item of a number: 50 a day, one every ten minutes from seven o'clock."""
    minutes = 7 * 60 + number % A_DAY * 10
    step = items(model.data_set, _STEP)[0] | _attributes(
        ScheduledProcedureStepStartDate=day(number // A_DAY),
        ScheduledProcedureStepStartTime=f"{minutes // 60:02d}{minutes % 60:02d}00",
        ScheduledProcedureStepID=f"A{number:07d}",
    )
    data_set = model.data_set | {tag(_STEP): sequence(step)}
    data_set |= _attributes(
        AccessionNumber=f"A{number:07d}",
        RequestedProcedureID=f"A{number:07d}",
        PatientID=f"{number:010d}",
        PatientName=f"SMITH{number % 997}^Zo\u00eb{number % 89}",
    )
    return replace(model, data_set=data_set)


def _attributes(**values: str) -> DicomJson:
    return {tag(keyword): attribute(keyword, value) for keyword, value in values.items()}


def day(number: int) -> str:
    """The date of a clinic day."""
    return f"{FIRST_DAY + timedelta(days=number):%Y%m%d}"


def template() -> Item:
    """What all items have in common."""
    return Item.from_message(
        WorklistItem.model_validate(
            {
                "accession_number": "A",
                "participant": {"nhs_number": "1", "name": "A^B", "birth_date": "19600102", "sex": "F"},
                "scheduled": {"date": "20200101", "time": "0900"},
                "procedure": {"modality": "MG", "study_description": "Screening mammography"},
            }
        )
    )


def fill(path: Path, size: int) -> None:
    """Schedule so many items, each by itself as the cloud does."""
    model = template()
    with closing(Worklist.open(path)) as worklist, ThreadPoolExecutor(WRITERS) as writers:

        def schedule(number: int) -> None:
            worklist.schedule(scheduled(number, model), action_id=f"b{number}", content_hash="h", now=NOW)

        for _ in writers.map(schedule, range(size), chunksize=1):
            pass
