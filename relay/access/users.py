"""The file of users with passwords, the check of a password, and the relay's own credential.

Passwords are scrypt hashes (RFC 7914) with a salt each. A change of the file counts for the next request. A right
password is remembered for REMEMBERED_SECONDS. The file is replaced as a whole and readable by its owner only.

At each start the relay writes a credential of its own to a file that only this service can read. `gateway check` proves
with it that DICOMweb answers. It has the role viewer, and only from this machine.

Not here: roles (`relay.access.permissions`), tokens of others (`relay.access.oidc_tokens`), HTTP
(`relay.access.middleware`).
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from gateway.errors import Conflict, InvalidValue, NotFound, SettingsError
from gateway.fsync import make_folder, sync_folder
from relay.access.permissions import Role

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1
"""32 MB and a tenth of a second on the site's box for each guess."""

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 256
"""NIST SP 800-63B asks for 8 at least and no rules about kinds of characters; length is what helps."""

REMEMBERED_SECONDS = 300.0
_REMEMBERED = 200

CHECK, CLOUD = "gateway-check", "cloud"
"""User names that go with the relay's own credential: an operator's check, and the cloud through the relay."""
OWN = frozenset({CHECK, CLOUD})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated user."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the file has it; `salt` and `hash` are hex, `n` is the cost of scrypt."""

    name: str
    role: Role
    salt: str
    hash: str
    n: int = SCRYPT_N

    def fits(self, password: str) -> bool:
        """Is this the password? Takes 0.1 s: call it in a thread."""
        return hmac.compare_digest(hashed(password, self.salt, self.n), self.hash)


def hashed(password: str, salt: str, n: int = SCRYPT_N) -> str:
    """Return the scrypt hash of a password, in hex; `salt` is hex as well."""
    raw = password.encode("utf-8", "replace")[: 4 * LONGEST_PASSWORD]
    found = hashlib.scrypt(raw, salt=bytes.fromhex(salt), n=n, r=SCRYPT_R, p=SCRYPT_P, maxmem=256 * n * SCRYPT_R)
    return found.hex()


def account(name: str, role: Role, password: str, *, n: int = SCRYPT_N) -> Account:
    """Make an account. Raises InvalidValue for an unfit name or password."""
    if not _NAME.fullmatch(name) or name in OWN:
        raise InvalidValue("A user's name has 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit.")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidValue(f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    salt = secrets.token_hex(16)
    return Account(name, role, salt, hashed(password, salt, n), n)


class UserFile:
    """The file of users. Reading raises SettingsError when it cannot be read or is not such a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Account]:
        """Return all accounts by name; none without a file."""
        try:
            found = json.loads(self.path.read_text())
            return {each["name"]: Account(**{**each, "role": Role.named(each["role"])}) for each in found["users"]}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SettingsError(f"The file of users {self.path} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{self.path} is not a file of users; put it back from a backup.") from error

    def add(self, new: Account) -> None:
        """Add a user. Raises Conflict."""
        self.refuse_known(new.name)
        self._write({**self.read(), new.name: new})

    def refuse_known(self, name: str) -> None:
        """Raise Conflict if there is a user of this name."""
        if name in self.read():
            raise Conflict(f"There is a user {name} already; 'gateway users passwd' changes the password.")

    def replace(self, new: Account) -> None:
        """Replace a user's account. Raises NotFound."""
        self._write({**self._with(new.name), new.name: new})

    def remove(self, name: str) -> None:
        """Remove a user. Raises NotFound."""
        accounts = self._with(name)
        del accounts[name]
        self._write(accounts)

    def find(self, name: str) -> Account:
        """Return one account. Raises NotFound."""
        return self._with(name)[name]

    def mark(self) -> tuple[int, int, int] | None:
        """Return a value that differs once the file was written or replaced; None without a file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _with(self, name: str) -> dict[str, Account]:
        accounts = self.read()
        if name not in accounts:
            raise NotFound(f"There is no user {name}; see 'gateway users list'.")
        return accounts

    def _write(self, accounts: Mapping[str, Account]) -> None:
        users = [
            {"name": each.name, "role": each.role.name.lower(), "salt": each.salt, "hash": each.hash, "n": each.n}
            for each in accounts.values()
        ]
        write_secret(self.path, json.dumps({"users": users}, indent=1))


class Passwords:
    """Checks names and passwords against the file as it is now. Its methods block: call them in a thread."""

    def __init__(self, file: UserFile, *, clock: Callable[[], float] = monotonic) -> None:
        self._file = file
        self._clock = clock
        self._mark: tuple[int, int, int] | None = None
        self._accounts: dict[str, Account] = {}
        # Checked for unknown names, so that they take as long as known ones; no password has this hash.
        self._nobody = Account("", Role.VIEWER, secrets.token_hex(16), "")
        self._key = secrets.token_bytes(32)
        # A viewer sends the password with each of hundreds of requests. Only digests, by a key of this process.
        self._right: OrderedDict[bytes, tuple[User, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._at_a_time = threading.Semaphore(2)  # 32 MB and one core each

    def any(self) -> bool:
        """Are there any users?"""
        with self._lock:
            self._look()
            return bool(self._accounts)

    def account(self, name: str) -> Account | None:
        """Return the account of this name as it is now; None when there is none."""
        with self._lock:
            self._look()
            return self._accounts.get(name)

    def remembered(self, name: str, password: str) -> User | None:
        """Return the user if this password was right in the last REMEMBERED_SECONDS, else None."""
        with self._lock:
            self._look()
            found = self._right.get(self._digest(name, password))
            return found[0] if found and found[1] > self._clock() else None

    def check(self, name: str, password: str) -> User | None:
        """Return the user; None when name and password do not go together. Takes 0.1 s."""
        with self._lock:
            self._look()
            kept = self._accounts.get(name, self._nobody)
        with self._at_a_time:
            if not kept.fits(password) or kept is self._nobody:
                return None
        user = User(kept.name, kept.role)
        with self._lock:
            if self._accounts.get(name) == kept:  # the file may have changed during the check
                self._right[self._digest(name, password)] = (user, self._clock() + REMEMBERED_SECONDS)
                if len(self._right) > _REMEMBERED:
                    self._right.popitem(last=False)
        return user

    def _look(self) -> None:
        mark = self._file.mark()
        if mark != self._mark:
            self._accounts = self._file.read()
            self._mark = mark
            self._right.clear()

    def _digest(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{name}\0{password}".encode("utf-8", "replace"), "sha256")


class OwnToken:
    """The relay's own credential for this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = secrets.token_urlsafe(32)

    def write(self) -> None:
        """Write the credential to its file, readable by its owner only."""
        write_secret(self._path, self._token)

    def authorization(self, name: str) -> str:
        """Return the Authorization header for one of `OWN` (RFC 7617)."""
        return basic(name, self._token)

    def fits(self, password: str) -> bool:
        """Is this the credential?"""
        return hmac.compare_digest(self._token.encode(), password.encode("utf-8", "replace"))


def basic(name: str, password: str) -> str:
    """Return the value of a Basic Authorization header (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


def write_secret(path: Path, text: str) -> None:
    """Replace a file by one that only its owner may read, as a whole and synced."""
    make_folder(path.parent)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)
