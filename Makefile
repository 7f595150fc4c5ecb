# `make demo` and `make test` are the first commands on a fresh machine: both make the environment they need.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Dependency groups of pyproject.toml; `dev vision` for the tests of mlx-vlm too.
GROUPS ?= dev
# On Linux bare `mlx` has no backend: the runtime's cpu extra brings MLX's own.
comma  := ,
EXTRAS := $(if $(filter Darwin,$(shell uname -s)),,cpu$(comma))lm$(comma)plot

.PHONY: demo test check format measure clean

demo: $(READY)  ## the dry-run diff of the ten example scripts, and a summary
	@$(BIN)/flash-integrate fixtures/mlx_scripts --dry-run

test: $(READY)  ## every test
	$(BIN)/python -m pytest -n auto --dist loadgroup

check: $(READY)  ## formatting, lint, types, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml

format: $(READY)  ## formats and fixes what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

measure: $(READY)  ## of a Mac, once: the rows of docs/performance.md for its chip, in ten minutes
	$(BIN)/python benchmarks/measure.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# pip reads the [dependency-groups] of pyproject.toml from version 25.1 on.
$(READY): pyproject.toml runtime/pyproject.toml
	@echo "installing into $(VENV), once: a minute or so ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable 'runtime[$(EXTRAS)]' --editable . $(addprefix --group ,$(GROUPS))
	@touch $@
