"""The motion of a recording: evidence of the network and of the phone recogniser, combined, and a person's own."""

from __future__ import annotations

import numpy as np

from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Floats, Tracks
from heygemd.engines.rewrite.driver.evidence import Evidence, standardised
from heygemd.engines.rewrite.driver.network import at_rate
from heygemd.engines.rewrite.driver.personal import PersonalDriver, regressors

_WIDTH_SPREAD = 0.40
_SPREAD_OPENS = 0.25  # a mouth that spreads also parts a little, one that rounds closes: seen on four speakers of five
# A closure that was only heard is believed when the network is fairly sure; the recogniser's word counts less, since it
# knows English only.
_CLOSURE_GAIN, _TABLE_SHARE, _CLOSURE_DOUBT = 1.5, 0.25, 0.5
_MODEST_ROWS = 150  # three seconds of speech: below that the prediction's own spread is not measured


def general_rows(evidence: Evidence) -> Floats:
    """(rows, 2) at FEATURE_RATE: opening and width, each standardised over the speech; both sources count alike."""
    _, own = evidence.features()
    scaled = standardised(own, evidence.active_rows())
    both = scaled[:, 0:2] + scaled[:, 4:6]
    both[:, 0] += _SPREAD_OPENS * both[:, 1]
    return standardised(both, evidence.active_rows())


def motion_rows(evidence: Evidence, personal: PersonalDriver | None) -> Floats:
    """(rows, 2) standardised opening and width, a person's regression mixed in by its trust."""
    general = general_rows(evidence)
    if personal is None:
        return general
    x = regressors(evidence)
    own = np.stack([x @ personal.opening, x @ personal.width], axis=1)
    own = standardised(own, evidence.active_rows())
    trust = np.array(personal.trust, np.float32)
    return standardised(trust * own + (1 - trust) * general, evidence.active_rows())


def tracks_of(evidence: Evidence, personal: PersonalDriver | None) -> Tracks:
    """Mouth tracks at TRACK_RATE; the opening is standardised, the width has its natural spread.

    Speech that is too short to show its own spread keeps more of the network's raw values.
    """
    rows = len(evidence.active)
    motion = at_rate(motion_rows(evidence, personal), rows, TRACK_RATE) if rows else np.zeros((0, 2), np.float32)
    heard, table = evidence.heard, evidence.table
    trust = min(1.0, float(evidence.active_rows().sum()) / _MODEST_ROWS)
    sure = at_rate(heard.closure, rows, TRACK_RATE) + _TABLE_SHARE * table.closure
    teeth = (at_rate(heard.teeth, rows, TRACK_RATE) + table.teeth) / 2
    return Tracks(
        opening=motion[:, 0],
        width=np.asarray(motion[:, 1] * _WIDTH_SPREAD * (0.5 + 0.5 * trust), np.float32),
        closure=np.clip(_CLOSURE_GAIN * (sure - _CLOSURE_DOUBT), 0, 1).astype(np.float32),
        teeth=np.clip(teeth, 0, 1).astype(np.float32),
        activity=evidence.active,
    )
