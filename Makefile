# Every target sets up what it needs; only python3 (3.11-3.13), make and git must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint fix pocket bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "sleepy needs Python 3.11-3.13, this is %d.%d; try make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt swebench
	touch $(STAMP)

demo: setup
	$(BIN)/sleepyctl demo $(ARGS)

# Two at once on two cores, each with one thread; ARGS="-n 0" runs them in one process.
test: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# About two hours on two free cores; interrupt it and run it again, it resumes.
pocket: setup
	$(BIN)/python -m eval.pocket.pretrain --folder build/pocket --export agent/pocket/weights $(ARGS)

bench: setup
	$(BIN)/sleepyctl bench pocket $(ARGS)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
