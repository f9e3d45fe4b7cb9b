"""What a person's own speech teaches about their mouth: a small regression on top of the driver's evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.heartbeat import beat
from heygemd.engines.rewrite.driver.articulate import Floats
from heygemd.engines.rewrite.driver.evidence import Evidence, moments
from heygemd.engines.rewrite.driver.features import FEATURE_RATE
from heygemd.engines.rewrite.driver.motion import LEAD_SECONDS

MIN_SPEECH_SECONDS = 2.0
_BLOCK_ROWS = 8192

_LAMBDA = 0.1
_TREND_SECONDS = 1.0
_HALF_TRUST_SECONDS = (3.0, 40.0)  # opening, width: the width is measured less well, and generally heard better
_MOST_OFFSET_SECONDS = 0.24
_OFFSET_STEP_SECONDS = 0.02
# How strongly an offset needs to be shown: a lag of 0.1 s must raise the sum of both correlations by this much.
_OFFSET_PRIOR = 0.08


@dataclass(frozen=True)
class PersonalDriver:
    """Regression weights for one person.

    `opening`, `width`: (features,) · `trust`: 0…1, its share against the general driver, for opening and width ·
    `offset_seconds`: how much later than its sound the clip's picture is (the sound early: positive) · `agreement`: at
    that offset, the general motion's correlations with the measured opening and width, their sum ·
    `opening_range`: 10th and 90th percentile of the measured opening, closed at 0, the 95th percentile at 0.8.
    `recognised`: learned on the network that hears a recogniser's layers; it says nothing of the other.
    """

    opening: Floats
    width: Floats
    trust: tuple[float, float]
    offset_seconds: float
    opening_range: tuple[float, float]
    speech_seconds: float
    opening_r: float
    width_r: float
    agreement: float
    recognised: bool

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For .npz without pickle."""
        numbers = [*self.trust, self.offset_seconds, self.speech_seconds, self.opening_r, self.width_r]
        numbers += [self.agreement, *self.opening_range, self.recognised]
        return {
            "personal_opening": self.opening,
            "personal_width": self.width,
            "personal_numbers": np.array(numbers, np.float64),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> PersonalDriver | None:
        """None where the arrays hold no personal driver."""
        if "personal_numbers" not in arrays:
            return None
        numbers = [float(v) for v in arrays["personal_numbers"]]
        trust, width_trust, offset, seconds, opening_r, width_r, agreement, low, high, recognised = numbers
        return PersonalDriver(
            np.asarray(arrays["personal_opening"], np.float32),
            np.asarray(arrays["personal_width"], np.float32),
            (trust, width_trust),
            offset,
            (low, high),
            seconds,
            opening_r,
            width_r,
            agreement,
            bool(recognised),
        )


def regressors(evidence: Evidence, general: Floats) -> Floats:
    """(rows, features) at FEATURE_RATE: the network's hidden layer, standardised over the speech, and `general`.

    Each of the two groups has equal weight.
    """
    return np.concatenate(list(regressor_blocks(evidence, general)))


def regressor_blocks(evidence: Evidence, general: Floats) -> Iterator[Floats]:
    """The rows of `regressors`, some minutes at a time: of hours they would take half a gigabyte. At least one block,
    empty where there is no speech."""
    hidden = evidence.heard.hidden
    mean, deviation = moments(hidden, evidence.active_rows())
    for start in range(0, max(1, len(hidden)), _BLOCK_ROWS):
        beat()
        block = slice(start, start + _BLOCK_ROWS)
        ours = (hidden[block] - mean) / deviation / np.sqrt(hidden.shape[1])
        both = np.concatenate([ours, general[block] / np.sqrt(general.shape[1])], axis=1)
        yield np.asarray(np.clip(both, -3, 3), np.float32)


def at_frames(rows: Floats, num_frames: int, fps: Fraction, shift_seconds: float) -> Floats:
    """Rows at FEATURE_RATE at the time of every frame plus `shift_seconds`, interpolated; the ends are held."""
    where = (np.arange(num_frames) * (fps.denominator / fps.numerator) + shift_seconds) * FEATURE_RATE - 0.25
    where = np.clip(where, 0, len(rows) - 1)
    low = np.floor(where).astype(int)
    high = np.minimum(low + 1, len(rows) - 1)
    part = (where - low).astype(np.float32).reshape((-1,) + (1,) * (rows.ndim - 1))
    return np.asarray(rows[low] * (1 - part) + rows[high] * part, np.float32)


def detrended(values: Floats, fps: Fraction, spoken: NDArray[np.bool_]) -> Floats:
    """Without what is slower than about a second (a smile, a turn of the head), unmeasured frames at 0."""
    known = np.isfinite(values) & spoken
    kept = np.where(known, values, 0.0).astype(np.float64)
    half = max(1, round(3 * _TREND_SECONDS * float(fps)))
    bell = np.exp(-0.5 * (np.arange(-half, half + 1) / (_TREND_SECONDS * float(fps))) ** 2)
    weight = np.convolve(known.astype(np.float64), bell, mode="full")[half : half + len(values)]
    trend = np.convolve(kept, bell, mode="full")[half : half + len(values)] / np.maximum(weight, 1e-6)
    return np.asarray(np.where(known, values - trend, 0.0), np.float32)


def correlation(a: Floats, b: Floats, where: NDArray[np.bool_]) -> float:
    if where.sum() < 10 or a[where].std() < 1e-6 or b[where].std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a[where], b[where])[0, 1])


