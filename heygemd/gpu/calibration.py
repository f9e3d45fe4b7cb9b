"""What measured peaks have taught, kept on disk. Thrown away when the machine or the software is another one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from heygemd.core.fit import Fit
from heygemd.core.memory import Calibration, Correction, Load
from heygemd.core.speed import SpeedKey, Speeds
from heygemd.files import write_json

_FORMAT = 2
_SAVE_SECONDS = 10.0
_TELL_SHARE = 0.02


def fingerprint(device_names: Sequence[str]) -> dict[str, str]:
    """What measurements depend on beside their own key. `device_names`: model and driver of each GPU."""
    found = {"devices": "; ".join(sorted(set(device_names))) or "cpu"}
    for package in ("heygemd", "torch", "numpy", "opencv-python"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


class CalibrationStore:
    """The calibration in force, and how fast things went. `path` None: only in memory. Not thread-safe."""

    def __init__(
        self,
        path: Path | None,
        identity: Mapping[str, str],
        *,
        readonly: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = self._path = path
        self._identity = dict(identity)
        self._readonly = readonly or path is None
        self._clock = clock
        self._saved_seconds = clock()
        self._changed = False
        self.dropped_reason: str | None = None  # why a file that was there is not used
        self.calibration, self.speeds = self._load()

    def learn(self, load: Load, formula_bytes: int, measured_bytes: int) -> tuple[Correction, bool]:
        """Take in one measured peak. The new correction, and whether it differs enough to tell people."""
        before, _ = self.calibration.find(load)
        self.calibration = self.calibration.learn(load, formula_bytes, measured_bytes)
        after = self.calibration.corrections[load.key]
        self._save_later()
        return after, before.count == 0 or abs(after.ratio - before.ratio) > _TELL_SHARE * before.ratio

    def raise_after_oom(self, load: Load, formula_bytes: int, reserved_bytes: int) -> Correction:
        """A run with this reservation did not fit."""
        self.calibration = self.calibration.raise_after_oom(load, formula_bytes, reserved_bytes)
        self._save_later()
        return self.calibration.corrections[load.key]

    def fitted(self, family: str, model: str, fit: Fit) -> None:
        """Take in one calibration pass, and write it at once: it was dear."""
        self.calibration = self.calibration.fitted(family, model, fit)
        self._save()

    def timed(self, key: SpeedKey, seconds: float, frames: int) -> None:
        """Take in how long something took. The first of its kind is written at once: until then estimates elsewhere
        (`heygemd plan`, the web page) guess, and there may be nothing to write for hours."""
        first = not self._measured(key)
        self.speeds = self.speeds.timed(key, seconds, frames)
        self._save_later()
        if first and self._changed and self._measured(key):
            self._save()

    def _measured(self, key: SpeedKey) -> bool:
        known = self.speeds.seconds_a_frame(key)
        return known is not None and known[1] > 0

    def close(self) -> None:
        if self._changed:
            self._save()

    def _save_later(self) -> None:
        self._changed = True
        if self._clock() - self._saved_seconds >= _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._changed = False
        self._saved_seconds = self._clock()
        if not self._readonly and self._path is not None:
            data = {"format": _FORMAT, "fingerprint": self._identity, "speeds": self.speeds.to_dict()}
            write_json(self._path, data | self.calibration.to_dict(), durable=False)

    def _load(self) -> tuple[Calibration, Speeds]:
        nothing = Calibration(), Speeds()
        if self._path is None:
            return nothing
        try:
            data = json.loads(self._path.read_text())
            if data["format"] != _FORMAT or data["fingerprint"] != self._identity:
                self.dropped_reason = "it was measured with other devices or another version"
                return nothing
            return Calibration.from_dict(data), Speeds.from_dict(data["speeds"])
        except FileNotFoundError:
            return nothing
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.dropped_reason = f"it cannot be read: {error}"
            return nothing
