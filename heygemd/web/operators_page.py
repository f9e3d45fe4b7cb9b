"""The operators' page in Gradio's words. What it shows and does is heygemd.web.operators.Desk's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from heygemd.core.errors import HeygemdError

if TYPE_CHECKING:
    from heygemd.web.operators import Desk

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif")
_MONO = ("ui-monospace", "Cascadia Code", "Noto Sans Mono", "monospace")
_QUEUE = ("job", "state", "percent", "left", "position", "priority", "folder")
_FAILURES = ("when", "job", "what", "remedy", "code")
_FAILURES_WIDTHS = ("13%", "15%", "33%", "31%", "8%")


CSS = """
.dark { --color-accent: var(--primary-400); }
.gradio-container h2 { font-size: var(--text-lg) !important; }
:is(#devices, #queue, #failures, #retention) :is(th, .cell-wrap, .cell-wrap *) { font-family: var(--font) !important; }
:is(#devices, #queue, #failures, #retention) th * { overflow-wrap: normal !important; word-break: keep-all !important; }
#failures :is(.cell-wrap, .cell-wrap *) { white-space: pre-line !important; }
#back, #back * { padding: 0 !important; }
#pause { max-width: 26rem; margin-left: auto; }
@media (max-width: 760px) {
  #queue, #failures, #retention { overflow-x: auto; }
  :is(#queue, #retention) .table-container { min-width: 44rem; }
  #failures .table-container { min-width: 60rem; }
  #pause { max-width: none; }
}
"""
"""On a phone wide tables are moved sideways; their words would be broken letter by letter."""


def theme() -> Any:
    """Gradio's own without its web fonts: nothing is fetched from elsewhere. Darker where white or small words need it
    (WCAG: 4.5 to 1)."""
    soft = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", font=list(_FONTS), font_mono=list(_MONO))
    return soft.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        block_label_background_fill_dark="*primary_700",
        block_title_background_fill_dark="*primary_700",
        link_text_color="*primary_700",
        link_text_color_hover="*primary_800",
        link_text_color_visited="*primary_700",
        link_text_color_dark="*primary_400",
        link_text_color_hover_dark="*primary_300",
        link_text_color_visited_dark="*primary_400",
        color_accent="*primary_700",
    )


def build_page(desk: Desk, home: str, levels: Sequence[str], tick_seconds: float) -> gr.Blocks:
    t = desk.t
    with gr.Blocks(title=t("title"), analytics_enabled=False, fill_width=True) as page:
        with gr.Row(equal_height=True):
            with gr.Column():
                gr.Markdown(f"# {t('title')}")
                # A link of Markdown's would open another tab.
                gr.HTML(f'<a href="{escape(home)}">{escape(t("back"))}</a>', elem_id="back")
            with gr.Row(elem_id="pause"):
                pause = gr.Button(t("pause"), variant="secondary")
                resume = gr.Button(t("resume"), variant="primary")
        headline = gr.Markdown("", elem_id="headline")
        said = gr.Markdown("", elem_id="said")
        with gr.Tab(t("tab_now")):
            gr.Markdown(f"## {t('devices')}")
            devices = _table([t("device"), t("memory"), t("works_on")], "devices")
            gr.Markdown(f"## {t('queue')}")
            queue = _table([t(column) for column in _QUEUE], "queue")
            with gr.Row():
                job = _job_field(queue, 0, t)
                cancel = gr.Button(t("cancel"), variant="stop")
        with gr.Tab(t("tab_failures")):
            failures = _table([t(column) for column in _FAILURES], "failures", _FAILURES_WIDTHS)
            with gr.Row():
                failed = _job_field(failures, _FAILURES.index("job"), t)
                retry = gr.Button(t("retry"))
        with gr.Tab(t("tab_log")):
            with gr.Row():
                only = gr.Textbox(label=t("log_job"), placeholder=t("log_job_hint"), max_lines=1)
                level = gr.Dropdown(list(levels), value="info", label=t("log_level"))
            log = gr.Textbox(
                label=t("log_newest"), lines=20, max_lines=20, autoscroll=False, interactive=False, elem_id="log"
            )
        with gr.Tab(t("tab_retention")) as retention_tab:
            plan = gr.Dataframe(
                headers=[t("folder"), t("size"), t("why")], interactive=False, wrap=True, elem_id="retention"
            )
            sure = gr.Checkbox(label=t("clean_sure"), value=False)
            clean = gr.Button(t("clean"), variant="stop", interactive=False)

        def now(job_filter: str | None, least: str | None) -> tuple[Any, ...]:
            job_filter, least = job_filter or "", least or "info"  # None until their tab was opened
            try:
                return desk.headline(), desk.devices(), desk.queue(), desk.failures(), desk.log(job_filter, least)
            except HeygemdError as error:  # the share is away: say so, and try again with the next tick
                return f"**{desk.words(error)}**", [], [], [], desk.log(job_filter, least)

        shown = [headline, devices, queue, failures, log]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        timer = gr.Timer(tick_seconds)
        gr.on(
            [timer.tick, only.change, level.change, page.load], now, [only, level], shown, **quiet, trigger_mode="once"
        )
        pause.click(lambda: desk.ask("pause"), None, said, **quiet)
        resume.click(lambda: desk.ask("resume"), None, said, **quiet)
        retry.click(lambda name: desk.ask("retry", name) if name else t("job_hint"), failed, said, **quiet)
        cancel.click(lambda name: desk.ask("cancel", name) if name else t("job_hint"), job, said, **quiet)
        retention_tab.select(lambda: desk.retention()[0], None, plan, **quiet)
        sure.change(lambda yes: gr.Button(interactive=yes), sure, clean, **quiet)
        done = clean.click(desk.clean, None, said, **quiet)
        done.then(lambda: (desk.retention()[0], False), None, [plan, sure], **quiet)
    assert isinstance(page, gr.Blocks)  # noqa: S101 - `with` loses the type
    return page


def _job_field(table: gr.Dataframe, column: int, t: Callable[[str], str]) -> gr.Textbox:
    """Takes a job's name; a click on a row of `table` writes it."""
    field = gr.Textbox(label=t("job"), placeholder=t("job_hint"), max_lines=1, scale=3)

    def picked(event: gr.SelectData) -> str:
        return str(event.row_value[column])

    table.select(picked, None, field, show_progress="hidden", api_visibility="private")
    return field


def _table(headers: list[str], name: str, widths: Sequence[str] = ()) -> gr.Dataframe:
    return gr.Dataframe(
        headers=headers,
        column_widths=list(widths) or None,
        interactive=False,
        wrap=True,
        elem_id=name,
        show_search="none",
        buttons=[],
    )
