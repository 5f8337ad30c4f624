"""Values become HTML: the templates' environment, filters for people, and the frame of every page.

Every text that comes from DICOM is escaped, and its invisible characters are shown. Ages and times are made of UTC ISO
text, and shown with the site's zone. Pages are rendered in a thread, because their values are read from databases.

Not here: the values (`relay.pages.worklist_board` and its neighbours), routes (`relay.pages.routes`).
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from relay.access.middleware import SIGNED_IN, USER

TEMPLATES = Path(str(files("relay") / "pages" / "templates"))

NAVIGATION = (
    ("/", "Overview"),
    ("/board", "Worklist board"),
    ("/studies", "Studies"),
    ("/queue", "Delivery"),
    ("/storage", "Storage"),
    ("/quarantine", "Quarantine"),
    ("/refusals", "Refusals"),
)

Values = Mapping[str, object]


@dataclass(frozen=True)
class NavigationEntry:
    """One entry of the navigation; `count` is the number of things there that need a person."""

    path: str
    words: str
    count: int
    is_current: bool


@dataclass(frozen=True)
class PageContext:
    """The frame's values. `state` is the one that the page was made of, `follows` names the parts of it that the page
    shows."""

    site: str
    now: datetime
    entries: tuple[NavigationEntry, ...]
    state: Mapping[str, str]
    follows: tuple[str, ...]
    signed_in: str
    """Name of the user of a browser session, who can sign out; empty for others."""


@dataclass(frozen=True)
class Frame:
    """Makes whole pages of one site.

    `state` is what pages can follow (`relay.pages.live`), `counts` gives the count for a path of the navigation.
    """

    site: str
    clock: Callable[[], datetime]
    state: Callable[[], Mapping[str, str]]
    counts: Mapping[str, Callable[[], int]]

    async def page(
        self,
        request: web.Request,
        template: str,
        values: Callable[[], Values],
        *,
        current: str,
        follows: tuple[str, ...] = (),
    ) -> web.Response:
        """Read the values and render them, in a thread.

        `current` is the path in the navigation, `follows` names the parts of the state that the page shows: when one
        changes, the page is read again. Raises the errors of `values`.
        """
        signed_in = request[USER].name if SIGNED_IN in request else ""
        text = await asyncio.to_thread(self._rendered, template, values, current, follows, signed_in)
        return web.Response(text=text, content_type="text/html")

    def _rendered(
        self, template: str, values: Callable[[], Values], current: str, follows: tuple[str, ...], signed_in: str
    ) -> str:
        # Before the values: a change in between is then newer than the page's state, and the page is read again.
        state, now = self.state(), self.clock().astimezone()
        content = values()
        followed = ("run", "day", *follows) if follows else ()
        context = PageContext(self.site, now, self._entries(current), state, followed, signed_in)
        return _TEMPLATES.get_template(template).render(content, context=context)

    def _entries(self, current: str) -> tuple[NavigationEntry, ...]:
        return tuple(
            NavigationEntry(path, words, self.counts[path]() if path in self.counts else 0, path == current)
            for path, words in NAVIGATION
        )


def error_page(*, status: int, message: str) -> web.Response:
    """Make the page of an error."""
    # Reads no database, because that may be the error.
    entries = tuple(NavigationEntry(path, words, 0, is_current=False) for path, words in NAVIGATION)
    return bare_page("error.html", status=status, http_status=status, message=message, entries=entries)


def bare_page(template: str, *, status: int = 200, **values: object) -> web.Response:
    """Make a page of these values alone, without the site's frame."""
    text = _TEMPLATES.get_template(template).render(values)
    return web.Response(text=text, status=status, content_type="text/html")


def person(name: str) -> str:
    """Write a DICOM person name for people: the first component group, family name in front (PS3.5 Section 6.2)."""
    family, *others = name.split("=", maxsplit=1)[0].split("^")
    return ", ".join(part for part in (family.strip(), " ".join(filter(None, others)).strip()) if part)


def initials(name: str) -> str:
    """Write a DICOM person name as two letters, of the given and of the family name."""
    family, *others = name.split("=", maxsplit=1)[0].split("^")
    return "".join(part.strip()[:1] for part in (*others[:1], family)).upper()


def date(text: str) -> str:
    """Write a DICOM date for people; another text stays as it is."""
    try:
        return datetime.strptime(text, "%Y%m%d").strftime("%-d %b %Y")
    except ValueError:
        return text


def clock(text: str) -> str:
    """Write a DICOM time as hours and minutes; another text stays as it is."""
    return f"{text[:2]}:{text[2:4]}" if len(text) >= 4 and text[:4].isdecimal() else text


def age(then: str | None, now: datetime) -> str:
    """Say how long ago a moment (UTC ISO text) was, in words that need no arithmetic."""
    if not then:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(then)).total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now" if seconds < 2 else f"{seconds} seconds ago"


def moment(then: str) -> str:
    """Write a moment (UTC ISO text) in the site's time, with the zone."""
    return datetime.fromisoformat(then).astimezone().strftime("%-d %b %Y, %H:%M:%S %Z")


def ago(then: str | None, now: datetime) -> str:
    """Mark up the age of a moment (UTC ISO text), so that the script lets it grow; empty for none."""
    if not then:
        return ""
    element = '<time datetime="{}" title="{}" data-age>{}</time>'
    return Markup(element).format(then, moment(then), age(then, now))  # noqa: S704 - a literal; format escapes


def seen(value: object) -> object:
    """Replace control characters, marks of writing direction and lone surrogates by U+FFFD; other values stay."""
    # Such a mark could hide a part of a name or reverse its neighbours, and a lone surrogate has no UTF-8.
    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return _UNSEEN.sub("\ufffd", value)


_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# StrictUndefined: a misspelt name is an error and not an empty place. Nothing switches autoescape off, because texts
# of DICOM come from every machine that may send.
_TEMPLATES = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    finalize=seen,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(person=person, initials=initials, date=date, clock=clock, ago=ago, moment=moment)
