"""Carries out `image.request`: uploads full images to a URL of the cloud's or to its HTTPS API, one at a time.

Each object is located, compressed if requested, and uploaded, and its outcome is enqueued. Objects that have an outcome
are skipped, so an interrupted request goes on where it was.

Not here: blocks (`relay.cloud.blob_upload`), storing requests (`relay.cloud.deferred`), encoding (`pacs.compress`).
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from gateway.errors import CloudError, Conflict, GatewayError, NotAcceptable, NotAllowed, NotFound, Refusal, Unsupported
from gateway.fsync import make_folder
from gateway.messages import Answering, ImageUnavailable, RequestImage, UploadCompleted, WantedImage
from pacs import COMPRESSIONS, Archive, Stored, compress
from relay.cloud.blob_upload import BlobUpload, UploadRefused, UrlRefused, beneath
from relay.cloud.deferred import DeferredActions
from relay.cloud.throttle import Throttle
from relay.delivery.delivery import Event
from relay.delivery.https_api import MOST_BYTES, SLOWEST, Api, form
from relay.egress import DIRECT, Egress

API_PATIENCE = timedelta(days=1)
"""The programme's API answers 500 also to what it will never take; after a day of that the image is unavailable."""


@dataclass(frozen=True)
class UploadTargets:
    """Where full images may go: to hosts by URL (a name that begins with a dot includes all below it), to an API.

    `egress` is the route to the hosts; the API has its own.
    """

    hosts: tuple[str, ...]
    api: Api | None = None
    egress: Egress = DIRECT

    def check(self, wanted: WantedImage) -> None:
        """Raise a Refusal when a request has a target or a transfer syntax that this site does not support."""
        if wanted.target_url:
            self.check_url(wanted.target_url)
        elif self.api is None:
            raise Unsupported("This site has no HTTPS API to send images to; give a target_url.")
        if wanted.transfer_syntax and wanted.transfer_syntax not in COMPRESSIONS:
            raise Unsupported(f"transfer_syntax must be left out or be one of {', '.join(sorted(COMPRESSIONS))}.")

    def check_url(self, url: str) -> None:
        """Raise NotAllowed for a URL whose host is not one that this site uploads to."""
        # A stolen Send right would otherwise be enough to have every image sent to any host.
        host = urlsplit(url).hostname or ""
        if not any(host == name or (name.startswith(".") and host.endswith(name)) for name in self.hosts):
            raise NotAllowed("The host of target_url is not one that this site uploads to (RELAY_UPLOAD_HOSTS).")


