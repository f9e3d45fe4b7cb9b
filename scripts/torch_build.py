"""Which build of torch is this? Asked by install.sh, before torch is there: standard library only.

torch_build.py installed torch==2.13.0      prints cpu, cuda or none: what this environment has
torch_build.py without-cuda REPORT          prints the URL of pip's choice; exit 1 if that one carries CUDA
torch_build.py answers URL                  exit 0 if the index answers within a few seconds
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCELERATOR_PACKAGE = re.compile(r"(nvidia-|cuda-|triton|pytorch-triton|intel-)", re.IGNORECASE)
ACCELERATOR_VERSION = re.compile(r"\+(cu|rocm|xpu)", re.IGNORECASE)
ANSWER_SECONDS = 4.0


def carries_accelerator(version: str, requirements: list[str]) -> bool:
    """A CPU build asks for no accelerator libraries; a build that bundles them says so in its local version."""
    return bool(ACCELERATOR_VERSION.search(version)) or any(
        ACCELERATOR_PACKAGE.match(requirement) for requirement in requirements if "extra ==" not in requirement
    )


def installed(pinned: str) -> str:
    """Print cpu, cuda or none (also for another version than the pinned one)."""
    try:
        found = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return "none"
    if found.version.partition("+")[0] != pinned.partition("==")[2]:
        return "none"
    return "cuda" if carries_accelerator(found.version, found.requires or []) else "cpu"


def without_cuda(report: Path) -> str | None:
    """The URL of torch in pip's installation report, None if it carries an accelerator's libraries."""
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        metadata = item["metadata"]
        if metadata["name"].lower() == "torch":
            if carries_accelerator(metadata["version"], metadata.get("requires_dist", [])):
                return None
            return str(item["download_info"]["url"])
    return None


def answers(url: str) -> bool:
    """Whether the index can be used from here: proxies from the environment, certificates as pip was told."""
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    proxy = os.environ.get("PIP_PROXY")
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if proxy:
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=ANSWER_SECONDS) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def main(arguments: list[str]) -> int:
    match arguments:
        case ["installed", pinned]:
            sys.stdout.write(f"{installed(pinned)}\n")
        case ["without-cuda", report]:
            url = without_cuda(Path(report))
            if url is None:
                return 1
            sys.stdout.write(f"{url}\n")
        case ["answers", url]:
            return 0 if answers(url) else 1
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
