"""The operators' page: devices, queue, failures with their remedies, the live log, retention. Gradio's tables and timer
serve it well; people's own page needs uploads, players and a click on a face, which Gradio would give server paths for.

The guard lets nobody but admins reach anything below /operators.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from heygemd.core.errors import HeygemdError
from heygemd.core.placement import Device
from heygemd.gpu.devices import devices
from heygemd.ops.retention import Plan
from heygemd.service.cleaning import clean_now, plan_now
from heygemd.spool.control import send, wait_answer
from heygemd.spool.viewing import FINAL_STATES, in_order
from heygemd.web.guard import GRADIO_PATH
from heygemd.web.logtail import LEVELS, last_lines
from heygemd.web.site import Site, language_of, root_of
from heygemd.web.telling import told
from heygemd.web.texts import DAEMONS_OWN, LANGUAGE_TAGS, LANGUAGES, say

_TICK_SECONDS = 2.0
_FAILURES_SHOWN = 50
_LINES_SHOWN = 300
_ANSWER_SECONDS = 5.0


class Desk:
    """What the page shows and does, as rows of texts; no Gradio in it."""

    def __init__(self, site: Site, language: str) -> None:
        self._site = site
        self._language = language
        self._devices: list[Device] | None = None

    def t(self, key: str, **values: object) -> str:
        return say(self._language, f"operators.{key}", **values)

    def words(self, error: HeygemdError) -> str:
        return " ".join(self._told(error.to_dict()))

    def _told(self, error: Mapping[str, Any]) -> tuple[str, str, str]:
        """What is wrong, what to do, code: in the daemon's own words, and in another language above them."""
        code, *said = (str(error.get(key) or "") for key in ("code", "message", "remedy"))
        if self._language != DAEMONS_OWN:
            name = PurePath(str(error.get("path") or "")).name or None
            found = told(self._language, error, {"file": name, "video": name}, for_operators=True)
            said = [f"{found[key]}\n{words}" for key, words in zip(("message", "remedy"), said, strict=True)]
        what, todo = map(self._site.discretion.text, said)
        return what, todo, code

    def headline(self) -> str:
        queue = self._site.board.queue()
        views = self._site.board.views().values()
        running = {True: "daemon_runs", False: "daemon_stopped", None: "daemon_unknown"}[queue["running"]]
        waiting = sum(view["state"] == "queued" for view in views)
        working = sum(view["state"] not in ("queued", *FINAL_STATES) for view in views)
        parts = [self.t(running), self.t("counts", working=working, waiting=waiting)]
        if queue["paused"]:
            parts.append(self.t("paused", reason=self._site.discretion.text(queue["paused"])))
        return " · ".join(parts)

    def devices(self) -> list[list[str]]:
        """Name, kind, memory, what it works on."""
        if self._devices is None:
            self._devices = devices(self._site.settings.scheduler)
        busy: dict[str, list[str]] = {device.name: [] for device in self._devices}
        for view in self._site.board.views().values():
            if view["state"] not in FINAL_STATES:
                for name in view.get("devices") or ():
                    busy.setdefault(name, []).append(view["job"])
        memory = {device.name: f"{device.budget_bytes / 2**30:.1f} GiB" for device in self._devices}
        return [[name, memory.get(name, ""), ", ".join(jobs) or self.t("idle")] for name, jobs in busy.items()]

    def queue(self) -> list[list[str]]:
        rows = []
        for view in in_order(list(self._site.board.views().values())):
            if view["state"] in FINAL_STATES:
                continue
            eta = view.get("eta_seconds")
            rows.append(
                [
                    view["job"],
                    say(self._language, f"state.{view['state']}"),
                    "" if view.get("percent") is None else f"{view['percent']:.0f} %",
                    "" if eta is None else f"{eta:.0f} s",
                    str(view.get("position") or ""),
                    str(view.get("priority", "")),
                    str(view.get("folder") or ""),
                ]
            )
        return rows

    def failures(self) -> list[list[str]]:
        """The newest first: when, which job, what is wrong, what to do, code."""
        rows: list[list[str]] = []
        for view in in_order(list(self._site.board.views().values())):
            if view["state"] == "failed" and len(rows) < _FAILURES_SHOWN:
                when = str(view.get("updated", "")).replace("T", " ")[:19]
                rows.append([when, view["job"], *self._told(view.get("error") or {})])
        return rows

    def log(self, job: str, level: str) -> str:
        """The newest first: it is what one opens a live log for, and no scrolling is needed to see it."""
        lines = last_lines(self._site.settings.log.file, _LINES_SHOWN, job=job.strip(), level=level)
        if lines is None:
            return self.t("no_log")
        shown = [f"{line.time[:23]} {line.level:<7} {self._site.discretion.text(line.message)}" for line in lines[::-1]]
        return "\n".join(shown) or self.t("no_lines")

    def ask(self, action: Any, job: str | None = None) -> str:
        """pause, resume, retry, cancel; the answer in words."""
        try:
            answer = wait_answer(
                self._site.layout.control, send(self._site.layout.control, action, job), _ANSWER_SECONDS
            )
        except HeygemdError as error:
            return self.words(error)
        if answer is None:
            return self.t("not_answered")
        if answer.ok:
            return self.t(f"said.{action}")
        return " ".join(self._told(answer.details.get("error") or {"message": answer.message}))

    def retention(self) -> tuple[list[list[str]], Plan]:
        plan = plan_now(self._site.settings, self._site.layout)
        return [
            [f"{r.folder.kind}/{r.folder.relative}", f"{r.folder.size_bytes / 1e6:.1f} MB", r.reason]
            for r in plan.removals
        ], plan

    def clean(self) -> str:
        try:
            _, plan = self.retention()
            outcome = clean_now(plan, self._site.layout)
        except HeygemdError as error:
            return self.words(error)
        return self.t("cleaned", removed=len(outcome.removed), remained=len(outcome.remained))


def mount_operators(app: FastAPI, site: Site) -> None:
    """Below /operators/<language>/. Gradio is imported here, and told to call nobody."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gradio

    @app.get(GRADIO_PATH)
    def operators(request: Request) -> Response:
        return RedirectResponse(f"{root_of(request)}{GRADIO_PATH}/{language_of(request)}/", 303)

    from heygemd.web.operators_page import CSS, build_page, theme

    root = site.settings.web.root_path
    for language in LANGUAGES:
        gradio.mount_gradio_app(
            app,
            build_page(Desk(site, language), f"{root}/", LEVELS, _TICK_SECONDS),
            path=f"{GRADIO_PATH}/{language}",
            root_path=f"{root}{GRADIO_PATH}/{language}",
            allowed_paths=[],
            blocked_paths=["/"],
            show_error=False,
            max_file_size=1,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=[],
            theme=theme(),
            css=CSS,
            js=f"() => {{ document.documentElement.lang = '{LANGUAGE_TAGS[language]}'; }}",
        )
