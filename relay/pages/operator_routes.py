"""The operator's pages: delivery, storage, quarantine, refusals, and the actions on them.

GET changes nothing. A change is a POST of a form, after a page that shows its effect; a second POST finds the work done
and says so. Role and audit record are the middleware's (`relay.access.permissions`). Every decision has a name: the
user's, or while access is open the one typed into the form.

Not here: the pages' values (`relay.pages.queue`, `relay.pages.storage`), HTML (`relay.pages.html`).
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
"""The sentence that a page shows after an action, by the word in its address."""

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
        """List the routes of all pages and actions."""
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
        """Pending entries by destination, parked entries, and the delivery of the last exams."""
        return await self._frame.page(
            request,
            "queue.html",
            lambda: {"queue": self._queue.queue(), **_shared(request)},
            current="/queue",
            follows=("worklist", "images", "health", "minute"),
        )

    async def confirm_release(self, request: web.Request) -> web.Response:
        """Show the entries that would be released. Raises NotFound."""
        of, entry_id, what = _entry(request), int(request.match_info["id"]), request.match_info["what"]

        def values() -> dict[str, object]:
            where = request.query.get("destination")
            parked = self._queue.parked(of, entry_id, where)
            group = self._queue.alike(of, entry_id, where) if what == "release-alike" else None
            return {"parked": parked, "group": group, "action": request.path_qs, **_shared(request)}

        return await self._frame.page(request, "outbox_release.html", values, current="/queue")

    async def release(self, request: web.Request) -> web.Response:
        """Make a parked entry due again. Raises InvalidValue for one that is held back, without a name."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        by = _name(request, await request.post())
        try:
            await asyncio.to_thread(self._queue.outbox(of).release, entry_id, by=by, now=self._clock())
        except NotFound:  # pressed twice, or done by another operator
            return _see("/queue", "already")
        log.info("entry released", of=of, entry=entry_id, user=_user(request))
        return _see("/queue", "released")

    async def release_alike(self, request: web.Request) -> web.Response:
        """Make all entries due again that are parked for the reason shown. Raises Conflict if it is another one now."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        form = await request.post()
        shown, by = str(form.get("reason", "")), _name(request, form)

        def act() -> int:
            group = self._queue.alike(of, entry_id, request.query.get("destination")).alike
            # The operator agreed to one reason: entries that were parked for another since then are not meant.
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
        """Show the form by which an image that is held back is discarded. Raises NotFound."""
        of, entry_id = _entry(request), int(request.match_info["id"])
        return await self._frame.page(
            request,
            "outbox_discard.html",
            lambda: {"parked": self._queue.parked(of, entry_id), **_shared(request)},
            current="/queue",
        )

    async def discard(self, request: web.Request) -> web.Response:
        """Discard an image that is held back: it is never sent. Raises InvalidValue without a name or a reason."""
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
        """Make postponed entries of a destination due at once."""
        destination = request.match_info["destination"]
        count = await asyncio.to_thread(self._queue.knock, destination)
        log.info("entries hastened", destination=destination[:64], count=count, user=_user(request))
        return _see("/queue", "knocked" if count else "already")

    # ---- storage and refusals ----------------------------------------------------------------------------------------

    async def storage(self, request: web.Request) -> web.Response:
        """Stored images, growth, free space, retention."""
        return await self._frame.page(
            request,
            "storage.html",
            lambda: {"storage": self._storage.storage()},
            current="/storage",
            follows=("minute",),
        )

    async def refusals(self, request: web.Request) -> web.Response:
        """Recent refusals, each with its reason and remedy."""
        path = self._site_facts.refusals

        def values() -> dict[str, object]:
            try:
                seen, lost = recent(path, MOST_ROWS) if path is not None else ([], Lost(0, None))
            except GatewayError as error:  # on the page, because nothing else need be wrong
                return {"rows": [], "lost": Lost(0, None), "trouble": str(error)}
            return {"rows": [(each, remedy(each.kind)) for each in seen], "lost": lost, "trouble": ""}

        return await self._frame.page(request, "refusals.html", values, current="/refusals", follows=("refusals",))

    # ---- quarantine --------------------------------------------------------------------------------------------------

    async def quarantine(self, request: web.Request) -> web.Response:
        """Objects in the quarantine, and the decisions about them."""

        def values() -> dict[str, object]:
            found = sorted(self._archive.quarantine.objects(), key=_undecided_first)
            rows = [(each, self._bytes(each)) for each in found[:MOST_ROWS]]
            return {"rows": rows, "total": len(found), **_shared(request)}

        return await self._frame.page(request, "quarantine.html", values, current="/quarantine", follows=("images",))

    async def set_aside(self, request: web.Request) -> web.Response:
        """One object beside the stored one of the same UID: pictures, differences and possible decisions."""
        found, stored = await asyncio.to_thread(self._found, request)
        comparison, trouble = await self._compared(found, stored)
        values = {
            "found": found,
            "bytes": await asyncio.to_thread(self._bytes, found),
            "stored": stored,
            "comparison": comparison,
            "trouble": trouble,
            "decisions": _possible(found, stored),
            **_shared(request),
        }
        return await self._frame.page(
            request, "quarantine_compare.html", lambda: values, current="/quarantine", follows=("images",)
        )

    async def picture(self, request: web.Request) -> web.Response:
        """Render an object of the quarantine as JPEG. Raises NotFound, or a Refusal if it has no usable pixels."""
        found, _ = await asyncio.to_thread(self._found, request)
        path = self._archive.quarantine.path(found)
        try:
            made = await self._renderer.run(rendered, path, viewport=LARGEST_PICTURE, quality=80)
        except FileNotFoundError:
            raise NotFound("The file is not in the quarantine any more.") from None
        return web.Response(body=made.data, content_type=made.media_type)

    async def confirm_decision(self, request: web.Request) -> web.Response:
        """Show the effect of a decision. Raises NotFound."""
        found, stored = await asyncio.to_thread(self._found, request)
        decision = request.match_info["decision"]
        values = {
            "found": found,
            "stored": stored,
            "decision": decision,
            "words": DECISIONS[decision],
            "possible": decision in _possible(found, stored),
            "action": request.path,
            **_shared(request),
        }
        return await self._frame.page(request, "quarantine_decide.html", lambda: values, current="/quarantine")

    async def decide(self, request: web.Request) -> web.Response:
        """Record a decision, which the archive's process carries out. Raises Conflict if it is not possible now."""
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
        """Return the object of the path and the stored one of the same UID. Raises NotFound."""
        found = self._archive.quarantine.object_with(int(request.match_info["id"]))
        try:
            stored = self._archive.instance(found.sop_instance_uid)
        except NotFound:
            return found, None
        request[STUDY] = stored.study_instance_uid  # for the audit trail: the path does not have it
        return found, stored

    async def _compared(self, found: SetAside, stored: Stored | None) -> tuple[Comparison | None, str]:
        """Return the differences, or None and the reason why there are none to show."""
        if stored is None:
            return None, ""
        try:
            aside = self._archive.quarantine.path(found)
            return await self._renderer.run(compare, stored.path, aside), ""
        except (Refusal, OSError) as error:
            return None, f"The two cannot be compared: {getattr(error, 'strerror', None) or error}"

    def _bytes(self, found: SetAside) -> int | None:
        """Return the size of a file in bytes; None when it is gone."""
        try:
            return self._archive.quarantine.path(found).stat().st_size
        except FileNotFoundError:
            return None


