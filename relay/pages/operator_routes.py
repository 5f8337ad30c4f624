"""The routes of the pages for who looks after a site: delivery, storage, quarantine, refusals; and what is done there.

Rules. Looking changes nothing. What changes something is a POST of a form, with a page before it that says what will
happen; a second press finds that it is done and says so. Who may do it, and that it is recorded, is the door's
(`relay.access.permissions`): an operator, in the audit trail before it is done. What is decided has a name: that of the
user, or the one that is typed in where the door is open to everybody.

Not here: what the pages show (`relay.pages.queue`, `relay.pages.storage`), how it becomes HTML (`relay.pages.html`).
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import urlencode

import structlog
from aiohttp import web

from gateway.errors import Conflict, GatewayError, NotFound, Refusal
from gateway.refusals.log import Lost, recent
from gateway.refusals.remedies import remedy
from gateway.sign_off import require_decider
from pacs import Archive, Comparison, SetAside, Stored, Viewport, compare, rendered
from relay.access.middleware import ANYBODY, STUDY, USER
from relay.access.permissions import Role
from relay.access.users import User
from relay.pages.html import Frame
from relay.pages.queue import QueueBoard
from relay.pages.site_facts import SiteFacts
from relay.pages.storage import StorageBoard
from relay.render_pool import Renderer
from worklist import Worklist

log = structlog.get_logger()

DECISIONS: Mapping[str, str] = {
    "store": "Store it, if nothing else is stored under its UID",
    "replace": "Put it in the place of the stored one",
    "settle": "Keep the stored one",
}

SAID: Mapping[str, str] = {
    "discarded": "Decided. It is never sent, and the cloud is told why.",
    "released": "Released. It leaves within seconds, if the destination takes it now.",
    "already": "Nothing was left to do: it had been done before.",
    "knocked": "What had a pause is tried at once.",
    "decided": "Decided. The archive carries it out within seconds.",
    "settled": "Noted. Both copies stay where they are.",
}
"""What a page says after something was done, by the word in its address."""

LARGEST_PICTURE = Viewport(640, 640)

MOST_ROWS = 200
"""Of the quarantine and of the refusals that a page shows; the command line has all of them."""


class OperatorPages:
    """The handlers."""

    def __init__(
        self,
        archive: Archive,
        worklist: Worklist,
        *,
        frame: Frame,
        renderer: Renderer,
        site_facts: SiteFacts,
        clock: Callable[[], datetime],
    ) -> None:
        self._archive = archive
        self._frame = frame
        self._renderer = renderer
        self._site_facts = site_facts
        self._clock = clock
        self._queue = QueueBoard(archive, worklist, site_facts, clock=clock)
        self._storage = StorageBoard(archive, site_facts, clock=clock)

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        entry, aside = r"/queue/{of}/{id:\d{1,18}}", r"/quarantine/{id:\d{1,18}}"
        return [
            web.get("/queue", self.queue),
            web.get(f"{entry}/{{what:release|release-alike}}", self.confirm_release),
            web.post(f"{entry}/release", self.release),
            web.get(f"{entry}/discard", self.confirm_discard),
            web.post(f"{entry}/discard", self.discard),
            web.post(f"{entry}/release-alike", self.release_alike),
            web.post("/queue/{destination}/now", self.knock),
            web.get("/storage", self.storage),
            web.get("/quarantine", self.quarantine),
            web.get(aside, self.set_aside),
            web.get(f"{aside}/picture", self.picture),
            web.get(f"{aside}/{{decision:store|replace|settle}}", self.confirm_decision),
            web.post(f"{aside}/{{decision:store|replace|settle}}", self.decide),
            web.get("/refusals", self.refusals),
        ]

    # ---- delivery ----------------------------------------------------------------------------------------------------

    async def queue(self, request: web.Request) -> web.Response:
        """What is owed to whom, what waits for a person, and how far the cloud was told of the last exams."""
        return await self._frame.page(
            request,
            "queue.html",
            lambda: {"queue": self._queue.queue(), **_around(request)},
            current="/queue",
            follows=("worklist", "images", "health", "minute"),
        )

    async def confirm_release(self, request: web.Request) -> web.Response:
        """Say what would be released."""
        of, entry_id, what = _entry(request), int(request.match_info["id"]), request.match_info["what"]

        def values() -> dict[str, object]:
            where = request.query.get("destination")
            parked = self._queue.parked(of, entry_id, where)
            group = self._queue.alike(of, entry_id, where) if what == "release-alike" else None
            return {"parked": parked, "group": group, "action": request.path_qs, **_around(request)}

        return await self._frame.page(request, "outbox_release.html", values, current="/queue")

    async def release(self, request: web.Request) -> web.Response:
        """Make a parked entry due again. Raises InvalidValue for one that is held back and nobody stands for."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        by = _name(request, await request.post())
        try:
            await asyncio.to_thread(self._queue.outbox(of).release, entry_id, by=by, now=self._clock())
        except NotFound:  # pressed twice, or somebody else did
            return _see("/queue", "already")
        log.info("entry released", of=of, entry=entry_id, user=_user(request))
        return _see("/queue", "released")

    async def release_alike(self, request: web.Request) -> web.Response:
        """Make everything due again that is parked for the reason that was shown. Raises Conflict for another one."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        form = await request.post()
        shown, by = str(form.get("reason", "")), _name(request, form)

        def act() -> int:
            group = self._queue.alike(of, entry_id, request.query.get("destination")).alike
            if group.reason != shown:
                raise Conflict("The reason has changed since the page was shown; look at it again.")
            return self._queue.outbox(of).release_alike(group.destination, group.reason, by=by, now=self._clock())

        try:
            count = await asyncio.to_thread(act)
        except NotFound:
            return _see("/queue", "already")
        log.info("entries released", of=of, entry=entry_id, count=count, user=_user(request))
        return _see("/queue", "released")

    async def confirm_discard(self, request: web.Request) -> web.Response:
        """Ask whether an image that is held back shall never be sent."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        return await self._frame.page(
            request,
            "outbox_discard.html",
            lambda: {"parked": self._queue.parked(of, entry_id), **_around(request)},
            current="/queue",
        )

    async def discard(self, request: web.Request) -> web.Response:
        """Never send an image that is held back. Raises InvalidValue without a name or a reason."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        form = await request.post()
        by, because = _name(request, form), str(form.get("because", ""))
        try:
            await asyncio.to_thread(self._queue.discard, of, entry_id, by=by, because=because)
        except NotFound:
            return _see("/queue", "already")
        log.info("image discarded", of=of, entry=entry_id, user=_user(request))
        return _see("/queue", "discarded")

    async def knock(self, request: web.Request) -> web.Response:
        """Have what has a pause tried at once."""
        destination = request.match_info["destination"]
        count = await asyncio.to_thread(self._queue.knock, destination)
        log.info("entries hastened", destination=destination[:64], count=count, user=_user(request))
        return _see("/queue", "knocked" if count else "already")

    # ---- storage and refusals ----------------------------------------------------------------------------------------

    async def storage(self, request: web.Request) -> web.Response:
        """What is kept, how it grows, when it is full, what may go."""
        return await self._frame.page(
            request,
            "storage.html",
            lambda: {"storage": self._storage.storage()},
            current="/storage",
            follows=("minute",),
        )

    async def refusals(self, request: web.Request) -> web.Response:
        """What was refused lately, why, and what to do."""
        path = self._site_facts.refusals

        def values() -> dict[str, object]:
            try:
                seen, lost = recent(path, MOST_ROWS) if path is not None else ([], Lost(0, None))
            except GatewayError as error:  # said on the page, since there may be nothing but this that is wrong
                return {"rows": [], "lost": Lost(0, None), "trouble": str(error)}
            return {"rows": [(each, remedy(each.kind)) for each in seen], "lost": lost, "trouble": ""}

        return await self._frame.page(request, "refusals.html", values, current="/refusals", follows=("refusals",))

    # ---- quarantine --------------------------------------------------------------------------------------------------

    async def quarantine(self, request: web.Request) -> web.Response:
        """What is kept aside, and what was decided about it."""

        def values() -> dict[str, object]:
            found = sorted(self._archive.quarantine.objects(), key=_first_who_waits)
            rows = [(each, self._bytes(each)) for each in found[:MOST_ROWS]]
            return {"rows": rows, "total": len(found), **_around(request)}

        return await self._frame.page(request, "quarantine.html", values, current="/quarantine", follows=("images",))

    async def set_aside(self, request: web.Request) -> web.Response:
        """One of them beside what is stored under its UID: pictures, what differs, and what can be decided."""
        found, stored = await asyncio.to_thread(self._found, request)
        comparison, trouble = await self._compared(found, stored)
        values = {
            "found": found,
            "bytes": await asyncio.to_thread(self._bytes, found),
            "stored": stored,
            "comparison": comparison,
            "trouble": trouble,
            "decisions": _possible(found, stored),
            **_around(request),
        }
        return await self._frame.page(
            request, "quarantine_compare.html", lambda: values, current="/quarantine", follows=("images",)
        )

    async def picture(self, request: web.Request) -> web.Response:
        """A picture of an object in the quarantine. Raises a Refusal when it has none, or is damaged."""
        found, _ = await asyncio.to_thread(self._found, request)
        path = self._archive.quarantine.path(found)
        try:
            made = await self._renderer.run(rendered, path, viewport=LARGEST_PICTURE, quality=80)
        except FileNotFoundError:
            raise NotFound("The file is not in the quarantine any more.") from None
        return web.Response(body=made.data, content_type=made.media_type)

    async def confirm_decision(self, request: web.Request) -> web.Response:
        """Say what a decision would do."""
        found, stored = await asyncio.to_thread(self._found, request)
        decision = request.match_info["decision"]
        values = {
            "found": found,
            "stored": stored,
            "decision": decision,
            "words": DECISIONS[decision],
            "possible": decision in _possible(found, stored),
            "action": request.path,
            **_around(request),
        }
        return await self._frame.page(request, "quarantine_decide.html", lambda: values, current="/quarantine")

    async def decide(self, request: web.Request) -> web.Response:
        """Write down a decision, which the archive's process carries out. Raises Conflict when it cannot be done."""
        by = _decider(request, await request.post())
        decision = request.match_info["decision"]
        try:
            found, stored = await asyncio.to_thread(self._found, request)
        except NotFound:  # pressed twice, and carried out in between
            return _see("/quarantine", "already")
        if decision not in _possible(found, stored):
            raise Conflict("This cannot be decided now: what is stored has changed since the page was shown.")
        if decision == "settle":
            await asyncio.to_thread(self._archive.quarantine.settle, found.id, by=by, now=self._clock())
        else:
            await asyncio.to_thread(self._archive.quarantine.decide, found.id, decision, by=by)
        log.info("quarantine decided", quarantine=found.id, sop_instance_uid=found.sop_instance_uid,
                 decision=decision, user=_user(request))  # fmt: skip
        return _see("/quarantine", "settled" if decision == "settle" else "decided")

    def _found(self, request: web.Request) -> tuple[SetAside, Stored | None]:
        """What is asked about and what is stored under its UID; the trail is told of which study. Raises NotFound."""
        found = self._archive.quarantine.object_with(int(request.match_info["id"]))
        try:
            stored = self._archive.instance(found.sop_instance_uid)
        except NotFound:
            return found, None
        request[STUDY] = stored.study_instance_uid
        return found, stored

    async def _compared(self, found: SetAside, stored: Stored | None) -> tuple[Comparison | None, str]:
        """What differs, or why nobody can say."""
        if stored is None:
            return None, ""
        try:
            aside = self._archive.quarantine.path(found)
            return await self._renderer.run(compare, stored.path, aside), ""
        except (Refusal, OSError) as error:
            return None, f"The two cannot be compared: {getattr(error, 'strerror', None) or error}"

    def _bytes(self, found: SetAside) -> int | None:
        """How large a file in the quarantine is; None when it is not there."""
        try:
            return self._archive.quarantine.path(found).stat().st_size
        except FileNotFoundError:
            return None


