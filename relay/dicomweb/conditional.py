"""Conditional and range requests (RFC 9110 Sections 13 and 14), decided without a socket.

Rules. What is stored never changes, so the digests of what an answer is made of, and how it was asked for, name its
version for ever. Such a name is a strong ETag: bodies are made so that the same version has the same bytes, multipart
boundaries included. If-None-Match goes before If-Modified-Since. One range of bytes is served; what asks for several,
or in a unit we do not know, gets the whole, as Section 14.2 allows.

Not here: sending (`relay.dicomweb.bodies`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import ClassVar

import gateway
from gateway.errors import Refusal


class RangeNotSatisfiable(Refusal):
    """A range of bytes lies behind the end (RFC 9110 Section 15.5.17)."""

    dimse_status: ClassVar[int] = 0x0110
    http_status: ClassVar[int] = 416
    code: ClassVar[str] = "range_not_satisfiable"


@dataclass(frozen=True)
class Version:
    """Which bytes an answer has. `modified` is the UTC text of when they came to be; empty where that says nothing."""

    tag: str
    modified: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What tells the client; it asks again each time, since an object may be gone or its reader shut out."""
        known = {"ETag": f'"{self.tag}"', "Cache-Control": "private, no-cache"}
        return known | (
            {"Last-Modified": format_datetime(_moment(self.modified), usegmt=True)} if self.modified else {}
        )


def version(*parts: object, modified: str = "") -> Version:
    """Name a version by all that it depends on; another release may write the same thing differently."""
    text = "\n".join(map(str, (gateway.__version__, *parts)))
    return Version(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32], modified)


def is_known(current: Version, headers: Mapping[str, str]) -> bool:
    """Does the client have this version already (304)?"""
    if (tags := headers.get("If-None-Match")) is not None:
        return tags.strip() == "*" or current.tag in re.findall(r'"([^"]*)"', tags)
    since = _date(headers.get("If-Modified-Since", ""))
    return since is not None and bool(current.modified) and _moment(current.modified) <= since


def byte_range(current: Version, headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """The first byte wanted and the one behind the last; None for the whole. Raises RangeNotSatisfiable."""
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", headers.get("Range", "").replace(" ", ""), re.ASCII)
    if asked is None or asked[0] == "bytes=-" or not _still_holds(current, headers.get("If-Range")):
        return None
    first, last = asked[1], asked[2]
    if first == "":
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
    if first and last and int(last) < int(first):
        return None
    if begin >= end:
        raise RangeNotSatisfiable(f"There are {size} bytes; the range asked for lies behind them.")
    return begin, end


def _still_holds(current: Version, condition: str | None) -> bool:
    if condition is None:
        return True
    since = _date(condition)
    return condition.strip() == f'"{current.tag}"' or (
        since is not None and bool(current.modified) and _moment(current.modified) == since
    )


def _moment(text: str) -> datetime:
    """HTTP dates have seconds."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
