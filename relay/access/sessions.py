"""Who is signed in at a browser: random tokens, kept in the memory of this process, and when they end.

Rules. A session is over when nobody has used it for the idle time (it is *locked*: what is remembered of it is whose it
was), LONGEST_SECONDS after it began, when its user's password or role changes, and when the relay ends. A display, the
wallboard in a room, has none of these two times; the door lets it see the wallboard and nothing else. What is kept is
bounded, the longest unused goes first.

Not here: cookies and pages (`relay.pages.sign_in`), what a person's request is (`relay.access.middleware`), passwords
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
"""A shift; after that even who works without a pause signs in again."""

IDLE_MINUTES = 15.0
REMEMBERED = 1000


@dataclass(slots=True)
class Session:
    """One browser's. `account` is what the password was checked against; None: an identity provider vouched."""

    user: User
    account: Account | None
    is_display: bool
    began: float
    used: float
    is_over: bool = False
    is_told: bool = False
    """Whether the audit trail has its end."""


class Sessions:
    """All there are. `account` gives the account of a name as it is now, None when there is none."""

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
        self._all: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, user: User, account: Account | None, *, is_display: bool = False) -> str:
        """Sign somebody in; gives the token that proves it."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._clock()
        self._all[_key(token)] = Session(user, account, is_display, now, now)
        if len(self._all) > REMEMBERED:
            self._all.popitem(last=False)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token, over or not; None for one that is not known."""
        found = self._all.get(_key(token))
        if found is not None and not found.is_over:
            found.is_over = self._must_end(found)
        return found

    def use(self, token: str) -> None:
        """A person did something."""
        if (found := self._all.get(_key(token))) is not None and not found.is_over:
            found.used = self._clock()
            self._all.move_to_end(_key(token))

    def end(self, token: str) -> Session | None:
        """Forget a session; gives what it was."""
        return self._all.pop(_key(token), None)

    def _must_end(self, session: Session) -> bool:
        if session.account is not None and self._account(session.user.name) != session.account:
            return True
        now = self._clock()
        is_old = now - session.used >= self.idle_seconds or now - session.began >= LONGEST_SECONDS
        return is_old and not session.is_display


def _key(token: str) -> bytes:
    """Looked up by its digest, so that the time it takes tells nothing of the tokens there are."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
