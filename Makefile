# Everything here works from a bare clone with Python 3.11 and make: the environment is made in .venv on the first call and
# kept until constraints.txt or pyproject.toml change.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SOURCES := toolkit models targets quantize

.PHONY: help setup demo test test-full lint format bench clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(READY)  ## the environment in .venv
$(READY): constraints.txt pyproject.toml
	@echo "setting up $(VENV) (minutes the first time)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## export irv2 for this CPU, run it on a photo, then classify handwritten digits
	@$(BIN)/python examples/demo.py

test: lint  ## the checks and the fast tests
	@$(BIN)/pytest -q -m "not slow"

test-full: lint  ## every test
	@$(BIN)/pytest -q

# mypy knows nothing of pyproject's package-dir, so it reads a tree of links that looks like the installed package.
lint: $(READY)  ## ruff and mypy --strict
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@rm -rf build/lint && mkdir -p build/lint/inception_deploy
	@ln -s $(addprefix $(CURDIR)/,$(wildcard toolkit/*)) $(CURDIR)/models $(CURDIR)/targets $(CURDIR)/quantize build/lint/inception_deploy/
	@MYPYPATH=build/lint $(BIN)/mypy --no-error-summary -p inception_deploy

format: $(READY)  ## lay the code out as `make lint` wants it
	@$(BIN)/ruff check -q --fix . && $(BIN)/ruff format -q .

bench: $(READY)  ## the speed figures of the README, measured here
	@$(BIN)/python benchmarks/peers.py --quick

clean:  ## remove what was built, .venv too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
