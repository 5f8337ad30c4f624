"""Conditional and range requests (RFC 9110 Sections 13 and 14), decided without a socket.

A version is named by the digests of the stored objects and the form of the answer. The name is a strong ETag: the same
version has the same bytes, multipart boundaries included. One range of bytes is served; several ranges, or a range in
another unit, get the whole answer.

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
    """Identity of an answer's bytes. `modified` is the time they were made, UTC ISO text; empty where there is none."""

    tag: str
    modified: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """ETag, Cache-Control and, if `modified` is set, Last-Modified."""
        # no-cache: the client revalidates each time, because the object may be gone or its reader's access withdrawn.
        known = {"ETag": f'"{self.tag}"', "Cache-Control": "private, no-cache"}
        return known | (
            {"Last-Modified": format_datetime(_moment(self.modified), usegmt=True)} if self.modified else {}
        )


def version(*parts: object, modified: str = "") -> Version:
    """Name a version by the digests of the objects and the form of the answer, which together never change."""
    # Our own version is one of the parts, because another release may write the same answer differently.
    text = "\n".join(map(str, (gateway.__version__, *parts)))
    return Version(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32], modified)


def is_known(current: Version, headers: Mapping[str, str]) -> bool:
    """Does the client have this version already (304)?"""
    # If-None-Match goes before If-Modified-Since (RFC 9110 Section 13.2.2).
    if (tags := headers.get("If-None-Match")) is not None:
        return tags.strip() == "*" or current.tag in re.findall(r'"([^"]*)"', tags)
    since = _date(headers.get("If-Modified-Since", ""))
    return since is not None and bool(current.modified) and _moment(current.modified) <= since


def byte_range(current: Version, headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """Offsets of the first requested byte and of the one behind the last; None for the whole answer.

    Raises RangeNotSatisfiable.
    """
    # RFC 9110 Section 14.2 lets a server ignore Range: several ranges and unknown units do not match here.
    requested = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", headers.get("Range", "").replace(" ", ""), re.ASCII)
    if requested is None or requested[0] == "bytes=-" or not _still_holds(current, headers.get("If-Range")):
        return None
    first, last = requested[1], requested[2]
    if first == "":  # "bytes=-500": the last 500
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
    if first and last and int(last) < int(first):
        return None  # invalid, not unsatisfiable (RFC 9110 Section 14.1.1)
    if begin >= end:
        raise RangeNotSatisfiable(f"There are {size} bytes; the range asked for lies behind them.")
    return begin, end


def _still_holds(current: Version, condition: str | None) -> bool:
    if condition is None:
        return True
    # If-Range compares exactly, dates as well (RFC 9110 Section 13.1.5): the client appends the range to what it has.
    since = _date(condition)
    return condition.strip() == f'"{current.tag}"' or (
        since is not None and bool(current.modified) and _moment(current.modified) == since
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)  # HTTP dates have whole seconds


def _date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
