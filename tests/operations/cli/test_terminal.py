"""operations.cli.terminal: what people see of facts."""

import pytest

from operations.cli.terminal import print_table


def test_a_table_shows_names_values_and_what_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"id": 1, "reason": "The cloud said [no]."}, {"id": 2, "reason": None}])
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["┃", "id", "┃", "reason", "┃"] in shown
    assert ["│", "1", "│", "The", "cloud", "said", "[no].", "│"] in shown
    assert ["│", "2", "│", "None", "│"] in shown


def test_nothing_is_said_to_be_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([])
    assert capsys.readouterr().out == "Nothing.\n"
