"""Turning one job into one video: pipeline, worker process, executor."""
