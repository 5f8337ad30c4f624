"""The command line as a whole: help with an example, exit codes, one sentence for what is wrong."""

from pathlib import Path

import pytest
from typer.main import get_command

from gateway import __version__
from operations.cli import app
from tests.tools.command_line import command, facts


def commands() -> list[tuple[str, str]]:
    """Every command with its help."""
    found = []
    for name, each in get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, leaf in getattr(each, "commands", {"": each}).items():
            found.append((f"{name} {inner}".strip(), leaf.help or ""))
    return found


def test_the_version_is_told(empty_site: Path) -> None:
    assert facts("version") == {"version": __version__}


@pytest.mark.parametrize(("name", "text"), commands(), ids=[name for name, _ in commands()])
def test_every_command_is_explained_with_an_example(name: str, text: str) -> None:
    assert f"gateway {name}" in text.split("Example:")[1]


def test_wrong_settings_end_with_78_and_name_the_variable(tmp_path: Path) -> None:
    done = command(tmp_path, "status", WORKLIST_PORT="seven")
    assert done.returncode == 78
    assert "WORKLIST_PORT=seven cannot be used" in done.stderr


def test_a_site_that_was_never_started_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = command(tmp_path, "worklist", "list", GATEWAY_DATA_DIR=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
