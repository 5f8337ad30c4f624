"""Browser sessions: random tokens in the memory of this process, and when they end.

A session ends after the idle time (it is *locked*), LONGEST_SECONDS after it began, when its user's password or role
changes, and when the relay ends. A display, the wallboard in a room, has none of these two times; the middleware lets
it see the wallboard alone. At most REMEMBERED are kept, the least recently used goes first.

Not here: cookies (`relay.access.cookies`), which requests extend a session (`relay.access.middleware`), passwords
(`relay.access.users`).
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from relay.access.users import Account, User

TOKEN_BYTES = 32
LONGEST_SECONDS = 12 * 3600.0
"""A shift; then even a session in constant use ends."""

IDLE_MINUTES = 15.0
REMEMBERED = 1000


@dataclass(slots=True)
class Session:
    """A session of one browser. `account` is the one that the password was checked against, None after sign-in by the
    identity provider; `began` and `used` are seconds of the clock."""

    user: User
    account: Account | None
    is_display: bool
    began: float
    used: float
    is_over: bool = False
    is_end_recorded: bool = False
    """The audit trail has the end of the session."""


class Sessions:
    """All sessions. `account` returns the account of a name as it is now, None when there is none."""

    def __init__(
        self,
        account: Callable[[str], Account | None],
        *,
        idle_seconds: float = 60 * IDLE_MINUTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._account = account
        self.idle_seconds = idle_seconds
        self._clock = clock
        # In memory: a signed cookie would outlast signing out, and a file would be one more secret on disk.
        self._all: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, user: User, account: Account | None, *, is_display: bool = False) -> str:
        """Begin a session; return its token for the cookie."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._clock()
        self._all[_key(token)] = Session(user, account, is_display, now, now)
        if len(self._all) > REMEMBERED:
            self._all.popitem(last=False)
        return token

    def find(self, token: str) -> Session | None:
        """Return the session of a token, over or not; None for an unknown token."""
        found = self._all.get(_key(token))
        if found is not None and not found.is_over:
            found.is_over = self._must_end(found)
        return found

    def use(self, token: str) -> None:
        """Restart the idle time."""
        if (found := self._all.get(_key(token))) is not None and not found.is_over:
            found.used = self._clock()
            self._all.move_to_end(_key(token))

    def end(self, token: str) -> Session | None:
        """Forget a session and return it; None for an unknown token."""
        return self._all.pop(_key(token), None)

    def _must_end(self, session: Session) -> bool:
        # Bound to the account that was checked: a new password, another role or removal ends the session.
        if session.account is not None and self._account(session.user.name) != session.account:
            return True
        now = self._clock()
        is_old = now - session.used >= self.idle_seconds or now - session.began >= LONGEST_SECONDS
        return is_old and not session.is_display


def _key(token: str) -> bytes:
    # By digest, so that the time of a lookup shows nothing about the tokens there are.
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
