"""Tells a webhook that a job has ended. Users of the share choose the address, so the operator names the hosts."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from heygemd.core.job import Job
from heygemd.service.views import final

_TIMEOUT_SECONDS = 10.0
_TRIES = 3


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An allowed host must not send us on to one that is not."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class Notifier:
    """POSTs the job's last status as JSON, from a thread of its own; tries three times, then logs and forgets."""

    def __init__(
        self, hosts: Collection[str], log: Callable[..., None], *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.hosts = hosts
        self._log = log
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="notify")

    def tell(self, job: Job) -> None:
        """Do nothing for a job that names no webhook."""
        url = job.options.notify
        if url is None:
            return
        shown = url.partition("?")[0]
        reason = self._refused(url)
        if reason is not None:
            self._log("job.notify_failed", **job.log_context(), reason=reason, url=shown)
            return
        self._pool.submit(self._post, job, url, shown)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refused(self, url: str) -> str | None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return "the address is no URL"
        if parts.scheme not in ("http", "https"):
            return "only http and https are called"
        if host not in self.hosts and f"{host}:{port}" not in self.hosts:
            return f"service.notify_hosts does not name {host!r}"
        return None

    def _post(self, job: Job, url: str, shown: str) -> None:
        body = json.dumps(final(job), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "heygemd"}
        started = time.monotonic()
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(2.0**attempt)
            request = urllib.request.Request(url, body, headers)  # noqa: S310 - the scheme was checked above
            try:
                with self._opener.open(request, timeout=_TIMEOUT_SECONDS):
                    seconds = round(time.monotonic() - started, 3)
                    self._log("job.notified", **job.log_context(), url=shown, duration_seconds=seconds)
                    return
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason = str(error)
        self._log("job.notify_failed", **job.log_context(), reason=reason, url=shown)
