"""The page as people meet it: Debian's chromium, a real server, a real daemon where something is rendered."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from heygemd.spool.layout import Layout
from heygemd.web.accounts import add_user
from tests import media
from tests.daemon import Daemon
from tests.web.conftest import WORDS
from tests.web.server import WebServer

pytestmark = [
    pytest.mark.browser,
    # The loop that playwright's sync API runs inside warns about sockets that it closes late.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PATIENCE_MS = 60_000
RENDER_MS = 240_000
"""What a render may take where others keep both cores busy."""

NOTE_CLICKS = """input => {
  window.clicks = 0;
  input.onclick = (event) => { window.clicks += 1; event.preventDefault(); };
}"""
ASK_NOW = "() => document.dispatchEvent(new Event('visibilitychange'))"
"""Not only every few seconds."""
NOTE_PROGRESS = """() => {
    window.readings = [];
    new MutationObserver(() => {
        const [chip, bar] = [".chip", "[role=progressbar]"].map(name => document.querySelector(`.panel ${name}`));
        if (chip && bar) window.readings.push([chip.innerText, Number(bar.getAttribute("aria-valuenow") ?? 0)]);
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""
"""Every state and percentage that the panel shows, noted where it is shown: who asks from outside comes too late."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    media.moving_portrait(folder / "portrait.mp4", seconds=1.2, size=240)
    media.speech(folder / "greeting.wav", "Good morning.")
    # Long enough for a quick machine to be seen at work.
    media.speech(folder / "lecture.wav", "Good morning, my name is Bob. Please come back tomorrow. " * 6)
    noise = np.random.default_rng(1).integers(0, 255, (180, 240, 3), np.uint8)
    cv2.imwrite(str(folder / "nobody.png"), noise)
    faces = cv2.imread(str(media.portrait(folder / "one.png", 240)))
    small = cv2.resize(faces, (180, 180), interpolation=cv2.INTER_AREA)
    both = np.full((260, 480, 3), 128, np.uint8)
    both[10:190, 20:200], both[10:250, 220:460] = small, faces
    cv2.imwrite(str(folder / "two people.png"), both)
    return folder


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("web") / "share"
    with Daemon(root, SCHEDULER__CPU_SLOTS="1", SCHEDULER__SEGMENT_SECONDS="0.4") as daemon:
        daemon.start()
        yield root


@pytest.fixture(scope="module")
def server(share: Path) -> Iterator[WebServer]:
    with WebServer(share, WEB__CHUNK_BYTES="262144") as server:
        yield server
        assert server.failures() == []


def visit(context: BrowserContext, url: str) -> Page:
    """The page, loaded; whatever goes wrong in its scripts fails the test."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    return page


@pytest.fixture
def page(browser: Browser, server: WebServer) -> Iterator[Page]:
    with browser.new_context(locale="en-GB") as context:
        yield visit(context, server.url)


def choose(page: Page, view: str, *files: tuple[int, Path | list[Path]]) -> None:
    inputs = page.locator(f"#{view} input[type=file]")
    for number, paths in files:
        inputs.nth(number).set_input_files(paths)


def in_the_page(page: Page, path: str) -> Any:
    """The answer to a GET with this browser's own session."""
    return page.context.request.get(path, timeout=PATIENCE_MS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_a_video(page: Page, clips: Path, server: WebServer) -> None:
    outside = []
    page.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") and server.url not in r.url else 0)
    start = page.locator("#make button[type=submit]")
    expect(start).to_be_disabled()
    choose(page, "make", (0, clips / "portrait.mp4"), (1, clips / "lecture.wav"))
    preview = page.locator("#make .preview video")
    preview.wait_for()
    expect(page.locator("#make .file[data-state=ready]")).to_have_count(2)
    # The source plays before anything is rendered.
    page.wait_for_function("() => document.querySelector('#make .preview video').readyState >= 1")
    estimate = re.compile(r"(About|Perhaps) .* once it starts.* frames, engine rewrite")
    expect(page.locator("#make .estimate")).to_have_text(estimate)
    page.locator("#make summary").filter(has_text="Options").click()
    page.locator("#make select[name=quality]").select_option("draft")
    page.evaluate(NOTE_PROGRESS)
    start.click()
    panel = page.locator(".panel")
    expect(panel).to_be_focused()
    chip = panel.locator(".chip")
    expect(chip).to_have_text(re.compile("^(done|failed)$"), timeout=RENDER_MS)
    assert chip.inner_text() == "done", panel.inner_text()
    seen: list[tuple[str, int]] = page.evaluate("() => window.readings")
    assert len({percent for _, percent in seen}) >= 3, f"the bar moves: {seen}"
    assert len({stage for stage, _ in seen}) >= 2, f"stages are named: {seen}"
    expect(panel.locator("video")).to_have_count(2)
    result = panel.locator("video.result")
    played = result.evaluate(
        """async video => {
            await video.play();
            await new Promise(done => video.addEventListener("timeupdate", () => video.currentTime > 0.2 && done()));
            return {ready: video.readyState, time: video.currentTime, width: video.videoWidth, long: video.duration};
        }"""
    )
    assert played["ready"] >= 2
    assert played["width"] == 240
    assert played["long"] > 0.5
    with page.expect_download() as download:
        panel.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "lecture.mp4"
    assert media.probe(Path(download.value.path()))["width"] == "240"
    assert outside == [], "the page asks nobody but its own server"
    _two_users_are_isolated(page, server)


def _two_users_are_isolated(page: Page, server: WebServer) -> None:
    """The other visitor knows every address of the first one's result."""
    address = page.locator(".panel video.result").get_attribute("src") or ""
    source = page.locator(".panel video").first.get_attribute("src") or ""
    assert in_the_page(page, address).status == 200
    browser = page.context.browser
    assert browser is not None
    with browser.new_context() as context:
        other = visit(context, server.url + "#videos")
        expect(other.get_by_text("Nothing yet")).to_be_visible()
        assert in_the_page(other, address).status == 404
        assert in_the_page(other, source).status == 404
        assert other.locator("select").filter(has_text="portrait.mp4").count() == 0
    # A link, made on purpose, shows it.
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Link: lecture").click()
    expect(page.locator(".toast.good")).to_contain_text("Link copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    with browser.new_context() as context:
        shared = context.new_page()
        shared.set_default_timeout(PATIENCE_MS)
        shared.goto(link)
        shared.locator("video").evaluate("video => video.readyState || new Promise(r => (video.onloadedmetadata = r))")
        expect(shared.get_by_role("heading", name="lecture")).to_be_visible()


def test_an_upload_broken_in_the_middle_goes_on(page: Page, tmp_path: Path) -> None:
    """At 60 % the connection is gone for good and the page is closed; later the same file is chosen again."""
    data = random.Random(6).randbytes(2_000_000)
    clip = tmp_path / "long talk.wav"
    clip.write_bytes(data)

    def break_off(route: Route) -> None:
        offset = int(route.request.headers["upload-offset"])
        route.abort("connectionreset") if offset >= 1_200_000 else route.continue_()

    def only_patches(route: Route) -> None:
        break_off(route) if route.request.method == "PATCH" else route.continue_()

    page.route("**/api/uploads/*", only_patches)
    choose(page, "make", (1, clip))
    expect(page.locator("#make .file .words")).to_contain_text("connection broke")
    expect(page.locator("#make").get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile("6[0-9]"))
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    # Six or seven tenths: of a page that is left, one question that was held up may still go through.
    expect(page.get_by_text(re.compile(r"long talk.wav: [67]\d % is here already"))).to_be_visible()
    (held,) = page.evaluate("async () => (await fetch('api/uploads')).json()")
    page.unroute("**/api/uploads/*")  # not before: the page that was left tries again by itself
    resumed: list[int] = []
    page.on("request", lambda r: resumed.append(int(r.headers["upload-offset"])) if r.method == "PATCH" else None)
    choose(page, "make", (1, clip))
    # The bytes are noise: that it says so means that all of them came and were looked at.
    expect(page.locator("#make .file[data-state=failed] .words")).to_contain_text("long talk.wav")
    assert resumed[0] == held["offset"] >= 1_200_000, "nothing is sent twice"
    (info,) = page.evaluate("async () => (await fetch('api/uploads')).json()")
    content = page.evaluate(
        """async id => { const b = await (await fetch(`api/uploads/${id}/content`)).arrayBuffer();
            const d = await crypto.subtle.digest('SHA-256', b); return [...new Uint8Array(d)]; }""",
        info["id"],
    )
    page.goto(f"{address}#videos")
    page.get_by_text("Uploaded files").click()
    page.get_by_role("button", name="Remove long talk.wav").click()
    expect(page.locator("#videos").get_by_text("long talk.wav")).to_have_count(0)
    assert page.evaluate("async () => (await fetch('api/uploads')).json()") == []
    assert bytes(content) == hashlib.sha256(data).digest()


@contextlib.contextmanager
def paused(share: Path) -> Iterator[None]:
    """What is handed in meanwhile waits, however long the browser takes."""
    (share / "PAUSE").touch()
    try:
        yield
    finally:
        (share / "PAUSE").unlink()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_batch(page: Page, clips: Path, share: Path) -> None:
    page.get_by_role("link", name="Batch").click()
    videos = [clips / "portrait.mp4", clips / "one.png", clips / "nobody.png"]
    choose(page, "batch", (0, videos), (1, [clips / "greeting.wav", clips / "greeting.wav"]))
    expect(page.locator("#batch .estimate")).to_contain_text("leave one of either")
    expect(page.locator("#batch").get_by_text("No face was found in this picture")).to_have_count(1)
    page.get_by_role("button", name="Remove greeting.wav").last.click()
    expect(page.locator("#batch .estimate")).to_have_text("3 videos will be made.")
    page.locator("#batch summary").filter(has_text="Options").click()
    page.locator("#batch select[name=quality]").select_option("draft")
    rows = page.locator(".batch tr[data-job]")
    one = rows.filter(has_text="one.png")
    with paused(share):
        page.locator("#batch").get_by_role("button", name="Start").click()
        expect(page).to_have_url(re.compile("#videos$"))
        expect(page.get_by_role("heading", name="My videos")).to_be_visible()  # what shows it has scrolled, too
        expect(rows).to_have_count(3)
        expect(rows.first.locator("img")).to_have_js_property("complete", True)
        assert rows.locator("strong").all_inner_texts() == ["portrait", "one", "nobody"], "in the order that was chosen"
        assert page.evaluate("() => scrollY") == 0, "the heading is not below the sticky top"
        expect(one.locator(".chip")).to_have_text("waiting")
        one.get_by_role("button", name="Cancel").press("Enter")
        expect(one.locator(".chip")).to_have_text("cancelled")
        expect(one.get_by_role("button", name="Try again")).to_be_focused()
        one.get_by_role("button", name="Try again").press("Enter")
    zip_link = page.get_by_role("link", name="Download all as zip")
    failed = rows.filter(has_text="nobody")
    expect(failed.locator(".chip")).to_have_text("failed", timeout=RENDER_MS)
    expect(failed.locator(".error")).to_contain_text("What to do")
    expect(failed.get_by_role("button", name="Try again")).to_be_enabled()
    expect(page.locator(".batch .head")).to_contain_text("2 of 3 done · 1 failed", timeout=RENDER_MS)
    with page.expect_download() as download:
        zip_link.click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["one.mp4", "portrait.mp4"]
        archive.extract("one.mp4", clips)
    assert float(media.probe(clips / "one.mp4")["duration"]) > 0.5


def test_the_face_that_speaks_is_chosen_by_a_click(page: Page, clips: Path) -> None:
    choose(page, "make", (0, clips / "two people.png"))
    faces = page.get_by_role("group", name="Several faces in two people.png").get_by_role("button")
    expect(faces).to_have_count(2)
    expect(faces.nth(1)).to_have_attribute("aria-pressed", "true")
    faces.nth(0).focus()
    page.keyboard.press("Enter")
    expect(faces.nth(0)).to_have_attribute("aria-pressed", "true")
    expect(faces.nth(1)).to_have_attribute("aria-pressed", "false")
    assert page.locator("#make select[name=face]").input_value() == "leftmost"
    page.get_by_role("radio", name="Text").check()
    with page.expect_request("**/api/estimates") as asked:
        page.get_by_label("Text to be spoken").fill("Hello.")
    assert asked.value.post_data_json["options"] == {"face": "leftmost"}
    assert asked.value.post_data_json["text"] == "Hello."
    page.locator("#make summary").filter(has_text="Options").click()
    page.locator("#make select[name=face]").select_option("rightmost")
    expect(faces.nth(1)).to_have_attribute("aria-pressed", "true")


def test_a_face_for_each_video_of_a_batch(page: Page, clips: Path, tmp_path: Path) -> None:
    """With the keyboard, by the names that a screen reader says. What is made of the order: test_orders.py."""
    other = tmp_path / "the same two.png"
    shutil.copy(clips / "two people.png", other)
    page.get_by_role("link", name="Batch").click()
    choose(page, "batch", (0, [clips / "two people.png", other]), (1, clips / "greeting.wav"))
    first = page.get_by_role("group", name="Several faces in two people.png")
    second = page.get_by_role("group", name="Several faces in the same two.png")
    left, right = "Face 1 of 2, from the left", "Face 2 of 2, from the left"
    for group in (first, second):
        expect(group.get_by_role("button", name=right)).to_have_attribute("aria-pressed", "true")
    first.get_by_role("button", name=right).press("Enter")  # what is so already can be meant, too
    page.locator("#batch summary").filter(has_text="Options").click()
    page.locator("#batch select[name=face]").select_option("leftmost")
    expect(second.get_by_role("button", name=left)).to_have_attribute("aria-pressed", "true")
    expect(first.get_by_role("button", name=right)).to_have_attribute("aria-pressed", "true")
    page.locator("#batch select[name=turn]").select_option("later")
    start = page.locator("#batch").get_by_role("button", name="Start")
    expect(start).to_be_enabled()

    def take(route: Route) -> None:
        route.fulfill(status=201, json={"jobs": [], "batch": "b"}) if route.request.method == "POST" else route.abort()

    page.route("**/api/jobs", take)
    with page.expect_request(lambda request: request.method == "POST") as sent:
        start.click()
    wanted = sent.value.post_data_json
    assert [pair["face"] for pair in wanted["pairs"]] == ["largest", None]
    assert (wanted["options"], wanted["turn"]) == ({"face": "leftmost"}, "later")


def test_what_went_wrong_in_chinese(browser: Browser, server: WebServer, tmp_path: Path) -> None:
    """The sentence and the remedy in Chinese; the daemon's own words below, which stay open while more comes."""
    broken = tmp_path / "坏的.mp4"
    broken.write_bytes(bytes(range(256)) * 20)
    error = {"code": "HG-1007", "message": "太长了。", "remedy": "请缩短。", "details": "HG-1007 · too long"}
    job = {
        "job": "a",
        "title": "第一课",
        "state": "failed",
        "error": error,
        "video_name": "a.mp4",
        "audio_name": "a.wav",
    }
    answer = {"running": True, "paused": None, "jobs": [job]}
    with browser.new_context(locale="zh-CN") as context:
        page = visit(context, server.url)
        choose(page, "make", (0, broken))
        card = page.locator("#make .file[data-state=failed]")
        expect(card.locator(".words")).to_have_text(
            re.compile("^“坏的.mp4”不是可用的视频、图片或录音。处理办法：请确认")
        )
        details = card.locator("details")
        expect(details.locator("p")).to_be_hidden()
        details.locator("summary").press("Enter")
        expect(details.locator("p")).to_have_text(re.compile("^HG-1003 · 坏的.mp4: not a video"))
        page.get_by_role("button", name="移除 坏的.mp4").click()

        page.route("**/api/jobs", lambda route: route.fulfill(json=answer))
        page.get_by_role("link", name="我的视频").click()
        page.evaluate(ASK_NOW)
        told = page.locator("tr[data-job=a] .error")
        expect(told.locator("> p")).to_have_text(["太长了。", "处理办法：请缩短。"])
        told.locator("summary").click()
        answer["jobs"] = [job | {"title": "第二课", "job": "b", "state": "queued"}, job]
        page.evaluate(ASK_NOW)
        expect(page.locator("tr[data-job=b]")).to_be_visible()
        expect(told.locator("details p")).to_be_visible()


def test_consent_where_it_is_demanded(browser: Browser, clips: Path, tmp_path: Path) -> None:
    """Nothing starts without it; with it the job stands in the inbox, the paper beside it. No daemon is needed."""
    share = tmp_path / "share"
    Layout(share, tmp_path / "state").ensure()
    (share / "inbox/.heygemd.toml").write_text("require_consent = true\n")
    paper = tmp_path / "release.pdf"
    paper.write_bytes(b"%PDF-1.4 signed")
    with WebServer(share) as server, browser.new_context(locale="en-GB") as context:
        page = visit(context, server.url)
        choose(page, "make", (0, clips / "portrait.mp4"), (1, clips / "greeting.wav"))
        expect(page.locator("#make-hint")).to_have_text("Give the consent of the people in the video.")
        start = page.locator("#make button[type=submit]")
        expect(start).to_be_disabled()
        choose(page, "make", (2, paper))
        expect(page.locator("#make .file[data-state=ready]")).to_have_count(3)
        start.click()
        expect(page.locator(".panel .chip")).to_have_text("handed in")
        assert server.failures() == []
    (brought,) = (share / "inbox").rglob("*.consent.pdf")
    assert brought.read_bytes() == paper.read_bytes()


def test_a_session_that_is_over(page: Page) -> None:
    """The page says so and waits: what was typed is not thrown away. A proxy's login page counts as well."""
    page.get_by_role("radio", name="Text").check()
    page.get_by_label("Text to be spoken").fill("Long and carefully written.")
    banner = page.locator("#banner")
    away = "http://login.test/"
    page.route("**/api/jobs", lambda route: route.fulfill(status=302, headers={"Location": away}))
    page.evaluate(ASK_NOW)
    expect(banner).to_contain_text("Your session is over")
    page.unroute("**/api/jobs")
    page.evaluate(ASK_NOW)
    expect(banner).to_be_hidden()
    page.context.clear_cookies()
    page.evaluate(ASK_NOW)
    expect(banner).to_contain_text("Your session is over")
    expect(page.get_by_label("Text to be spoken")).to_have_value("Long and carefully written.")
    banner.get_by_role("button", name="Load").click()
    page.wait_for_selector("body[data-ready]")
    expect(banner).to_be_hidden()


def test_an_answer_that_was_overtaken_is_not_shown(page: Page) -> None:
    """The page asks again while the first answer is still on its way; the first one comes last."""
    shown = page.evaluate(
        """async () => {
            const { Jobs } = await import(new URL("static/jobs.js", document.baseURI));
            const answers = [], job = state => ({ job: "talk", title: "talk", state });
            window.fetch = () => new Promise(done => answers.push(state =>
                done(new Response(JSON.stringify({ running: true, paused: null, jobs: [job(state)] })))));
            const jobs = new Jobs();
            const asked = () => new Promise(done => jobs.addEventListener("asked", done, { once: true }));
            const heard = asked();
            jobs.soon();
            jobs.soon();
            answers[1]("done");
            await heard;
            answers[0]("rendering");
            await new Promise(done => setTimeout(done, 50)); // more than the promises of an answer take
            const first = jobs.byName.get("talk").state;
            const again = asked();
            jobs.soon();
            answers.at(-1)("failed");
            await again;
            return [first, jobs.byName.get("talk").state];
        }"""
    )
    assert shown == ["done", "failed"]


def test_the_microphone(page: Page) -> None:
    page.get_by_role("radio", name="Microphone").check()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("timer")).to_have_text(re.compile("0:(0[2-9]|[1-5][0-9])"))  # since it really records
    page.get_by_role("button", name="Stop").click()
    ready = page.locator("#make .file[data-state=ready]")
    expect(ready).to_contain_text("Recording")
    expect(ready.locator(".words")).to_contain_text(re.compile(r"\b[1-9][0-9]* s"))


def test_only_with_the_keyboard(page: Page, clips: Path) -> None:
    page.on("filechooser", lambda _: None)  # from the start: a dialog opened while this takes effect is not seen
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("() => (document.activeElement.innerText || document.activeElement.type || '').trim()")
        )
    assert reached[0] == "Skip to the content"
    for wanted in ("Make a video", "Batch", "My videos", "file", "radio", "Options"):
        assert wanted in reached, reached
    field = page.locator("#make input[type=file]").first
    field.evaluate(NOTE_CLICKS)
    field.focus()
    for key in ("Space", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("() => window.clicks === 2")
    field.evaluate("input => { input.onclick = null; }")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(clips / "greeting.wav")
    expect(page.locator("#make .file .words")).to_contain_text("cannot be used here")
    expect(page.get_by_role("button", name="Remove greeting.wav")).to_be_focused()
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    page.get_by_role("link", name="My videos").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="My videos")).to_be_visible()
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="My videos")).to_be_visible()
    assert page.evaluate("() => document.activeElement.id") == "main"


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("zh", "dark")])
def test_on_a_phone(browser: Browser, server: WebServer, clips: Path, language: str, scheme: Any) -> None:
    with browser.new_context(
        viewport={"width": 360, "height": 740}, locale=language, color_scheme=scheme, has_touch=True, is_mobile=True
    ) as context:
        page = visit(context, server.url)
        choose(page, "make", (0, clips / "two people.png"))
        expect(page.locator(".faces button").first).to_be_visible()
        for view in ("make", "batch", "videos"):
            page.evaluate("view => { location.hash = view }", view)
            expect(page.locator(f"#{view} h1")).to_be_visible()
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 360, f"{view} is wider than the phone"
        background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
        heading = page.locator("#videos h1").inner_text()
        assert heading == {"en": "My videos", "zh": "我的视频"}[language]
        page.locator("#theme").tap()  # the click that follows from it comes when the browser has understood the gesture
        page.wait_for_function("before => getComputedStyle(document.body).backgroundColor !== before", arg=background)


