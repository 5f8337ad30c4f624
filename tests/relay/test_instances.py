"""What is kept of stored instances is enough, and each is read once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs import Archive
from relay.exams import exam
from relay.instances import Instances, reduced
from tests.relay import served
from tests.relay.served import STUDY


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive.open(tmp_path / "pacs.db", tmp_path / "instances")
    for ds in (*served.first_study(), served.other_study()):
        served.receive(archive, ds, tmp_path)
    yield archive
    archive.close()


def test_an_exam_is_the_same_of_whole_data_sets_and_of_what_is_kept(archive: Archive) -> None:
    whole = [dict(each) for each in archive.metadata(STUDY)]
    kept = [json.loads(json.dumps(reduced(each))) for each in whole]
    assert exam(served.item(), kept) == exam(served.item(), whole)
    assert sum(len(each) for each in kept) < sum(len(each) for each in whole) / 2


def test_the_instances_of_studies_and_of_an_accession_number_are_found(archive: Archive) -> None:
    instances = Instances(archive)
    found = [each.stored.sop_instance_uid for each in instances.of_studies([STUDY, "2.25.7", "no uid", ""])]
    assert found == [f"{STUDY}.1.1", f"{STUDY}.1.2", f"{STUDY}.1.3", f"{STUDY}.2.1", f"{STUDY}.1.9"]
    assert [each.stored.sop_instance_uid for each in instances.of_accession_number("ACC-2")] == ["2.25.200.1.1"]
    assert instances.of_accession_number("ACC*") == []
    assert instances.of_studies([]) == []
