# `make demo`: real DFT data made here, then OpenMX's; training, tables, pictures in demo/.
# `make demo` and `make test` need Python 3.11 and pip, nothing else: they make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One BLAS thread a process: two threads on two loaded cores were measured up to 100 times slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check benchmarks clean

demo: $(STAMP)
	$(BIN)/hybridham demo -o demo
	$(BIN)/hybridham demo -o demo --source tests/golden/openmx/bilayers.tar.xz --split tests/golden/openmx/bilayers.index.json --epochs 2

test: $(STAMP)
	$(BIN)/python -m pytest -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmarks: $(STAMP)
	$(BIN)/python -m tests.benchmarks.deeph_store
	$(BIN)/python -m tests.benchmarks.scfout_read
	$(BIN)/python -m tests.benchmarks.bloch_sum
	$(BIN)/python -m tests.benchmarks.overlap_speed
	$(BIN)/python -m tests.benchmarks.near_singular
	$(BIN)/python -m tests.benchmarks.sparse_bands
	$(BIN)/python -m tests.benchmarks.stage1_speed
	$(BIN)/python -m tests.benchmarks.stage2_speed
	$(BIN)/python -m tests.benchmarks.inference

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dft,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
