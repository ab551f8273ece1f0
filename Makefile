# Everything here works from a bare clone with make and a Python of 3.10 to 3.13: the environment is made in .venv on the first
# call, with the newest of those that runs (a shim of pyenv may be there and not run), and kept until constraints.txt or
# pyproject.toml change. `make PYTHON=python3.11 ...` takes that one.
PYTHON ?= $(shell for minor in 13 12 11 10; do python3.$$minor -c 'import ensurepip' 2>/dev/null && echo python3.$$minor && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SAY_VERSION := -c 'import sys; print(sys.version_info[:2])'

# A file's tests share fixtures and stay together; a worker takes about 0.7 GB.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile

.PHONY: help setup demo test test-full test-arm lint format docs bench fuzz clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(READY)  ## the environment in .venv
$(READY): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "no python3.10 to python3.13 with venv on PATH; install one (Debian: python3 python3-venv), or make PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (minutes the first time)" >&2
	@[ "$$($(PYTHON) $(SAY_VERSION))" = "$$($(BIN)/python $(SAY_VERSION) 2>/dev/null)" ] || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## export irv2 for this CPU, run it on a photo, then classify handwritten digits
	@$(BIN)/python examples/demo.py

test: lint  ## the checks and the fast tests
	@$(BIN)/pytest -q -m "not slow" $(PARALLEL)

test-full: lint  ## every test
	@$(BIN)/pytest -q $(PARALLEL)

# Each network for an ARM core is compiled and emulated: half an hour of two cores.
test-arm: lint  ## every ARM target under qemu's user mode, also what test leaves to test-full
	@$(BIN)/pytest -q $(PARALLEL) tests/lower/test_arm.py tests/lower/test_integers_arm.py tests/lower/test_tuned.py tests/kernels \
		tests/targets/test_program.py tests/targets/test_runtime_c.py tests/cli/test_device.py

docs: $(READY)  ## the documentation as a site in build/site; a warning or a broken link is an error
	@$(BIN)/python -c 'import sphinx, myst_parser, furo' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[docs]'
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo build/site/index.html

N ?= 100000
fuzz: $(READY)  ## N files changed at random (N=100000), each taken or refused
	@$(BIN)/python tests/fuzz/fuzz.py $(N)

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