class Unavailable(GatewayError):
    """An object cannot be uploaded; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Ready:
    """An open file as it will be uploaded, with the digest, size and transfer syntax of its content."""

    content: BinaryIO
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str


class FullImages:
    """`accept` stores a request; `await images(event)` carries it out."""

    def __init__(
        self,
        archive: Archive,
        requests: DeferredActions,
        upload_targets: UploadTargets,
        *,
        throttle: Throttle,
        scratch: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reason_to_hold: Callable[[str], str] = lambda _uid: "",
    ) -> None:
        """`scratch` is a folder for compressed objects that nothing else uses. `reason_to_hold` returns why an image
        may not leave yet, '' when it may; it is called in a thread.
        """
        self._archive = archive
        self._requests = requests
        self._upload_targets = upload_targets
        self._throttle = throttle
        self._scratch = scratch
        self._clock = clock
        self._reason_to_hold = reason_to_hold
        self._turn = asyncio.Lock()

    def accept(self, action: RequestImage) -> None:
        """Store a request. Raises a Refusal for one that this site cannot fulfil, NotFound for unknown objects."""
        wanted = action.parameters
        if self._requests.expect_same(action):
            return
        self._upload_targets.check(wanted)
        found = self._locate(wanted)
        self._requests.accept(
            action,
            # Listed now, so that a later attempt covers the same objects.
            {**wanted.model_dump(), "sop_instance_uids": [stored.sop_instance_uid for stored in found]},
            about=found[0].study_instance_uid,
            now=self._clock(),
        )

    async def __call__(self, event: Event) -> None:
        """Upload the remaining objects of a request. Raises CloudError when it shall be tried again."""
        uids = event.parameters["sop_instance_uids"]
        for uid in uids if isinstance(uids, list) else []:
            request = _Request(WantedImage.model_validate(event.parameters), str(event.parameters["request_id"]), uid)
            if not await asyncio.to_thread(self._has_outcome, request):
                async with self._turn:
                    outcome = await self._outcome(
                        request, requested_at=datetime.fromisoformat(event.envelope.timestamp)
                    )
                await asyncio.to_thread(self._requests.enqueue_outcome, outcome, now=self._clock())

    def sweep(self) -> None:
        """Remove compressed objects that a killed process has left; they are made again."""
        make_folder(self._scratch)
        for left in self._scratch.iterdir():
            left.unlink()

    def _locate(self, wanted: WantedImage) -> list[Stored]:
        if wanted.study_instance_uid:
            return self._archive.locate(wanted.study_instance_uid)
        return [self._archive.instance(wanted.sop_instance_uid)]

    def _has_outcome(self, request: "_Request") -> bool:
        return any(
            self._requests.is_answered(f"{request.id}/{request.uid}/{end}") for end in ("uploaded", "unavailable")
        )

    async def _outcome(self, request: "_Request", *, requested_at: datetime) -> Answering:
        try:
            ready = await asyncio.to_thread(self._ready, request)
            with ready.content:
                await self._upload(ready, request, requested_at=requested_at)
            outcome: Answering = request.completed(ready)
        except Unavailable as unavailable:
            outcome = request.unavailable(unavailable.code, str(unavailable))
        except UrlRefused as error:
            outcome = request.unavailable("url_refused", str(error))
        except UploadRefused as error:
            outcome = request.unavailable("refused", str(error))
        # The files of a request that will be tried again go too, and are made anew: requests take turns.
        await asyncio.to_thread(self.sweep)
        return outcome

    def _ready(self, request: "_Request") -> Ready:
        """Open the file to upload."""
        try:
            stored = self._archive.instance(request.uid)
            if reason := self._reason_to_hold(request.uid):
                raise Unavailable("held_back", reason)
            syntax = request.wanted.transfer_syntax
            if syntax not in ("", stored.transfer_syntax_uid):
                return self._ready_compressed(stored, syntax)
            # By its digest: between the check and the upload other content may take the image's place.
            content = self._archive.content(stored.sop_instance_uid, stored.sha256)
            return Ready(content, stored.sha256, os.fstat(content.fileno()).st_size, stored.transfer_syntax_uid)
        except (NotFound, FileNotFoundError) as error:
            raise Unavailable("not_found", "The object is not in the archive any more.") from error
        except NotAcceptable as error:
            raise Unavailable("not_convertible", str(error)) from error
        except Conflict as error:
            raise CloudError(str(error), permanent=False) from error

    def _ready_compressed(self, stored: Stored, syntax: str) -> Ready:
        path = self._scratch / f"{stored.sha256}-{syntax}.dcm"
        if not path.exists():
            compress(stored.path, syntax, path)
        try:
            self._archive.unchanged(stored.sop_instance_uid, stored.sha256)  # so this content was compressed
        except Refusal:
            path.unlink()  # it may be of the content that took its place, under the name of the former one
            raise
        content = path.open("rb")
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        return Ready(content, digest, path.stat().st_size, syntax)

    async def _upload(self, ready: Ready, request: "_Request", *, requested_at: datetime) -> None:
        url = request.url
        if url:
            await BlobUpload(
                url, ready.content, ready.sha256, throttle=self._throttle, egress=self._upload_targets.egress
            ).run()
        elif self._upload_targets.api is None:
            raise Unavailable("refused", "This site has no HTTPS API to send images to any more.")
        else:
            await self._put(self._upload_targets.api, ready, request, requested_at=requested_at)

    async def _put(self, api: Api, ready: Ready, request: "_Request", *, requested_at: datetime) -> None:
        if ready.size_bytes > MOST_BYTES:
            raise UploadRefused("The object is larger than the 100 MiB that the cloud's API takes; give a target_url.")
        await self._throttle.until_quiet()
        path = f"/dicom/{quote(request.id, safe='')}"
        rate = min(self._throttle.bucket.rate or SLOWEST, SLOWEST)
        try:
            name = f"{request.uid}.dcm"
            headers, body = form(ready.content, name, ready.size_bytes, wait=self._throttle.bucket.wait)
            await api.request("PUT", path, data=body, headers=headers, extra_seconds=ready.size_bytes / rate)
        except CloudError as error:
            # A doubtful 500 may be "never": an image nobody on site can act on must not be tried for ever.
            if error.permanent or self._clock() - requested_at > API_PATIENCE:
                raise UploadRefused(str(error)) from error
            raise


@dataclass(frozen=True)
class _Request:
    """One object of a request."""

    wanted: WantedImage
    id: str
    uid: str

    @property
    def url(self) -> str:
        """The URL of the object itself; '' for the API."""
        if self.wanted.study_instance_uid and self.wanted.target_url:
            return beneath(self.wanted.target_url, f"{self.uid}.dcm")
        return self.wanted.target_url

    def completed(self, ready: Ready) -> UploadCompleted:
        return UploadCompleted(
            request_id=self.id,
            sop_instance_uid=self.uid,
            sha256=ready.sha256,
            size_bytes=ready.size_bytes,
            transfer_syntax_uid=ready.transfer_syntax_uid,
        )

    def unavailable(self, code: str, reason: str) -> ImageUnavailable:
        return ImageUnavailable.model_validate(
            {"request_id": self.id, "sop_instance_uid": self.uid, "code": code, "reason": reason}
        )
