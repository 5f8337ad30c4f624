"""Site tasks that the cloud requests: a self-test, a test item performed, a diagnostics bundle.

Each is the command that an engineer would run on site, run as a process of its own with this one's settings; its JSON
becomes the outcome.

Not here: what the commands do (`operations.checks.selftest`, `operations.diagnostics`), storing requests
(`relay.cloud.deferred`).
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from gateway.fsync import make_folder
from gateway.messages import (
    CollectDiagnostics,
    CreateTestItem,
    DiagnosticsCompleted,
    RunSelftest,
    SeenHop,
    SelftestCompleted,
    Tested,
    TestItemPerformed,
)
from relay.cloud.blob_upload import BlobUpload, UploadRefused, UrlRefused
from relay.cloud.deferred import DeferredActions
from relay.cloud.full_images import UploadTargets
from relay.cloud.throttle import Throttle
from relay.delivery.delivery import Event
from relay.protocol import Json

log = structlog.get_logger()

PATIENCE_SECONDS = 300.0
"""Limit of a command; a self-test waits a minute for the line, a bundle is made in less."""

# A process and not a call: it cannot take the relay down, the relay need not import `operations`, and the cloud sees
# what an engineer sees.
COMMAND = (sys.executable, "-m", "gateway")


@dataclass(frozen=True)
class Done:
    """The end of a command: exit code (None: not in time), standard output, and the last sentence of standard error."""

    code: int | None
    output: str
    words: str


class SiteTasks:
    """Stores and carries out site tasks, one at a time."""

    def __init__(
        self,
        requests: DeferredActions,
        upload_targets: UploadTargets,
        *,
        throttle: Throttle,
        folder: Path,
        command: tuple[str, ...] = COMMAND,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Bundles that have no target URL stay in `folder`."""
        self._requests = requests
        self._upload_targets = upload_targets
        self._throttle = throttle
        self._folder = folder
        self._command = command
        self._clock = clock
        self._turn = asyncio.Lock()

    def accept(self, action: RunSelftest | CollectDiagnostics | CreateTestItem) -> None:
        """Store a task. Raises Conflict for another content under a known action id, and other Refusals."""
        parameters: Json = {}
        match action:
            case RunSelftest():
                parameters = {"force": action.parameters.force}
            case CollectDiagnostics():
                if action.parameters.target_url:
                    self._upload_targets.check_url(action.parameters.target_url)
                parameters = {"target_url": action.parameters.target_url}
            case CreateTestItem():
                parameters = {"accession_number": action.parameters.worklist_item.accession_number}
        self._requests.accept(action, parameters, about="", now=self._clock())

    async def selftest(self, event: Event) -> None:
        """Run the self-test and enqueue its result."""
        force = ("--force",) if event.parameters.get("force") else ()
        async with self._turn:
            done = await self._run("selftest", "--json", *force)
        await self._enqueue_result(SelftestCompleted, event, done)

    async def perform(self, event: Event) -> None:
        """Let the modality emulator perform a test item and enqueue the result."""
        async with self._turn:
            done = await self._run("modality", str(event.parameters["accession_number"]), "--json")
        await self._enqueue_result(TestItemPerformed, event, done)

    async def diagnose(self, event: Event) -> None:
        """Make a bundle and upload it if there is a target URL. Raises CloudError to be tried again."""
        request_id, url = _request_id(event), str(event.parameters["target_url"])
        name = hashlib.sha256(request_id.encode()).hexdigest()[:16]  # an action id is no file name
        path = self._folder / f"{name}.tar.gz"
        async with self._turn:
            if not path.exists():  # else an attempt before made it, and only its upload failed
                await asyncio.to_thread(make_folder, self._folder)
                done = await self._run("diagnostics", str(path))
                if done.code != 0:
                    reason = done.words or "The bundle could not be made; the relay's log says why."
                    await self._enqueue(DiagnosticsCompleted(request_id=request_id, reason=reason))
                    return
        await self._hand_over(path, url, request_id)

    async def _hand_over(self, path: Path, url: str, request_id: str) -> None:
        content = await asyncio.to_thread(path.read_bytes)
        sha256, reason = hashlib.sha256(content).hexdigest(), ""
        if url:
            try:
                egress = self._upload_targets.egress
                with path.open("rb") as file:
                    upload = BlobUpload(
                        url, file, sha256, throttle=self._throttle, content_type="application/gzip", egress=egress
                    )
                    await upload.run()
            except (UrlRefused, UploadRefused) as error:
                reason = str(error)
        await self._enqueue(
            DiagnosticsCompleted(
                request_id=request_id, file=path.name, sha256=sha256, size_bytes=len(content), reason=reason
            )
        )
        if url and not reason:
            path.unlink()

    async def _enqueue_result(self, kind: type[Tested], event: Event, done: Done) -> None:
        hops = _hops(done.output)
        # A command that failed without a failed hop did not pass either, and its own sentence is the reason.
        passed = done.code == 0 and all(hop.state != "failed" for hop in hops)
        reason = "" if passed or hops else done.words or "The test ended without a result; the relay's log says why."
        await self._enqueue(kind(request_id=_request_id(event), passed=passed, reason=reason, hops=hops))

    async def _enqueue(self, event: Tested | DiagnosticsCompleted) -> None:
        await asyncio.to_thread(self._requests.enqueue_outcome, event, now=self._clock())

    async def _run(self, *arguments: str) -> Done:
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                output, words = await process.communicate()
        except TimeoutError:
            log.error("command took too long", command=arguments[0])
            return Done(None, "", f"It was not over after {PATIENCE_SECONDS:.0f} seconds.")
        finally:  # also when the relay stops: the command must not outlive it
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        log.info("command ended", command=arguments[0], code=process.returncode)
        return Done(process.returncode, output.decode(errors="replace"), _last_words(words))


def _hops(output: str) -> tuple[SeenHop, ...]:
    try:
        facts = json.loads(output)
    except ValueError:
        return ()
    return tuple(SeenHop.model_validate(fact) for fact in facts) if isinstance(facts, list) else ()


def _last_words(words: bytes) -> str:
    """The last line on standard error that is no log line (JSON), because log lines must not leave the site."""
    lines = [line for line in words.decode(errors="replace").splitlines() if line.strip() and not line.startswith("{")]
    return lines[-1][:500] if lines else ""


def _request_id(event: Event) -> str:
    return str(event.parameters["request_id"])
