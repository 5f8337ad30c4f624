"""TLS reload: new connections to a listener get a renewed certificate without a restart.

The files are checked when a connection comes, and by `still_working` of the listener, at most once a second. Files that
do not load change nothing but the log. Existing connections keep their certificate.

Not for: the choice of files and their requirements (`tls`); nor for calls of ours, which read the files each time.
"""

import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Self

import structlog

from gateway.errors import SettingsError
from gateway.settings import GatewaySettings
from gateway.tls import TlsFiles, server_context

LOOK_SECONDS = 1.0
"""How often the files are checked at most; three system calls each time."""

log = structlog.get_logger()

_Marks = Sequence[tuple[int, int, int] | None]


class ServerTls:
    """The TLS context of a listener, renewed with its files."""

    def __init__(self, files: TlsFiles, context: ssl.SSLContext, marks: _Marks) -> None:
        self._files = files
        self._context = context
        self._marks = marks
        self._looked_at = monotonic()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self | None:
        """That of a site; None without TLS. Raises SettingsError for files that do not serve."""
        files = TlsFiles.of(settings)
        return None if files is None else cls.of_files(files)

    @classmethod
    def of_files(cls, files: TlsFiles) -> Self:
        """That of these files. Raises SettingsError when they do not serve."""
        marks = _marks(files)  # before reading, so that a change meanwhile is seen at the next look
        return cls(files, server_context(files), marks)

    def context(self) -> ssl.SSLContext:
        """The one for the next connection."""
        with self._lock:
            if monotonic() - self._looked_at >= LOOK_SECONDS:
                self._looked_at = monotonic()
                self._look()
            return self._context

    def _look(self) -> None:
        # By looking at the files, because a signal, a watcher or a command could be forgotten.
        marks = _marks(self._files)
        if marks == self._marks:
            return
        self._marks = marks  # before reading, so that a set that does not load is logged once and not each second
        try:
            self._context = server_context(self._files)
        except (SettingsError, OSError) as error:
            # A half-written or mismatched set keeps no machine away: a clinic at work is worth more than the newest
            # certificate.
            log.error("certificate not renewed", reason=str(error), remedy="The one before stays; gateway tls check.")
        else:
            log.info("certificate renewed", certificate=str(self._files.certificate))


def _marks(files: TlsFiles) -> _Marks:
    """Values that differ when a file was written, exchanged or made readable; None for one that is not there."""
    return [_mark(path) for path in (files.certificate, files.key, files.client_ca) if path is not None]


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # ctime and not mtime, because a change of permissions counts too, and copying tools may keep the mtime.
    return status.st_ino, status.st_ctime_ns, status.st_size
