"""What is kept of stored instances is enough, and each is read once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs import Archive
from relay.exams.exam import exam
from relay.exams.instances import READ, Instances, reduced
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


class Watched(dict[str, object]):
    """A data set that notes which of its attributes are asked for."""

    asked: set[str] = set()  # noqa: RUF012 - of all of them together

    def get(self, key: str, default: object = None) -> object:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> object:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def test_an_exam_asks_for_nothing_that_is_not_kept(archive: Archive) -> None:
    exam(served.item(), [Watched(each) for each in archive.metadata(STUDY)])
    assert {"00080018", "00540220"} <= Watched.asked <= READ


def test_the_instances_of_studies_are_found_in_the_order_of_their_numbers(archive: Archive) -> None:
    instances = Instances(archive)
    found = [each.stored.sop_instance_uid for each in instances.of_studies([STUDY, "2.25.7", "no uid", ""])]
    assert found == [f"{STUDY}.1.1", f"{STUDY}.1.2", f"{STUDY}.1.3", f"{STUDY}.2.1", f"{STUDY}.1.9"]
    assert instances.of_studies([]) == []


def test_the_instances_of_an_exam_are_those_of_its_study_and_of_its_number(archive: Archive) -> None:
    exams = [(STUDY, "ACC-1"), (STUDY, "ACC-2"), ("", "ACC-2"), ("2.25.7", "ACC*"), ("", ""), ("no uid", "ACC-?")]
    found = [[each.stored.sop_instance_uid for each in of] for of in Instances(archive).of_exams(exams)]
    first = [f"{STUDY}.1.1", f"{STUDY}.1.2", f"{STUDY}.1.3", f"{STUDY}.2.1", f"{STUDY}.1.9"]
    assert found == [first, [*first, "2.25.200.1.1"], ["2.25.200.1.1"], [], [], []]


def test_a_data_set_is_read_once(archive: Archive) -> None:
    instances = Instances(archive)
    first = instances.of_studies([STUDY])
    with archive.write() as conn:
        conn.execute("UPDATE instance SET data_set = x'7b'")  # whoever reads one now fails
    assert [instances.of_studies([STUDY]), *instances.of_exams([("", "ACC-1")])] == [first, first]
    with pytest.raises(ValueError):
        Instances(archive).of_studies([STUDY])


def test_what_is_gone_is_not_given_and_what_comes_anew_is_read(archive: Archive, tmp_path: Path) -> None:
    instances = Instances(archive)
    assert len(instances.of_studies(["2.25.200"])) == 1
    archive.forget("2.25.200", now=served.NOW)
    assert instances.of_studies(["2.25.200"]) == []
