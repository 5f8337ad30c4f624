"""The pretend cloud over HTTP: the programme's API, and a remote control for demo and tests in another process.

/api/v1/...   with `Authorization: Bearer <token>`, as the programme's cloud offers it
    GET status; PUT dicom/{action_id}; PATCH dicom/{action_id}/failure; POST events
the remote control, local and without a token
    POST /actions         send this action to the gateway; its answer is the answer
    GET /events[?type=]   the events received, in order of arrival
    GET /images           the images uploaded
    POST /faults          {"what": "freeze", "connection": "actions"} and the like, see `Cloud.fault`
    GET /state            counts
"""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

from aiohttp import BodyPartReader, web
from aiohttp.typedefs import Handler

from gateway.errors import CloudError
from simulator.cloud.memory import EventLog, ImageLog, ImageRefused

# By the codes of an answer over the hybrid connection, because events have the same answers on both routes.
_HTTP_STATUS = {"busy": HTTPStatus.SERVICE_UNAVAILABLE, "invalid": HTTPStatus.BAD_REQUEST}


class Programme(Protocol):
    """The part of `Cloud` that the handlers call."""

    events: EventLog
    images: ImageLog
    actions: dict[str, dict[str, object]]

    async def send_action(self, action: dict[str, object]) -> dict[str, object]: ...
    async def send_text(self, text: str) -> str: ...
    async def fault(self, order: dict[str, object]) -> dict[str, object]: ...
    def state(self) -> dict[str, object]: ...


def application(programme: Programme, *, token: str) -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_subapp("/api/v1", _api(programme, token=token))
    app.add_routes(_Control(programme).routes())
    return app


# --- the programme's API ----------------------------------------------------------------------------------------------


def _api(programme: Programme, *, token: str) -> web.Application:
    @web.middleware
    async def authorised(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[authorised])
    app.add_routes(_Api(programme).routes())
    return app


class _Api:
    def __init__(self, programme: Programme) -> None:
        self._programme = programme

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/status", self._status),
            web.put("/dicom/{action_id}", self._put_image),
            web.patch("/dicom/{action_id}/failure", self._patch_failure),
            web.post("/events", self._post_event),
        ]

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "API is available"})

    async def _put_image(self, request: web.Request) -> web.Response:
        action_id = request.match_info["action_id"]
        part = await _file(request)
        if part is None:
            return web.json_response({"error": "No file was sent."}, status=422)
        if action_id not in self._programme.actions:
            # Not 404, because the real one answers so.
            return web.json_response({"error": "Internal error"}, status=500)
        try:
            image = await self._programme.images.take(action_id, _chunks(part), now=datetime.now(UTC))
        except ImageRefused as refused:
            return web.json_response({"error": str(refused)}, status=400)
        uids = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "instance_id")
        return web.json_response({name: getattr(image, name) for name in uids}, status=201)

    async def _patch_failure(self, request: web.Request) -> web.Response:
        action_id = request.match_info["action_id"]
        if action_id not in self._programme.actions:
            return web.json_response({"error": "Not found"}, status=404)
        self._programme.images.failures[action_id] = str((await request.json())["error"])
        return web.json_response({"status": "failure recorded"})

    async def _post_event(self, request: web.Request) -> web.Response:
        answer = self._programme.events.take(await request.text(), via="https", now=datetime.now(UTC))
        if not answer:  # the confirmation that gets lost
            return web.Response(status=500)
        return web.json_response(answer, status=_HTTP_STATUS.get(str(answer.get("code")), HTTPStatus.OK))


async def _file(request: web.Request) -> BodyPartReader | None:
    if not request.content_type.startswith("multipart/"):
        return None
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name == "file" and part.filename:
            return part
    return None


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(1 << 20):
        yield chunk


# --- the remote control -----------------------------------------------------------------------------------------------


class _Control:
    def __init__(self, programme: Programme) -> None:
        self._programme = programme

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/actions", self._post_action),
            web.get("/events", self._get_events),
            web.get("/images", self._get_images),
            web.post("/faults", self._post_fault),
            web.get("/state", self._get_state),
        ]

    async def _post_action(self, request: web.Request) -> web.Response:
        text = await request.text()
        try:
            action = json.loads(text)
        except ValueError:
            action = None
        try:
            # All else is sent as it is, to see that the gateway refuses it.
            if isinstance(action, dict):
                return web.json_response(await self._programme.send_action(action))
            return web.json_response(text=await self._programme.send_text(text))
        except CloudError as error:
            answer = {"status": "error", "code": "unreachable", "message": str(error)}
            return web.json_response(answer, status=HTTPStatus.BAD_GATEWAY)

    async def _get_events(self, request: web.Request) -> web.Response:
        return web.json_response(self._programme.events.listed(request.query.get("type")))

    async def _get_images(self, _request: web.Request) -> web.Response:
        return web.json_response([asdict(image) for image in self._programme.images.received.values()])

    async def _post_fault(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(await self._programme.fault(await request.json()))
        except (KeyError, ValueError) as error:
            return web.json_response({"error": f"Unknown fault or connection: {error}."}, status=400)

    async def _get_state(self, _request: web.Request) -> web.Response:
        return web.json_response(self._programme.state())