def _possible(found: SetAside, stored: Stored | None) -> list[str]:
    """The decisions there are: what replaces needs something to replace, and what is settled needs no settling."""
    if stored is None or stored.sha256 == found.sha256:
        return ["store"]
    return ["replace", *(["settle"] if found.settled_at is None or found.decision else [])]


def _first_who_waits(found: SetAside) -> tuple[bool, int]:
    """Sort what waits for a person first, then the newest."""
    waits = found.settled_at is None and (found.decision is None or bool(found.refusal))
    return not waits, -found.id


def _entry(request: web.Request) -> str:
    return request.match_info["of"]


def _around(request: web.Request) -> dict[str, object]:
    """What every page of these has: whether its reader may act, has a name, and what was just done."""
    user = _known(request)
    return {
        "may_act": user.role >= Role.OPERATOR,
        "asks_name": user == ANYBODY,
        "said": SAID.get(request.query.get("said", ""), ""),
    }


def _user(request: web.Request) -> str:
    return _known(request).name


def _known(request: web.Request) -> User:
    user: User = request.get(USER, ANYBODY)
    return user


def _name(request: web.Request, form: Mapping[str, object]) -> str:
    """Who does this: the user, or the name in the form where the door is open; '' when nobody says."""
    user = _known(request)
    return str(form.get("by", "")).strip() if user == ANYBODY else user.name


def _decider(request: web.Request, form: Mapping[str, object]) -> str:
    """Who stands for a decision. Raises InvalidValue when nobody does."""
    return require_decider(_name(request, form))


def _see(path: str, said: str) -> web.Response:
    """Send the browser to a page, so that loading it again repeats nothing."""
    return web.Response(status=303, headers={"Location": f"{path}?{urlencode({'said': said})}"})