def _possible(found: SetAside, stored: Stored | None) -> list[str]:
    # Replacing needs a stored object, with other bytes; a settled one cannot be settled again.
    if stored is None or stored.sha256 == found.sha256:
        return ["store"]
    return ["replace", *(["settle"] if found.settled_at is None or found.decision else [])]


def _undecided_first(found: SetAside) -> tuple[bool, int]:
    # Then the newest. A decision that the archive could not carry out counts as none.
    waits = found.settled_at is None and (found.decision is None or bool(found.refusal))
    return not waits, -found.id


def _entry(request: web.Request) -> str:
    return request.match_info["of"]


def _shared(request: web.Request) -> dict[str, object]:
    """Values of every page here: whether the user may act, must type a name, and the outcome of the last action."""
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
    """Return the user's name, or while access is open the one in the form; '' when that is empty."""
    user = _known(request)
    return str(form.get("by", "")).strip() if user == ANYBODY else user.name


def _decider(request: web.Request, form: Mapping[str, object]) -> str:
    """Return the name that goes under a decision. Raises InvalidValue without one."""
    return require_decider(_name(request, form))


def _see(path: str, said: str) -> web.Response:
    # 303 after every POST, so that loading the page again repeats nothing.
    return web.Response(status=303, headers={"Location": f"{path}?{urlencode({'said': said})}"})
