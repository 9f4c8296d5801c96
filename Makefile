# make setup | demo | test | test-all; each makes the environment first, once.
PYTHON ?= python3
BIN := .venv/bin
# one thread each: threads of several processes on the same cores wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4

.PHONY: setup demo test test-all clean
setup: .venv/ready

# Made anew only when what it is made from changes.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m experiments.run experiments/configs/demo.yaml --out runs/exp/demo --resume

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

clean:
	rm -rf .venv
