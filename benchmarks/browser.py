"""A page in a real headless browser, without a network: what it shows, how it answers, what its console says."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
    # Nothing may be fetched: every name leads nowhere.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--remote-debugging-pipe"),
)
# It reads orders from 3 and answers to 4, which may be in use by now.
_START = """
import fcntl, os, sys
orders, answers = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(orders, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_ANSWER_SECONDS = 90.0


class Browser:
    """One tab of Chromium, driven by its DevTools protocol through a pair of pipes.

    `console` holds what the page wrote there, and the exceptions that it did not catch.
    """

    def __init__(self, orders: int, answers: int) -> None:
        self.console: list[str] = []
        self._orders, self._answers = orders, answers
        self._numbers = itertools.count(1)
        self._unread = b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self._ask("Performance.enable", timeDomain="threadTicks")

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window in CSS pixels, that of a phone where it is narrow, and what the person prefers."""
        phone = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        """Open a page, and return when it has loaded."""
        self.console.clear()
        self._events.clear()
        self._ask("Page.navigate", url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """Return what a JavaScript expression is in the page, as JSON types; a promise is waited for."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self._ask("Runtime.evaluate", **asked)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "no description"))
        return answer["result"].get("value")

    def processor_seconds(self) -> float:
        """Processor time that the main thread of the tab has taken for tasks since the page was opened."""
        metrics = self._ask("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def point(self, x: float, y: float, *, click: bool = False) -> None:
        """Move the mouse to a place of the window, and click there."""
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Keep what is to be seen as a PNG; the `whole` page, or the window."""
        picture = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": parameters}
        order |= {"sessionId": self._session} if self._session else {}
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self._hear(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _wait_for(self, event: str) -> None:
        while not any(one["method"] == event for one in self._events):
            self._hear(self._read())

    def _hear(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        if event["method"] == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(one.get("value", one)) for one in event["params"]["args"]))
        elif event["method"] == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.console.append(f"{details['text']} {details.get('exception', {}).get('description', '')}")
        elif event["method"] == "Log.entryAdded":
            self.console.append(event["params"]["entry"]["text"])

    def _read(self) -> dict[str, Any]:
        """The next message; raises TimeoutError where none comes, and EOFError where the browser has ended."""
        end = time.monotonic() + _ANSWER_SECONDS
        while b"\0" not in self._unread:
            if not select.select([self._answers], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser did not answer within {_ANSWER_SECONDS:.0f} s")
            if not (more := os.read(self._answers, 1 << 20)):
                raise EOFError("the browser has ended")
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, which ends with the context."""
    assert BROWSER, "needs Chromium or Chrome"
    (orders, ours), (answers, theirs) = os.pipe(), os.pipe()
    start = [sys.executable, "-c", _START, str(orders), str(theirs), BROWSER, *_OPTIONS]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [*start, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(orders, theirs),
        )
        os.close(orders)
        os.close(theirs)
        try:
            yield Browser(ours, answers)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
            os.close(answers)