@pytest.mark.slow
def test_operators_below_a_path(browser: Browser, share: Path) -> None:
    """Names and passwords, an admin and somebody else, everything below /video."""
    users = share.parent / "users"
    add_user(users, "ana", WORDS)
    add_user(users, "bo", WORDS)
    settings = {"WEB__AUTH": "basic", "WEB__USERS_FILE": str(users), "WEB__ADMINS": "ana", "WEB__ROOT_PATH": "/video"}
    with WebServer(share, **settings) as server:
        assert server.url.endswith("/video/")
        with browser.new_context(http_credentials={"username": "bo", "password": WORDS}) as context:
            page = visit(context, server.url)
            expect(page.locator("nav").get_by_text("Operators")).to_have_count(0)
            answer = page.goto(f"{server.url}operators")
            assert answer is not None
            assert answer.status == 403
            expect(page.get_by_text("This page is for operators.")).to_be_visible()
        with browser.new_context() as context:
            assert context.request.get(f"{server.url}operators/en/", timeout=PATIENCE_MS).status == 401
        with browser.new_context(http_credentials={"username": "ana", "password": WORDS}, locale="en") as context:
            _operate(visit(context, server.url), server)
        assert server.failures() == []


def _operate(page: Page, server: WebServer) -> None:
    outside = []
    page.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") and server.url not in r.url else 0)
    page.get_by_role("link", name="Operators").click()
    headline = page.locator("#headline")
    expect(headline).to_contain_text("The daemon runs")
    expect(page.locator("#devices")).to_contain_text("cpu")
    page.get_by_role("button", name="Pause the queue").click()
    expect(headline).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(headline).not_to_contain_text("paused")
    page.get_by_role("tab", name="Retention").click()
    expect(page.get_by_role("button", name="Remove now")).to_be_disabled()
    assert [url for url in outside if "gradio_api" in url or not url.startswith(server.url)] == []
