"""Files and queries that cannot be sent."""

from pathlib import Path

import pytest

from operations.dicom_peers import NotAQuery, NotSendable, files, query


def test_a_file_that_is_no_dicom_is_not_sent_and_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotSendable, match=r"notes\.txt is not a DICOM file"):
        list(files([tmp_path]))


@pytest.mark.parametrize(("level", "keys"), [("PATIENT", []), ("STUDY", ["Colour=red"]), ("STUDY", ["=1"])])
def test_a_query_that_is_none_is_refused(level: str, keys: list[str]) -> None:
    with pytest.raises(NotAQuery):
        query(level, keys)
