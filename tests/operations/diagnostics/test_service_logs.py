"""Of the lines in a log, the newest of our own are kept."""

import json

from operations.diagnostics.service_logs import LOG_BYTES, own_lines


def test_of_a_flood_of_lines_the_newest_are_kept() -> None:
    line = json.dumps({"event": "x", "level": "info", "process": "pacs", "filler": "y" * 1000})
    lines, left_out = own_lines([line] * 10_000 + [line.replace("x", "last")])
    assert (sum(map(len, lines)) <= LOG_BYTES, "last" in lines[-1], left_out) == (True, True, 0)


def test_a_line_that_would_be_too_long_is_left_out() -> None:
    assert own_lines([json.dumps({"event": "x" * 20_000, "level": "info", "process": "p"})]) == ([], 1)
