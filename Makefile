# The short names. `make check` is what CI runs (through ./install.sh test).
PY := .venv/bin

.PHONY: check lint format test demo bench clean

.venv/.heygemd-stamp: pyproject.toml constraints.txt
	./install.sh dev

check: .venv/.heygemd-stamp
	./install.sh --all test

lint: .venv/.heygemd-stamp
	$(PY)/ruff check
	$(PY)/ruff format --check
	$(PY)/mypy
	$(PY)/lint-imports --config .importlinter

format: .venv/.heygemd-stamp
	$(PY)/ruff check --fix
	$(PY)/ruff format

test:
	./install.sh test

demo:
	./install.sh demo

bench: .venv/.heygemd-stamp
	$(PY)/python -m bench

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
