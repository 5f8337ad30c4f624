"""The associations of a machine during one exam: a new one for each message, or one that is kept for each use.

Not for: what is said over one (`scripted_machine`), nor for its bytes (`raw_association`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from gateway.errors import PeerError
from gateway.remote_ae import Peer
from simulator.modality.raw_association import Dialer, RawAssociation
from simulator.modality.script import Behaviour

Use = tuple[tuple[str, str], ...]
"""SOP classes and transfer syntaxes; not the peer, because one application may be worklist and archive."""


class Associations:
    """Opened by `dialer`, kept and ended as `behaviour` says. After the exam: `close`, or `abort`."""

    def __init__(self, behaviour: Behaviour, dialer: Dialer) -> None:
        self._behaviour = behaviour
        self._dialer = dialer
        self._kept: dict[Use, RawAssociation] = {}
        self._idle: list[RawAssociation] = []

    @contextmanager
    def opened(self, peer: Peer, kinds: Sequence[tuple[str, str]]) -> Iterator[RawAssociation]:
        """An association for SOP classes and transfer syntaxes. Raises PeerError, Rejected.

        A new one is ended at the end of the block, and aborted when something is raised; a kept one stays.
        """
        if self._behaviour.associations == "one":
            yield self._kept_for(peer, tuple(kinds))
            return
        association = self._dialer.open(peer, kinds)
        try:
            yield association
        except BaseException:
            association.abort()
            raise
        self._end(association)

    def close(self) -> None:
        """End those that are kept as this machine ends associations, and hang up those that it left idle."""
        self._end_all(self._end)

    def abort(self) -> None:
        """Abort those that are kept, and hang up those that were left idle."""
        self._end_all(RawAssociation.abort)

    def _kept_for(self, peer: Peer, use: Use) -> RawAssociation:
        if use not in self._kept:
            self._kept[use] = self._dialer.open(peer, use)
        return self._kept[use]

    def _end(self, association: RawAssociation) -> None:
        match self._behaviour.farewell:
            case "release":
                association.release()
            case "abort":
                association.abort()
            case "close":
                association.hang_up()
            case "stay":
                self._idle.append(association)

    def _end_all(self, end: Callable[[RawAssociation], None]) -> None:
        for association in self._kept.values():
            with suppress(PeerError):  # every request has its response; the peer may have closed first
                end(association)
        self._kept.clear()
        for association in self._idle:
            association.hang_up()
        self._idle.clear()
