"""`python -m heygemd.cli`: the same as `heygemd`, for child processes that must use this interpreter."""

from heygemd.cli import run

run()
