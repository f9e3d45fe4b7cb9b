"""The only place that starts ffmpeg and espeak-ng."""
