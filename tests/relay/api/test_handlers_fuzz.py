"""The REST for scripts under fire: schemathesis makes requests of the document and compares what comes with it.

Bounded by the number of examples, so that a run is seconds; more is asked for with SCHEMATHESIS_EXAMPLES.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.relay import served
from tests.relay.access.test_middleware import PASSWORD, door_in
from tests.relay.served import STUDY, first_study, item, other_study
from tests.tools.waiting import PATIENCE_SECONDS

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "10")

KNOWN = f'[parameters]\n"path.study" = "{STUDY}"\n"path.series" = "{STUDY}.1"\n"path.instance" = "{STUDY}.1.2"\n'
"""Half of the runs go to what is there, so that they get further than "not found"."""


@pytest.mark.parametrize("known", [KNOWN, ""], ids=["what is there", "anything"])
def test_no_request_gets_an_answer_that_the_document_does_not_have(tmp_path: Path, known: str) -> None:
    (tmp_path / "schemathesis.toml").write_text(known)
    content = [*first_study(), other_study()]
    with served.site(tmp_path, content, [item()], access=door_in(tmp_path)) as site:
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(tmp_path / "schemathesis.toml"),
            "run", f"{site.url}/api/v1/openapi.json", "--auth", f"otto:{PASSWORD}", "--phases", "coverage,fuzzing",
            "--max-examples", EXAMPLES, "--checks", "all", "--seed", "20261122", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=4 * PATIENCE_SECONDS, check=False
        )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 14" in done.stdout
