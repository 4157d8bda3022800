# Every target sets up what it needs: a fresh machine wants Python >= 3.11 and a C++ compiler, no more.
#
#   make demo    set up, pre-train a small model on video files, show what it reconstructs and what
#                its weights are worth to a classifier
#                (VIDEOS=folder for your own videos)
#   make test    set up, run the tests but for the slow ones: within 6 minutes on two cores
#                (SLOW=2/5 for the second of five parts of the slow ones too, as CI does)
#   make test-all  all tests
#   make fuzz    set up, damage thousands of videos, pictures, lists, boxes, stores, weights, checkpoints:
#                nothing may be read wrong or end in a traceback (FUZZ_ARGS="lists --share 0.1 --seed 1")
#   make gpu-first  the first 9 minutes on a GPU: tests, a profile by kernel, ceilings, attention, steps,
#                   each with a time limit of its own; a page of results in GPU_OUT
#                   (GPU_PARTS="tests ceilings"; benchmarks/README.md has the plan of a session)
#   make gpu-rehearse  the same on a CPU with tiny shapes
#   make gpu-test   the tests of kernels and steps on a GPU: a skip is a failure
#   make gpu-data-test, gpu-sanitize   decoders of the GPU (NVDEC); tests of attention under
#                   compute-sanitizer
#   make gpu-bench  what the GPU can do, each op, attention, the baselines; JSON in GPU_OUT
#                   (all of these set nothing up: GPU_PYTHON is a Python with a CUDA build of torch)
#   make gpu-commit, gpu-wheels   for a machine with a GPU and no package index: the commit, which a copy
#                   of the tree without .git takes along, and packages (WHEELS="reading dali")
#   make gpu-install  there: installs what came (WHEELS="reading dali") into .gpu-site, where
#                   the targets above find it
#   make paper-table  the paper's table of dual masking and what each gain is worth, measured here:
#                   JSON, tables and plots in OUT (SIZES="small base", BATCH=4, DEVICE=cpu or cuda,
#                   CHECKOUT=folder of the official code; BREAKDOWN=size of the second part)
#   make data-bench set up, time how fast videos are read against the official path: JSON, table and
#                   plot in OUT (VIDEOS=folder for your own videos)
#   make reference  write docs/reference/ from the declarations of the configuration's fields
#   make site    set up, build the documentation into build/site; what warns or leads nowhere fails
#   make release set up, build the source archive and, from it, the wheel for Linux in DIST, with their
#                checksums (DIST=dist; what is there already is replaced)
#   make lint    ruff; make types: mypy; make format: ruff's formatter
#   make clean   remove what was built (.venv too)
#
# PYTHON=... picks the interpreter that makes .venv; PYTEST_ARGS=... goes to pytest; WORKERS=... is the
# number of test processes (one thread each; 0 runs the tests in one process), GPU_WORKERS=... those
# of the tests on a GPU: what takes long there is compiling.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all fuzz \
	gpu-first gpu-rehearse gpu-test gpu-data-test gpu-sanitize gpu-bench gpu-commit gpu-wheels \
	gpu-install paper-table data-bench reference site release lint types format clean

# Processes are started many times, and compile what no bytecode is kept of.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VIDEOS ?=
PYTEST_ARGS ?=
WORKERS ?= auto
SLOW ?= none

help:
	@sed -n 's/^#   //p' Makefile

# The first interpreter that is new enough and can make environments.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$p && break; done)
NATIVE := $(wildcard csrc/*)
PACKAGES := $(wildcard videomae_fast/*/__init__.py videomae_fast/*/*/__init__.py)

# The environment alone; made once. The pip that comes with Python may take four times as long to find
# what fits.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with the venv module found;" \
	"install one (on Debian: python3-venv too), or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || { \
	echo "error: no C++ compiler found; install g++ or clang++, or name it in CXX" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=26'

# Editable, so Python files need no new installation; C++ files and settings do, and folders that
# were a file before: the finder of an editable installation remembers which is which. Bytecode, by all
# cores, of what most processes import; the rest gets it when it is imported. (Some of torch is of a newer
# Python than may be here.)
$(INSTALLED): $(BIN)/python pyproject.toml constraints/ci.txt $(NATIVE) $(PACKAGES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	-c constraints/ci.txt -e '.[dev]'
	@cd $(VENV)/lib/python*/site-packages && $(abspath $(BIN))/python -m compileall -qq -j 0 torch sympy || true
	@touch $@

setup: $(INSTALLED)

demo: setup
	$(BIN)/videomae-fast demo $(if $(VIDEOS),--videos "$(VIDEOS)")

# A file's tests run in one process, in the order that tests/conftest.py says.
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 \
	--dist loadfile --no-loadscope-reorder

test: setup
	$(TESTS) --slow $(SLOW) $(PYTEST_ARGS)

test-all: setup
	$(TESTS) $(PYTEST_ARGS)

FUZZ_ARGS ?=

fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
GPU_OUT ?= benchmarks/results
GPU_SIZE ?= base
GPU_BATCH ?= 128
GPU_PARTS ?=
GPU_WORKERS ?= 8

WHEELS ?= needed reading flash-attn-4 dali
GPU_SITE ?= .gpu-site
GPU_PATH = .$(if $(wildcard $(GPU_SITE)),:$(abspath $(GPU_SITE)))
GPU_RUN = PYTHONPATH=$(GPU_PATH)$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON)
GPU_FIRST = $(GPU_RUN) -m benchmarks gpu --out $(GPU_OUT) $(if $(GPU_PARTS),--parts $(GPU_PARTS))