def fit(
    evidence: Evidence, general: Floats, opening: NDArray[Any], width: NDArray[Any], fps: Fraction
) -> PersonalDriver | None:
    """Learn from a clip's own sound (`evidence`, `general` (rows, 2): general opening and width) and measured mouth.

    `opening`, `width`: (frames,) in any unit, NaN where unmeasured. None where under 2 s of speech were measured.
    """
    frames = min(len(opening), len(width))
    opening, width = np.asarray(opening[:frames], np.float32), np.asarray(width[:frames], np.float32)
    rows = len(evidence.heard.opening)
    if not frames or not rows:
        return None
    inside = np.arange(frames) * float(1 / fps) < rows / FEATURE_RATE
    known = np.isfinite(opening) & np.isfinite(width)
    spoken = known & inside & (at_frames(evidence.active[::2], frames, fps, 0) > 0.5)
    seconds = float(spoken.sum() / fps)
    if seconds < MIN_SPEECH_SECONDS:
        return None
    targets = [detrended(track, fps, spoken) for track in (opening, width)]
    offset = _offset(general, targets, spoken, fps)
    x = at_frames(regressors(evidence, general), frames, fps, LEAD_SECONDS - offset)
    base = at_frames(general, frames, fps, LEAD_SECONDS - offset)
    weights = [_ridge(x[spoken], y[spoken]) for y in targets]
    checked = [_held_out(x, y, base[:, k], spoken) for k, y in enumerate(targets)]
    return PersonalDriver(
        opening=weights[0],
        width=weights[1],
        trust=(seconds / (seconds + _HALF_TRUST_SECONDS[0]), seconds / (seconds + _HALF_TRUST_SECONDS[1])),
        offset_seconds=offset,
        opening_range=_range(opening[spoken]),
        speech_seconds=seconds,
        opening_r=checked[0],
        width_r=checked[1],
        agreement=sum(correlation(base[:, k], y, spoken) for k, y in enumerate(targets)),
        recognised=evidence.recognised,
    )


def _offset(general: Floats, targets: list[Floats], spoken: NDArray[np.bool_], fps: Fraction) -> float:
    """How late the picture is, in seconds, by the general driver; 0 unless the clip shows otherwise."""
    count = round(_MOST_OFFSET_SECONDS / _OFFSET_STEP_SECONDS)
    best, found = -np.inf, 0.0
    for step in sorted(range(-count, count + 1), key=abs):
        offset = step * _OFFSET_STEP_SECONDS
        moved = at_frames(general, len(spoken), fps, LEAD_SECONDS - offset)
        score = (
            sum(correlation(moved[:, k], targets[k], spoken) for k in range(2)) - _OFFSET_PRIOR * (offset / 0.1) ** 2
        )
        if score > best + 1e-9:
            best, found = score, offset
    return found


def _ridge(x: Floats, y: Floats) -> Floats:
    """Weights for the standardised target."""
    target = (y - y.mean()) / max(float(y.std()), 1e-6)
    centred = (x - x.mean(axis=0)).astype(np.float64)
    gram = centred.T @ centred + _LAMBDA * len(x) * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, centred.T @ target), np.float32)


def _held_out(x: Floats, y: Floats, base: Floats, spoken: NDArray[np.bool_]) -> float:
    """Correlation on each half of what was learned from the other, the mean of both: what the receipt quotes."""
    places = np.flatnonzero(spoken)
    halves = (places[: len(places) // 2], places[len(places) // 2 :])
    scores = []
    for learn, test in (halves, halves[::-1]):
        if len(learn) < 20 or len(test) < 20:
            return correlation(base, y, spoken)
        got = np.zeros(len(y), np.float32)
        got[test] = (x[test] @ _ridge(x[learn], y[learn])).astype(np.float32)
        chosen = np.zeros(len(y), bool)
        chosen[test] = True
        scores.append(correlation(got, y, chosen))
    return float(np.mean(scores))


def _range(opening: Floats) -> tuple[float, float]:
    """10th and 90th percentile of the measured opening with its closed mouth at 0 and its 95th percentile at 0.8.

    Kept near what most speakers do: a few seconds of mumbling or of laughter are not the person's range.
    """
    closed, low, high, top = (float(v) for v in np.percentile(opening, [2, 10, 90, 95]))
    unit = 0.8 / max(top - closed, 1e-6)
    return (min(max((low - closed) * unit, 0.0), 0.25), min(max((high - closed) * unit, 0.5), 0.75))
