"""Rendering on a Ray cluster. Only `bridge` and what it calls import ray; the daemon speaks to it through pipes."""
