"""How fast the web page reacts while four renders run: python bench/web_latency.py (needs chromium; about a minute).

Four jobs of a synthetic clip render on the CPU at once. Meanwhile requests are timed from outside, and in headless
Chromium the time from a click to the next painted frame that shows its effect.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import expect, sync_playwright

from tests import media
from tests.daemon import Daemon
from tests.web.server import WebServer

RENDERS = 4
ROUNDS = 60
CLICK = """view => new Promise(done => {
    const link = document.querySelector(`nav [data-view=${view}]`);
    const begin = performance.now();
    link.click();
    const look = () => document.getElementById(view).hidden
        ? requestAnimationFrame(look)
        : requestAnimationFrame(() => done(performance.now() - begin));
    look();
})"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        clips = Path(folder)
        media.moving_portrait(clips / "clip.mp4", seconds=8, size=512)
        media.speech(clips / "speech.wav", "This sentence is said again and again, so that it takes a while. " * 12)
        daemon = Daemon(clips / "share", SCHEDULER__CPU_SLOTS=str(RENDERS), MEDIA__PRESET="veryfast")
        with daemon.start(), WebServer(clips / "share", WEB__ESTIMATE_TIMEOUT_SECONDS="0") as server:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{server.url}#batch")
            page.wait_for_selector("body[data-ready]")
            inputs = page.locator("#batch input[type=file]")
            inputs.nth(0).set_input_files([clips / "clip.mp4"] * RENDERS)
            inputs.nth(1).set_input_files(clips / "speech.wav")
            start = page.locator("#batch button[type=submit]")
            expect(start).to_be_enabled(timeout=60_000)
            start.click()
            chips = page.locator(".batch .chip[data-state=rendering]")
            expect(chips).to_have_count(RENDERS, timeout=180_000)
            found = measure(page)
            working = page.locator(".batch .chip[data-state=rendering]").count()
            browser.close()
    print(json.dumps({"renders_at_the_end": working, **found}, indent=2))
    return 0


def measure(page) -> dict[str, dict[str, float]]:
    address = page.url.partition("#")[0]
    views = ["make", "batch", "videos"]
    ask = page.context.request

    def click(number: int) -> float:
        return page.evaluate(CLICK, views[number % 3])

    def request(path: str) -> Callable[[int], float]:
        def timed(_number: int) -> float:
            begin = time.perf_counter()
            assert ask.get(address + path).ok
            return (time.perf_counter() - begin) * 1000

        return timed

    return {
        "click_to_paint_ms": rounds(click),
        "page_ms": rounds(request("")),
        "jobs_ms": rounds(request("api/jobs")),
        "uploads_ms": rounds(request("api/uploads")),
    }


def rounds(once: Callable[[int], float]) -> dict[str, float]:
    times = sorted(once(number) for number in range(ROUNDS))
    return {
        "median": round(statistics.median(times), 1),
        "p95": round(times[int(0.95 * ROUNDS)], 1),
        "largest": round(times[-1], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
