"""Logging: one line per fact, with a short constant event and the rest as key=value.

JSON lines on standard error for services (journald, containers), readable columns when it is a terminal. Log lines of
libraries (from WARNING on) have the same form. `structlog.contextvars.bind_contextvars(association=...)` adds a key to
all later lines of a thread or task.

No patient data: UIDs and accession numbers are allowed; names, birth dates and patient ids never.

Not for: metrics, audit.
"""

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.errors import GatewayError

Processor = Callable[[WrappedLogger, str, EventDict], EventDict | str | bytes]

OTHERS = {
    "": logging.WARNING,
    "pynetdicom": logging.WARNING,  # below that it prints identifiers, that is patient data
    "pydicom": logging.CRITICAL,  # quotes the values it complains about
    "aiohttp.access": logging.ERROR,  # relay.web has a line of its own
    "azure": logging.WARNING,
    "asyncio": logging.WARNING,
}

log = structlog.get_logger()


def configure(level: str, *, process: str) -> None:
    """Set logging up for this process; call it once, right after the settings are read."""
    stream = sys.stderr
    render = _renderer(stream)
    structlog.configure(
        processors=[*_common(process), *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unfailing(stream))),
        cache_logger_on_first_use=True,
    )
    _route_others(process, stream=stream, render=render)
    warnings.showwarning = _show_warning
    threading.excepthook = _thread_died


class _Unfailing:
    """A stream that drops a line which cannot be written, because a full disk or a broken pipe must not stop work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _common(process: str) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
        safe_exception,
        _in_order,
    ]


def _renderer(stream: TextIO) -> list[Processor]:
    if stream.isatty():
        return [structlog.dev.ConsoleRenderer(sort_keys=False)]
    return [structlog.processors.JSONRenderer(default=str)]


def _named(process: str) -> Processor:
    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    return add_process


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the keys of every line first, so that columns of raw JSON can be read."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "process", "event")}
    return {**first, **event}


def safe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by `error`, `reason` and `trace` without any text that may hold patient data."""
    information = event.pop("exc_info", None)
    if information is True:
        information = sys.exc_info()
    error = information[1] if isinstance(information, tuple) else information
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        # Only our own sentences and the system's are known to hold no patient data; a library may quote a value. For
        # the same reason the trace has places and no source lines or variables.
        if isinstance(error, GatewayError | OSError):
            event["reason"] = str(error)
        event["trace"] = _lines(error.__traceback__)
    return event


def _lines(trace: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def _route_others(process: str, *, stream: TextIO, render: list[Processor]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_common(process), structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.getLogger().handlers = [handler]
    for name, threshold in OTHERS.items():
        logging.getLogger(name).setLevel(threshold)


def _show_warning(  # noqa: PLR0917 - the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # Without its text, because pydicom's warnings quote the value, for example a malformed birth date.
    del message, file, line
    log.debug("library warning", category=category.__name__, where=f"{filename}:{lineno}")


def _thread_died(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread else "?"
    log.error("thread died", thread=name, exc_info=arguments.exc_value)