gpu-first:
	$(GPU_FIRST)

gpu-rehearse:
	$(GPU_FIRST) --rehearse

gpu-test:
	$(GPU_RUN) -m pytest --gpu tests/ops tests/kernels tests/models/test_golden.py tests/gpu -n $(GPU_WORKERS) $(PYTEST_ARGS)

gpu-data-test:
	$(GPU_RUN) -m pytest --gpu -m gpu tests/data $(PYTEST_ARGS)

gpu-sanitize:
	$(GPU_FIRST) --parts racecheck memcheck

gpu-bench:
	$(GPU_RUN) -m benchmarks ceilings --parts copy matmul --out $(GPU_OUT)
	$(GPU_RUN) -m benchmarks attention-choice --batch $(GPU_BATCH) --out $(GPU_OUT) \
	--table $(GPU_OUT)/attention-table.json
	$(GPU_RUN) -m benchmarks ops --device cuda --size $(GPU_SIZE) \
	--batch $(GPU_BATCH) --out $(GPU_OUT)
	VIDEOMAE_FAST_ATTENTION_TABLE=$(GPU_OUT)/attention-table.json \
	$(GPU_RUN) -m benchmarks ceilings --parts baselines --size $(GPU_SIZE) \
	--batch $(GPU_BATCH) --out $(GPU_OUT)

gpu-commit:
	$(GPU_PYTHON) -m benchmarks commit

gpu-wheels:
	$(GPU_PYTHON) -m benchmarks wheels fetch $(WHEELS)

gpu-install:
	$(GPU_PYTHON) -m benchmarks wheels install $(WHEELS) --to $(GPU_SITE)

DEVICE ?= cpu
SIZES ?=
BATCH ?=
CHECKOUT ?=
BREAKDOWN ?= $(if $(filter cuda%,$(DEVICE)),base,small)
OUT ?= benchmarks/results
STUDY = --device $(DEVICE) $(if $(BATCH),--batch $(BATCH)) --out $(OUT)

# On a CPU this sets up what it needs and ends within 15 minutes; on a GPU it takes GPU_PYTHON as
# it is, and each of the two commands ends within 10.
ifneq ($(filter cuda%,$(DEVICE)),)
paper-table: STUDY_PYTHON := $(GPU_PYTHON)
else
paper-table: setup
paper-table: STUDY_PYTHON := $(BIN)/python
paper-table: STUDY += --seconds 420
endif
paper-table:
	PYTHONPATH=. $(STUDY_PYTHON) -m benchmarks paper $(STUDY) $(if $(SIZES),--sizes $(SIZES)) \
	$(if $(CHECKOUT),--official-checkout "$(CHECKOUT)")
	PYTHONPATH=. $(STUDY_PYTHON) -m benchmarks breakdown $(STUDY) --size $(BREAKDOWN)

data-bench: setup
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks reading --out $(OUT) \
	$(if $(VIDEOS),--videos "$(VIDEOS)")

reference: setup
	$(BIN)/python -m videomae_fast.recipes.reference pretrain > docs/reference/configuration.md
	$(BIN)/python -m videomae_fast.recipes.reference finetune > docs/reference/finetuning.md
	$(BIN)/python -m videomae_fast.recipes.reference detect > docs/reference/detection.md
	$(BIN)/python -m videomae_fast.recipes.reference distill > docs/reference/distillation.md

# With -m, so that the tree is found: docs/site/ is imported from it.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "open build/site/index.html; for its search: python3 -m http.server --directory build/site"

DIST ?= dist

# The wheel's tag says which systems' libraries it needs; the build itself only says "Linux".
release: setup
	rm -rf "$(DIST)"
	$(BIN)/python -m build --outdir "$(DIST)/built" .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir "$(DIST)" "$(DIST)"/built/*.whl
	mv "$(DIST)"/built/*.tar.gz "$(DIST)"
	rm -r "$(DIST)/built"
	cd "$(DIST)" && sha256sum *.whl *.tar.gz | tee SHA256SUMS

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
