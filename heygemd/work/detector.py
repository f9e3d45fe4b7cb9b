"""Which face detector pass 1 uses: OpenCV's cascade, or one of face-alignment's with the operator's weights."""

from __future__ import annotations

from pathlib import Path

from heygemd.core.errors import ConfigError
from heygemd.faces.detect import CascadeDetector, FaceDetector
from heygemd.work.checkpoints import load_registry


def make_detector(name: str, file: Path | None, checkpoint_dir: Path) -> FaceDetector:
    """`name`: as in `engines.face_detector`; `file`: its weights, None: the one of the registry, in `checkpoint_dir`.

    Nothing is downloaded. Raises ConfigError, CheckpointError, EngineUnavailableError.
    """
    if name == "cascade":
        return CascadeDetector()
    from heygemd.faces.detectors_alignment import FrontalBoxes, alignment_detector

    if file is None:
        known = [entry.name for entry in load_registry().files if (entry.kind, entry.variant) == ("detector", name)]
        if not known:
            raise ConfigError(
                f"the detector {name} needs its weights named",
                remedy="Set engines.face_detector_file to the file, or engines.face_detector to cascade.",
            )
        file = checkpoint_dir / known[0]
    return FrontalBoxes(alignment_detector(name, file))
