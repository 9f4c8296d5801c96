# make setup | demo | test | test-all | test-xla | api; each makes the environment first, once. make lock | audit:
# docs/guides/security.md
PYTHON ?= python3
BIN := .venv/bin
# A file is one process's, so that what its tests share is made once.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

XLA := .venv-xla/bin

.PHONY: setup demo test test-all test-xla api lock audit clean
setup: .venv/ready

# Made anew only when what it is made from changes. Files are compiled on all cores, which pip does on
# one, but for packages' own tests and what is seldom used; some hold files of other Pythons.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests|_tests|ray|pip|mypy)/' .venv/lib || true
	@touch $@

demo: setup datasets/demo/manifest.json
	$(BIN)/python -m experiments.run demo --data datasets/demo --out runs/exp/demo --workers 2 --resume

# A thousand patients, of whom the most are tested: few real malignant images to learn from.
datasets/demo/manifest.json: | .venv/ready
	$(BIN)/python -m data.prepare --source phantom --patients 1000 --test-fraction 0.85 --out datasets/demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

# The API from docstrings: runs/api/index.html
api: setup
	$(BIN)/python -m pdoc --docformat numpy -o runs/api dermsynth data gan classifier experiments

# The fault harness forks, which worker processes do not survive.
test-all: setup
	$(PYTEST) --ignore tests/faults
	$(BIN)/python -m pytest tests/faults

# torch_xla has one torch that it works with, so it has an environment of its own, with the other
# packages as they are pinned. On a CPU of x86 that torch is built for CUDA: 3 GB to fetch, 7 GB on
# disk (docs/guides/tpu.md has a smaller one).
.venv-xla/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-xla
	grep -v '^torch\(vision\)\?==' constraints.txt > .venv-xla/constraints.txt
	$(XLA)/pip install --quiet -c .venv-xla/constraints.txt -e '.[xla]' hypothesis pytest pytest-timeout
	@touch $@

# XLA for the CPU; without LLVM's optimisation a step compiles six times faster.
test-xla: .venv-xla/ready
	PJRT_DEVICE=CPU XLA_FLAGS=--xla_backend_optimization_level=0 \
		$(XLA)/python -m pytest tests/xla

# Tools that are no part of the environment, in a corner of it.
.venv/tools/ready: Makefile | .venv/ready
	$(BIN)/python -m venv .venv/tools
	.venv/tools/bin/pip install --quiet pip-audit==2.10.1 uv==0.13.9
	@touch $@

# Hashes of every file that the package index has of each version in constraints.txt, for all
# systems and Pythons; what is in the lock already stays.
lock: .venv/tools/ready
	.venv/tools/bin/uv pip compile pyproject.toml --extra dev -c constraints.txt --universal \
		--generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements.lock

# Asks over the network. --strict: a package that could not be asked about is a failure, not a pass.
audit: .venv/tools/ready
	.venv/tools/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock || { echo \
		"error: audit: packages with known weaknesses, or that could not be looked up (above)" >&2; \
		exit 1; }

clean:
	rm -rf .venv .venv-xla
