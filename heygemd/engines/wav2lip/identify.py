"""`python -m heygemd.engines.wav2lip.identify FILE`: what a checkpoint is, as one JSON document on stdout.

The daemon and the commands never import torch; they ask in a process of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from heygemd.core.errors import CheckpointError


def main(arguments: list[str]) -> int:
    """Prints {"ok": true, "variant", "title", "parameters"} or {"ok": false, "error": {…}}."""
    from heygemd.engines.wav2lip.loading import read_generator_state

    try:
        variant, _state = read_generator_state(Path(arguments[0]))
    except CheckpointError as error:
        document: dict[str, object] = {"ok": False, "error": error.to_dict()}
    else:
        document = {
            "ok": True,
            "variant": variant.name,
            "title": variant.title,
            "size": variant.size,
            "parameters": variant.parameters,
        }
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
