"""heygemd: drop a video and a recording, get the person speaking it."""

__version__ = "0.1.0"
