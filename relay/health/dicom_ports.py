"""Proves the two DICOM ports as a machine uses them: by an association and a C-ECHO to each, again and again.

A port that does not answer is tried again soon, then at growing intervals up to PAUSE_SECONDS. Every wait is bounded,
and ends with the relay.

Not for: judging how old a proof may be (`relay.health.report`).
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from gateway.dicom.admission import OWN_TITLE
from gateway.dicom.requestor import calling, verification
from gateway.errors import PeerError
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from relay.health.report import HopFact

PAUSE_SECONDS = 60.0
SOON_SECONDS = 2.0
"""Pause after the first failure: the services start side by side, and restart within seconds."""

ANSWER_SECONDS = 5.0
"""An echo waits for no disk and no database; what takes longer than this is of no use to a machine either."""

log = structlog.get_logger()


class DicomPort:
    """One port and its last proof. `trouble` is the last failure with its remedy, '' when the last proof was good.

    `tls` has the files for a call within TLS. `prove` blocks: call it in a thread.
    """

    def __init__(
        self,
        name: str,
        peer: Peer,
        *,
        remedy: str,
        tls: CallFiles | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.proven_at: datetime | None = None
        self.trouble = ""
        self._peer = peer
        self._remedy = remedy
        self._tls = tls
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._ending = threading.Event()

    @property
    def hop(self) -> HopFact:
        """The fact for the health report."""
        return HopFact(self.name, self.proven_at, self.trouble)

    async def run(self) -> None:
        """Prove it until cancelled."""
        pause = SOON_SECONDS
        try:
            while True:
                await asyncio.to_thread(self.prove)
                pause = min(2 * pause, PAUSE_SECONDS) if self.trouble else SOON_SECONDS
                await asyncio.sleep(pause if self.trouble else PAUSE_SECONDS)
        finally:
            # Cancelling does not reach the thread of `prove`; `_look` ends its wait for an answer.
            self._ending.set()

    def prove(self) -> None:
        """Make one round trip; sets `proven_at` or `trouble`."""
        before = self.trouble
        try:
            self._echo()
        except PeerError as error:
            self.trouble = f"{error} {self._remedy}"
            if self.trouble != before and not self._ending.is_set():
                log.warning("port not proven", port=self.name, reason=self.trouble)
        else:
            self.proven_at, self.trouble = self._clock(), ""
            if before:
                log.info("port proven again", port=self.name)

    def _echo(self) -> None:
        with calling(
            self._peer,
            verification(),
            ae_title=OWN_TITLE,  # admitted without a place on the list of callers, and logged only on trouble
            tls=self._tls,
            answer_seconds=self._answer_seconds,
            look=self._look,
        ) as call:
            call.echo()

    def _look(self) -> None:
        if self._ending.is_set():
            raise PeerError("The relay stops.")
