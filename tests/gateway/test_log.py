"""Logs: JSON lines of facts, and nothing in them that other code put into an exception's or a warning's text."""

import json
import subprocess
import sys

import pytest

from gateway.log import safe_exception

PREAMBLE = """
import logging, threading, warnings
import structlog
from gateway.errors import NotFound
from gateway.log import configure
configure("INFO", process="worklist")
log = structlog.get_logger()
"""


def lines(program: str) -> list[dict[str, object]]:
    """Run a small program as a process of its own, because logging is configured once per process."""
    done = subprocess.run([sys.executable, "-c", PREAMBLE + program], capture_output=True, text=True, check=True)
    found: list[dict[str, object]] = [json.loads(line) for line in done.stderr.splitlines()]
    for line in found:
        assert line.pop("timestamp")
        assert line.pop("process") == "worklist"
    return found


def test_a_line_is_a_constant_event_and_its_facts() -> None:
    assert lines("log.info('instance stored', size_bytes=17)") == [
        {"level": "info", "event": "instance stored", "size_bytes": 17}
    ]


def test_what_is_below_the_level_is_not_written() -> None:
    assert lines("log.debug('every step')") == []


def test_the_association_is_bound_once_and_on_every_line_after() -> None:
    program = "structlog.contextvars.bind_contextvars(association='a1')\nlog.info('one')\nlog.info('two')"
    assert [line["association"] for line in lines(program)] == ["a1", "a1"]


def test_the_text_of_a_foreign_exception_stays_out() -> None:
    program = "try:\n    int('DOE^JANE')\nexcept ValueError:\n    log.exception('instance refused')"
    [line] = lines(program)
    assert line.pop("trace") == ["<string>:9 <module>"]
    assert line == {"level": "error", "event": "instance refused", "error": "ValueError"}


def test_the_sentence_of_our_own_exception_is_told() -> None:
    program = "try:\n    raise NotFound('No step 1.2.3.')\nexcept NotFound:\n    log.exception('step refused')"
    [line] = lines(program)
    assert (line["error"], line["reason"]) == ("NotFound", "No step 1.2.3.")


def test_other_libraries_are_heard_from_warning_on_in_the_same_form() -> None:
    program = "logging.getLogger('aiohttp.server').warning('odd %s', 'request')\nlogging.getLogger('azure').info('x')"
    assert lines(program) == [{"level": "warning", "event": "odd request", "logger": "aiohttp.server"}]


@pytest.mark.parametrize("library", ["pynetdicom", "pydicom"])
def test_identifiers_that_dicom_libraries_log_stay_out(library: str) -> None:
    assert lines(f"logging.getLogger('{library}.assoc').info('(0010,0010) PN [DOE^JANE]')") == []


def test_the_text_of_a_warning_stays_out() -> None:
    assert lines("warnings.warn('Invalid value for VR DA: 19610101x')") == []


def test_a_thread_that_dies_is_told_without_its_text() -> None:
    program = "t = threading.Thread(target=lambda: int('DOE^JANE'), name='w')\nt.start()\nt.join()"
    [line] = lines(program)
    assert line.pop("trace")
    assert line == {"level": "error", "event": "thread died", "thread": "w", "error": "ValueError"}


def test_an_event_without_an_exception_is_left_alone() -> None:
    assert safe_exception(None, "info", {"event": "x", "exc_info": None}) == {"event": "x"}


def test_a_log_that_cannot_be_written_fails_nobodys_work() -> None:
    program = PREAMBLE + "log.error('lost'); logging.error('lost too'); print('went on')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert done.stdout == "went on\n"
