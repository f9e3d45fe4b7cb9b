"""The motion of a recording: the three views of it combined, and a person's own."""

from __future__ import annotations

import numpy as np

from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Floats, Tracks
from heygemd.engines.rewrite.driver.evidence import Evidence, standardised
from heygemd.engines.rewrite.driver.network import at_rate
from heygemd.engines.rewrite.driver.personal import PersonalDriver, regressor_blocks

_WIDTH_SPREAD = 0.40
# Shares of the three standardised views: phonetic, spectral balance, network. docs/driver.md says how they were chosen.
# What hears a recogniser's layers counts most.
_OPENING_SHARES = np.array([0.50, 0.75, 1.25], np.float32)
_WIDTH_SHARES = np.array([0.50, 0.75, 1.25], np.float32)
_OPENING_SHARES_SPECTRUM = np.array([1.0, 0.75, 0.50], np.float32)
_WIDTH_SHARES_SPECTRUM = np.array([1.0, 0.60, 0.50], np.float32)
# A closure that was only heard is believed from a probability of .3 on and whole from .7 on. The phonetic view's and
# the network's word are as good as each other where a recogniser listens; the spectrum shows the network fewer of them.
_CLOSURE_GAIN, _CLOSURE_DOUBT = 2.5, 0.3
_CLOSURE_SHARES, _CLOSURE_SHARES_SPECTRUM = (0.5, 0.5), (1.0, 0.3)
_MODEST_ROWS = 150  # three seconds of speech: below that the prediction's own spread is not measured


def general_rows(evidence: Evidence) -> Floats:
    """(rows, 2) at FEATURE_RATE: opening and width, each standardised over the speech."""
    spoken = evidence.active_rows()
    views = np.stack([standardised(view, spoken) for view in evidence.views()])
    heard = (
        (_OPENING_SHARES, _WIDTH_SHARES) if evidence.recognised else (_OPENING_SHARES_SPECTRUM, _WIDTH_SHARES_SPECTRUM)
    )
    shares = np.stack(heard, axis=1)
    return standardised(np.einsum("vrk,vk->rk", views, shares), spoken)


def motion_rows(evidence: Evidence, personal: PersonalDriver | None) -> Floats:
    """(rows, 2) standardised opening and width, a person's regression mixed in by its trust."""
    general = general_rows(evidence)
    if personal is None:
        return general
    weights = np.stack([personal.opening, personal.width], axis=1)
    own = np.concatenate([x @ weights for x in regressor_blocks(evidence, general)])
    own = standardised(own, evidence.active_rows())
    trust = np.array(personal.trust, np.float32)
    return standardised(trust * own + (1 - trust) * general, evidence.active_rows())


def tracks_of(evidence: Evidence, personal: PersonalDriver | None) -> Tracks:
    """Mouth tracks at TRACK_RATE; the opening is standardised, the width has its natural spread.

    Speech that is too short to show its own spread keeps more of the network's raw values.
    """
    rows = len(evidence.active)
    motion = at_rate(motion_rows(evidence, personal), rows, TRACK_RATE) if rows else np.zeros((0, 2), np.float32)
    heard, expected = evidence.heard, evidence.expected
    trust = min(1.0, float(evidence.active_rows().sum()) / _MODEST_ROWS)
    known, told = _CLOSURE_SHARES if evidence.recognised else _CLOSURE_SHARES_SPECTRUM
    sure = known * expected.closure + told * at_rate(heard.closure, rows, TRACK_RATE)
    teeth = (at_rate(heard.teeth, rows, TRACK_RATE) + expected.teeth) / 2
    return Tracks(
        opening=motion[:, 0],
        width=np.asarray(motion[:, 1] * _WIDTH_SPREAD * (0.5 + 0.5 * trust), np.float32),
        closure=np.clip(_CLOSURE_GAIN * (sure - _CLOSURE_DOUBT), 0, 1).astype(np.float32),
        teeth=np.clip(teeth, 0, 1).astype(np.float32),
        activity=evidence.active,
    )
