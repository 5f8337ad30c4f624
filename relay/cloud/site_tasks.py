"""What the site does for itself when the cloud asks: a test of itself, a test item performed, a diagnostics bundle.

Each is a command that an engineer could give on site, `gateway selftest` and so on, and is carried out as exactly that:
a process of its own, with this one's settings, whose JSON is what the cloud is told. So nothing here can take the relay
down, and what the cloud sees is what an engineer sees.

Not here: what the commands do (`operations.checks.selftest`, `operations.diagnostics`), the memory of requests
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
"""For a command; a self-test waits a minute for the line, a bundle is made in less."""

COMMAND = (sys.executable, "-m", "gateway")


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code (None: not in time), what it printed, and its last words."""

    code: int | None
    output: str
    words: str


class SiteTasks:
    """Accepts and carries out what the site does for itself; one at a time."""

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
        """Bundles that are wanted nowhere else stay in `folder`."""
        self._requests = requests
        self._upload_targets = upload_targets
        self._throttle = throttle
        self._folder = folder
        self._command = command
        self._clock = clock
        self._turn = asyncio.Lock()

    def accept(self, action: RunSelftest | CollectDiagnostics | CreateTestItem) -> None:
        """Remember what is asked. Raises Conflict for another content under a known id, and other Refusals."""
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
        """Have the site test itself."""
        force = ("--force",) if event.parameters.get("force") else ()
        async with self._turn:
            done = await self._run("selftest", "--json", *force)
        await self._owe_test(SelftestCompleted, event, done)

    async def perform(self, event: Event) -> None:
        """Have the emulator perform a test item."""
        async with self._turn:
            done = await self._run("modality", str(event.parameters["accession_number"]), "--json")
        await self._owe_test(TestItemPerformed, event, done)

    async def diagnose(self, event: Event) -> None:
        """Have a bundle made, and upload it if it is wanted elsewhere. Raises CloudError to be tried again."""
        request_id, url = _request_id(event), str(event.parameters["target_url"])
        name = hashlib.sha256(request_id.encode()).hexdigest()[:16]  # an action id is no file name
        path = self._folder / f"{name}.tar.gz"
        async with self._turn:
            if not path.exists():
                await asyncio.to_thread(make_folder, self._folder)
                done = await self._run("diagnostics", str(path))
                if done.code != 0:
                    reason = done.words or "The bundle could not be made; the relay's log says why."
                    await self._owe(DiagnosticsCompleted(request_id=request_id, reason=reason))
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
        await self._owe(
            DiagnosticsCompleted(
                request_id=request_id, file=path.name, sha256=sha256, size_bytes=len(content), reason=reason
            )
        )
        if url and not reason:
            path.unlink()

    async def _owe_test(self, kind: type[Tested], event: Event, done: Done) -> None:
        hops = _hops(done.output)
        passed = done.code == 0 and all(hop.state != "failed" for hop in hops)
        reason = "" if passed or hops else done.words or "The test ended without a result; the relay's log says why."
        await self._owe(kind(request_id=_request_id(event), passed=passed, reason=reason, hops=hops))

    async def _owe(self, event: Tested | DiagnosticsCompleted) -> None:
        await asyncio.to_thread(self._requests.owe, event, now=self._clock())

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
        finally:
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
    """The last line on standard error if it is a sentence of ours; log lines are JSON and stay here."""
    lines = [line for line in words.decode(errors="replace").splitlines() if line.strip() and not line.startswith("{")]
    return lines[-1][:500] if lines else ""


def _request_id(event: Event) -> str:
    return str(event.parameters["request_id"])
