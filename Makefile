# Two commands on a fresh machine: `make demo` and `make test`. Both set up a virtual environment in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
READY := $(VENV)/.ready

.PHONY: setup demo test test-all lint bench bench-gpu clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
	touch $(READY)

# DEMO_OPTIONS: of its trainings, such as training.precision=fp32
demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/medgen data demo $(DEMO)/data --patients 30
	$(BIN)/medgen train recipes/demo_seg.toml data.root=$(DEMO)/data run.dir=$(DEMO)/seg $(DEMO_OPTIONS)
	$(BIN)/medgen train recipes/demo_bravo.toml data.root=$(DEMO)/data run.dir=$(DEMO)/bravo $(DEMO_OPTIONS)
	$(BIN)/medgen train recipes/demo_insert.toml data.root=$(DEMO)/data run.dir=$(DEMO)/insert $(DEMO_OPTIONS)
	$(BIN)/medgen insert --hosts $(DEMO)/data --image-model $(DEMO)/insert --num-images 12 --output-dir $(DEMO)/inserted
	$(BIN)/medgen generate --seg-model $(DEMO)/seg/latest.pt --image-model $(DEMO)/bravo/latest.pt \
		--num-images 64 --output-dir $(DEMO)/pairs
	$(BIN)/medgen show $(DEMO)/bravo $(DEMO)/pairs $(DEMO)/inserted --output $(DEMO)/demo.png
	$(BIN)/medgen evaluate $(DEMO)/bravo $(DEMO)/pairs --html $(DEMO)/card.html

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# one thread for each of the two test processes: torch's threads wait for each other badly when cores are shared
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(READY)
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tests/benchmarks/bench.py --write tests/benchmarks/RESULTS.md

# constraints.txt may pin a torch without CUDA: `make bench-gpu PY=python3` takes the one that is installed
PY ?= $(BIN)/python
bench-gpu:
	$(PY) tests/benchmarks/bench_gpu.py --write tests/benchmarks/RESULTS_GPU.md

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
