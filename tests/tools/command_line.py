"""Runs commands of `gateway`, in this process or as the real one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from operations.cli import app


def call(*arguments: str | Path) -> Result:
    """Run a command here; what it raises is raised."""
    return CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)


def run(*arguments: str | Path, typed: str = "") -> tuple[int, str]:
    """Run a command here; its exit code, and what it printed with the sentence of what it raised."""
    result = CliRunner().invoke(app, [str(part) for part in arguments], input=typed)
    raised = "" if result.exception is None or isinstance(result.exception, SystemExit) else str(result.exception)
    return result.exit_code, result.output + raised


def said(*arguments: str | Path, code: int = 0) -> str:
    """Run a command here that ends with this exit code; what it printed."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    return result.output


def facts(*arguments: str | Path, exit_code: int = 0) -> Any:
    """Run a command here with `--json`; what it printed."""
    result = call(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command, for what only a process has: exit codes and standard error."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )  # fmt: skip
