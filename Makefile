# Two commands on a fresh machine: `make demo` and `make test`. Both set up a virtual environment in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
DEMO_3D ?= demo_3d
# the end of the names of the demo's recipes: nothing, or _3d
VOLUMES :=
READY := $(VENV)/.ready

.PHONY: setup demo demo-card demo-images demo-masks demo-lesions demo-inserted demo-3d test test-all lint bench bench-gpu clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
	touch $(READY)

# Made-up patients know their tissue; `medgen data tissue` estimates that of scans.
# DEMO_OPTIONS: of its trainings, such as training.precision=fp32
demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/medgen data demo $(DEMO)/data --patients 30 --tissue
	$(BIN)/medgen data demo $(DEMO)/anatomy --patients 12 --seed 1 --tissue
	$(MAKE) --no-print-directory --jobs 2 demo-images demo-lesions demo-masks demo-inserted
	$(BIN)/medgen generate --seg-model $(DEMO)/seg/latest.pt --image-model $(DEMO)/bravo/latest.pt \
		--anatomy $(DEMO)/anatomy --num-images 64 --devices 2 --output-dir $(DEMO)/pairs
	$(BIN)/medgen show $(DEMO)/bravo $(DEMO)/pairs $(DEMO)/inserted --output $(DEMO)/demo.png

# what the demo's pairs are worth
demo-card: $(READY)
	test -d $(DEMO)/pairs || $(MAKE) demo
	$(BIN)/medgen evaluate $(DEMO)/bravo $(DEMO)/pairs --anatomy $(DEMO)/anatomy --control 32 --html $(DEMO)/card.html

# Two trainings at a time, each with half of the cores: one with all of them is hardly faster.
demo-images demo-masks demo-lesions demo-inserted: export OMP_NUM_THREADS ?= $(shell echo $$((($$(getconf _NPROCESSORS_ONLN) + 1) / 2)))

demo-images: $(READY)
	$(BIN)/medgen train recipes/demo_bravo$(VOLUMES).toml data.root=$(DEMO)/data run.dir=$(DEMO)/bravo $(DEMO_OPTIONS)

demo-masks: RUN := seg
demo-lesions: RUN := insert
demo-masks demo-lesions: $(READY)
	@echo "demo: recipes/demo_$(RUN)$(VOLUMES).toml is trained beside the images, see $(DEMO)/$(RUN).txt"
	@$(BIN)/medgen train recipes/demo_$(RUN)$(VOLUMES).toml data.root=$(DEMO)/data run.dir=$(DEMO)/$(RUN) $(DEMO_OPTIONS) \
		> $(DEMO)/$(RUN).txt 2>&1 || { cat $(DEMO)/$(RUN).txt; exit 1; }

demo-inserted: demo-lesions
	$(BIN)/medgen insert --hosts $(DEMO)/data --image-model $(DEMO)/insert --num-images 8 --output-dir $(DEMO)/inserted

# the same with volumes
demo-3d: $(READY)
	rm -rf $(DEMO_3D)
	$(BIN)/medgen data demo $(DEMO_3D)/data --patients 100 --tissue
	$(BIN)/medgen data demo $(DEMO_3D)/anatomy --patients 12 --seed 1 --tissue
	$(MAKE) --no-print-directory --jobs 2 demo-images demo-masks demo-inserted DEMO=$(DEMO_3D) VOLUMES=_3d
	$(BIN)/medgen generate --seg-model $(DEMO_3D)/seg/latest.pt --image-model $(DEMO_3D)/bravo/latest.pt \
		--anatomy $(DEMO_3D)/anatomy --num-images 12 --devices 2 --output-dir $(DEMO_3D)/pairs
	$(BIN)/medgen show $(DEMO_3D)/bravo $(DEMO_3D)/pairs $(DEMO_3D)/inserted --output $(DEMO_3D)/demo.png
	$(BIN)/medgen evaluate $(DEMO_3D)/bravo $(DEMO_3D)/pairs --html $(DEMO_3D)/card.html

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
	rm -rf $(VENV) $(DEMO) $(DEMO_3D) build *.egg-info
