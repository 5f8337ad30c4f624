"""A headless Chromium that a test drives through its DevTools protocol: what people see, and what the page asked for.

It needs nothing but the browser itself. WebGL is done in software, so that it paints as on a PC, only slower.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds until what a test waits for has to be seen."""

_KEY_NUMBERS = {".": 190, ",": 188}
"""What pages of old call `keyCode`, where it is not that of the letter."""


class Page:
    """One page. Coordinates are pixels of the window; expressions are JavaScript."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop = loop
        self._socket = socket
        self._last = 0
        self.requests: list[str] = []
        """Every address that was asked for, by the page and by its workers."""
        self.posted: list[str] = []
        """Those of them that something was sent to with POST."""
        self.problems: list[str] = []
        """What the console got as errors, exceptions nobody caught, and what the browser itself complained of."""

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def forget(self) -> None:
        """Leave the page and what was noted of it."""
        self.open("about:blank")
        self.requests.clear()
        self.problems.clear()

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; of a promise, what it comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, *, what: str, seconds: float = PATIENCE) -> Any:
        """Look again and again until an expression is true; gives its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come within {seconds:.0f} s. Problems: {self.problems}")
            time.sleep(0.1)
        return value

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag with the left button, in steps as a hand does it."""
        self._mouse("mouseMoved", start)
        self._mouse("mousePressed", start, button="left", buttons=1, clickCount=1)
        for step in range(1, 11):
            at = (start[0] + (end[0] - start[0]) * step / 10, start[1] + (end[1] - start[1]) * step / 10)
            self._mouse("mouseMoved", at, button="left", buttons=1)
        self._mouse("mouseReleased", end, button="left", clickCount=1)

    def _mouse(self, kind: str, at: tuple[float, float], **how: object) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **how)

    def wheel(self, x: float, y: float, delta: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=delta)

    def press(self, key: str, code: str) -> None:
        """Press a key: what it writes, and its name in the UI Events specification, such as KeyC."""
        number = _KEY_NUMBERS.get(key, ord(key.upper()))
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, text=key, windowsVirtualKeyCode=number)

    def call(self, method: str, **parameters: object) -> Any:
        """Send one command of the protocol and give its result."""
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, object]) -> Any:
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": parameters})
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.receive_str(), PATIENCE))
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url, "method": method}}}:
                self.requests.append(url)
                self.posted += [url] if method == "POST" else []
            case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "assert", "args": said}}:
                self.problems.append(" ".join(str(each.get("value", each.get("description"))) for each in said))
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": text, **entry}}}:
                self.problems.append(f"{text} {entry.get('url', '')}")


@contextmanager
def page(folder: Path, *, width: int = 1280, height: int = 900, flags: tuple[str, ...] = ()) -> Iterator[Page]:
    """An empty page in a browser of its own that keeps what it keeps in a folder of its own."""
    profile = folder / "browser"
    command = [str(CHROMIUM), *FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    with (folder / "browser.log").open("w") as log:
        browser = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    loop = asyncio.new_event_loop()
    try:
        session, connected = loop.run_until_complete(_connected(_port(profile, browser)))
        opened = Page(loop, connected)
        for domain in ("Page", "Runtime", "Network", "Log"):
            opened.call(f"{domain}.enable")
        opened.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        yield opened
        loop.run_until_complete(session.close())
    finally:
        browser.kill()
        browser.wait()
        loop.close()


def _port(profile: Path, browser: subprocess.Popen[bytes]) -> int:
    """Where the browser listens, which it writes into a file once it does."""
    said, deadline = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while not said.is_file() or not said.read_text():
        assert browser.poll() is None, (profile.parent / "browser.log").read_text()
        assert time.monotonic() < deadline, "Chromium did not start."
        time.sleep(0.05)
    return int(said.read_text().split()[0])


async def _connected(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
        target = await answer.json()
    return session, await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
