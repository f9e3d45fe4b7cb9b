"""Every place that changes something durable stands beside a failpoint: a new one without fails here.

Read from the code: in the rooms that move jobs along, each function that renames, publishes, moves, removes or commits
must pass a failpoint itself, or be listed below with the failpoint that stands in for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import heygemd
from heygemd.core.job import JobState
from heygemd.failpoints import NAMES

ROOT = Path(heygemd.__file__).parent
ROOMS = ("spool", "service", "work")
EFFECTS = {
    "publish_file", "write_json", "write_atomic", "rename_noreplace", "copy_hashed", "move_file", "remove_tree",
    "save_npz", "save_arrays", "save_prepared", "save_plan", "save_segment_stats", "own_folder", "_transaction",
}  # fmt: skip
"""Calls that leave something behind which a crash may cut off."""

COVERED = {
    # function: the failpoints around its callers, or why it needs none
    "spool/beneath.py:move_file": "archive.move, reject.move, restore.move",
    "spool/places.py:own_folder": "outbox.folder, archive.folder, reject.folder",
    "spool/staging.py:_copy": "stage.copy",
    "spool/staging.py:unstage": "work.remove",
    "spool/staging.py:sweep_work": "removes what nothing refers to; repeated at every start",
    "spool/layout.py:ensure": "the first start; repeated at every start",
    "service/standby.py:_identity": "a new state folder's own name; made once, before there are jobs",
    "spool/control.py:send": "the command line's own request; not a transition of a job",
    "spool/control.py:answer": "requests are idempotent and stay until they are answered",
    "spool/farewell.py:_move_one": "archive.move, reject.move",
    "work/item.py:save_arrays": "prepare.analysis, prepare.motion",
    "work/item.py:save_frames": "prepare.frames",
    "work/item.py:save_npz": "prepare.analysis, prepare.motion",
    "work/item.py:save_prepared": "prepare.record",
    "work/item.py:save_plan": "plan.save",
    "work/item.py:save_segment_stats": "render.stats",
    # the journal: transactions that move no job along, or whose loss only repeats something
    "spool/journal.py:remove": "journal.release: forgetting a dropped job; seen again by the next scan",
    "spool/journal.py:forget": "old jobs that ended; repeated by the next clean-up",
    "spool/journal.py:clear_segments": "journal.updated: a retried job's old plan; made anew when it differs",
    "spool/journal.py:set_setting": "the pause of the command line; its request stays until it is answered",
    "spool/journal.py:_one_segment": "journal.segment, through its argument",
}
ELSEWHERE = {
    "work/checkpoints.py",
    "work/download.py",
    "work/calibrate.py",
    "service/foreground.py",
    "service/telemetry.py",
    "spool/submission.py",
}
"""Checkpoints, calibration, figures, `heygemd run` and `submit`: no transition of a job of the spool."""


def functions(path: Path) -> Iterator[tuple[str, set[str], set[str]]]:
    """(name, effects called, failpoints passed) of each function, nested ones counted with the outer."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef):
            continue
        effects, points = set(), set()
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            points.update(text for text in texts if text in NAMES)
            if name in EFFECTS and name != node.name:
                effects.add(name)
        yield node.name, effects, points


def test_every_transition_has_a_failpoint() -> None:
    bare, listed = [], set()
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            file = str(path.relative_to(ROOT))
            if file in ELSEWHERE:
                continue
            for name, effects, points in functions(path):
                where = f"{file}:{name}"
                if effects and not points:
                    if where in COVERED:
                        listed.add(where)
                    else:
                        bare.append(f"{where} calls {', '.join(sorted(effects))} and passes no failpoint")
    assert not bare, "\n".join(bare)
    stale = COVERED.keys() - listed
    assert not stale, f"listed, but no longer so: {stale}"


def test_what_is_covered_names_failpoints_that_exist() -> None:
    for where, text in COVERED.items():
        for word in text.replace(":", ",").split(","):
            if "." in word.strip() and " " not in word.strip():
                assert word.strip() in NAMES, (where, word)


def test_every_state_of_a_job_is_reached_through_the_journals_failpoints() -> None:
    """States change nowhere but in the journal: `update`, `finish` and `add` stand between two failpoints."""
    assert {state.value for state in JobState} == {
        "queued", "staging", "preparing", "rendering", "finishing", "publishing", "done", "failed", "cancelled",
    }, "a new state: see that the kill matrix reaches it"  # fmt: skip
    found = {name: points for name, _, points in functions(ROOT / "spool/journal.py")}
    assert found["add_all"] == {"journal.add", "journal.added"}
    assert found["update"] == {"journal.update", "journal.updated"}
    assert found["finish"] == {"journal.release", "journal.updated"}
