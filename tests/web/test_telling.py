"""Every error that can reach the page is told in the reader's language, with the numbers and names of the case."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import heygemd
from heygemd.core.errors import BadInputError, CannotFitError, HeygemdError, LimitError, NoFaceError
from heygemd.web.telling import all_in_words, in_words, told
from heygemd.web.texts import LANGUAGES, texts
from tests.web.conftest import AUDIO_LOOK, Daemon, Web, bring, jobs, order, show

_TREES = [ast.parse(path.read_text()) for path in sorted(Path(heygemd.__file__).parent.rglob("*.py"))]
_LONGEST_ON_A_PHONE = 45
"""Chinese characters: three lines of 390 px."""


@dataclass(frozen=True)
class Case:
    """One place in the code that raises an error with a case: what its sentence can be filled with."""

    code: str
    name: str
    values: frozenset[str]


def _codes() -> dict[str, str]:
    """Class → code, of all that are written anywhere in the package."""
    found = {"HeygemdError": HeygemdError.code}
    classes = [node for tree in _TREES for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    own = {
        node.name: line.value.value
        for node in classes
        for line in node.body
        if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(line.value, ast.Constant)
        if "code" in {getattr(target, "id", "") for target in getattr(line, "targets", [getattr(line, "target", None)])}
        if str(line.value.value).startswith("HG-")
    }
    while True:
        new = {
            node.name: own.get(node.name, found[base.id])
            for node in classes
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in found and node.name not in found
        }
        if not new:
            return found
        found |= new


CODES = _codes()


def _cases() -> Iterator[Case]:
    for tree in _TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODES:
                keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
                values = frozenset(keywords) | ({"file"} if "path" in keywords else frozenset()) | {"video"}
                for part in ast.walk(keywords["case"]) if "case" in keywords else ():
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and _is_result(part, keywords):
                        yield Case(CODES[node.func.id], part.value, values)


def _is_result(part: ast.Constant, keywords: dict[str, ast.expr]) -> bool:
    """Not what a condition within the expression compares with."""
    tests = [test for node in ast.walk(keywords["case"]) if isinstance(node, ast.IfExp) for test in ast.walk(node.test)]
    return part not in tests


CASES = list(_cases())


def test_the_code_was_read() -> None:
    assert len(set(CODES.values())) >= 32
    assert {("HG-1007", "too_long"), ("HG-3001", "hung"), ("HG-2005", "memory")} <= {(c.code, c.name) for c in CASES}
    assert ("HG-3001", "hung") in {(c.code, c.name) for c in CASES if "stderr" in c.values}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", sorted(set(CODES.values())))
def test_every_code_has_words(code: str, language: str) -> None:
    """A new error class fails here until texts/*.json says what it is and what to do."""
    words = texts(language)
    for key in (f"error.{code}", f"todo.{code}"):
        assert key in words, f"texts/{language}.json lacks {key}"
        assert not re.findall(r"\{\w+\}", words[key]), "what is said when nothing more is known"


def test_every_case_has_words_and_its_values() -> None:
    for case in CASES:
        for language in LANGUAGES:
            key = f"error.{case.code}.{case.name}"
            assert key in texts(language), f"texts/{language}.json lacks {key}"
            wanted = set(re.findall(r"\{(\w+)\}", texts(language)[key]))
            assert wanted <= case.values, f"{key} says {wanted - case.values}, which its error does not tell"


def test_every_sentence_has_its_case() -> None:
    known = {f"{case.code}.{case.name}" for case in CASES}
    known |= {f"{code}{more}" for code in CODES.values() for more in ("", ".file", ".video")}
    for key in texts("zh"):
        family, code, rest = key.partition("HG-")
        if family in ("error.", "todo.", "operators.todo."):
            assert code + rest in known, f"nobody raises {key}"


def test_the_chinese_is_chinese_and_fits_a_phone() -> None:
    for key, text in texts("zh").items():
        if key.startswith(("error.HG", "todo.HG")):
            assert re.search(r"[\u4e00-\u9fff]{2}", text), key
            assert text.endswith("。"), f"{key}: {text}"
            assert len(re.sub(r"\{\w+\}", "123456", text)) <= _LONGEST_ON_A_PHONE, f"{key}: {text}"
            assert not re.search(r"[\u4e00-\u9fff][A-Za-z0-9{]|[A-Za-z0-9}][\u4e00-\u9fff]", text), f"{key}: {text}"


def _told(error: HeygemdError, **values: str | None) -> dict[str, str]:
    return told("zh", error.to_dict(), values)


def test_numbers_and_names() -> None:
    error = LimitError("x", path="/a/b.mp4", case="too_long", seconds=5400.4, limit_seconds=1800)
    found = _told(error, file="讲课.mp4")
    assert found["message"] == "“讲课.mp4”时长 1 小时 30 分，最长允许 30 分钟。"
    assert found["remedy"] == texts("zh")["todo.HG-1007"]
    assert found["details"] == "HG-1007 · x"
    assert told("en", error.to_dict(), {"file": "a.mp4"})["message"].startswith(
        "a.mp4 lasts 1 h 30 min; at most 30 min"
    )
    memory = CannotFitError("x", case="memory", needed_bytes=5_400_000_000, offered_bytes=2_100_000_000)
    assert _told(memory)["message"] == "至少需要 5.4 GB 内存，服务器最多能提供 2.1 GB。"


def test_what_is_not_known_is_not_said() -> None:
    """An error of an older daemon has no case; one of the share's own files has no name that the user knows."""
    assert _told(LimitError("x", case="too_long", seconds=9))["message"] == texts("zh")["error.HG-1007"]
    assert _told(NoFaceError("x"), video=None)["message"] == texts("zh")["error.HG-1006"]
    assert _told(NoFaceError("x"), video="a.jpg")["message"] == "“a.jpg”中没有找到人脸。"
    assert told("zh", {"code": "HG-9999", "message": "new"}, {})["message"] == texts("zh")["error.HG-0000"]
    assert told("zh", {}, {})["remedy"] == texts("zh")["todo.HG-0000"]
    odd: Any = {"code": "HG-1007", "details": {"case": ["too_long"], "seconds": None, "x": {"y": 1}}}
    assert told("zh", odd, {})["message"] == texts("zh")["error.HG-1007"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seconds", 0.0341, "0.034 秒"),
        ("limit_seconds", 60.0, "1 分钟"),
        ("seconds", 59.7, "1 分钟"),
        ("seconds", 185, "3 分 5 秒"),
        ("waited_seconds", 86400, "24 小时"),
        ("limit_bytes", 20_000_000_000, "20 GB"),
        ("size_bytes", 999_950, "1 MB"),
        ("free_bytes", 12, "12 B"),
        ("limit", 10000, "10,000"),
        ("state", "done", "已完成"),
        ("state", "elsewhere", "elsewhere"),
        ("name", "x" * 300, "x" * 200),
        ("name", "", None),
        ("flag", True, None),
        ("stderr", ["line"], None),
    ],
)
def test_values_in_words(name: str, value: object, words: str | None) -> None:
    assert in_words("zh", name, value) == words


def test_refusals_have_units() -> None:
    assert all_in_words("en", {"limit_bytes": 2e9, "name": "a.mp4"}) == {"limit_bytes": "2 GB", "name": "a.mp4"}


# ---- through the page ----


def test_a_failed_job_in_chinese(web: Web) -> None:
    client = web.guest()
    client.cookies.set("heygemd_language", "zh")
    order(client)
    error = LimitError(
        "greeting.video.mp4: 7200 s are more than the limit of 3600 s",
        path=f"{web.site.layout.state}/work/1/inputs/greeting.video.mp4",
        case="too_long",
        seconds=7200.0,
        limit_seconds=3600.0,
        traceback=f"{web.site.layout.state}/x",
    )
    show(web.site.layout, "greeting", "failed", error=error.to_dict())
    (job,) = jobs(client)
    assert job["error"] == {
        "code": "HG-1007",
        "message": "“lecture.mp4”时长 2 小时，最长允许 1 小时。",
        "remedy": "请缩短或缩小后重试，或请管理员放宽限制。",
        "details": "HG-1007 · lecture.mp4: 7200 s are more than the limit of 3600 s",
    }
    client.cookies.set("heygemd_language", "en")
    assert jobs(client)[0]["error"]["message"] == "lecture.mp4 lasts 2 h; at most 1 h are allowed."


def test_a_file_that_cannot_be_used_in_chinese(web: Web) -> None:
    client = web.guest()
    client.cookies.set("heygemd_language", "zh")
    error = BadInputError("media.txt is not", path="media.txt", case="not_utf8").to_dict()
    upload = bring(client, "稿子.txt", b"a", AUDIO_LOOK | {"ok": False, "error": error})
    look = client.get(f"/api/uploads/{upload}/info").json()["look"]
    assert look["error"]["message"] == "“稿子.txt”不是 UTF-8 编码的文本。"
    assert look["error"]["remedy"] == "请另存为 UTF-8 编码，再重新上传。"
    assert "media.txt" not in str(look)


def test_what_the_daemon_refuses_in_chinese(web: Web) -> None:
    client = web.guest()
    client.cookies.set("heygemd_language", "zh")
    order(client)
    show(web.site.layout, "greeting", "done")
    error = BadInputError("greeting is done already", case="over", state="done").to_dict()
    with Daemon(web.site.layout.control, ok=False, error=error):
        answer = client.post("/api/jobs/greeting/cancel").json()["error"]
    assert (answer["message"], answer["remedy"]) == ("任务已经结束（已完成）。", "无需取消。")
