# `make demo` and `make test` do all their own set-up: Python >= 3.11 and pip are enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo test

IS_FIT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c '$(IS_FIT)' 2>/dev/null && echo "$$python" && break; done)
HAS_GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
# torch and triton are named beside the package where they are pinned, so that pip takes them
# from its index before it looks at what else asks for them.
PINS := -c constraints.txt $(if $(HAS_GPU),,-c constraints-cpu.txt -r constraints-cpu.txt)
INSTALLED := .venv/installed

# A dozen questions below one file header, four samples each, from a model in this repository:
# grouped-query attention, or with MODEL=gla grouped latent attention.
MODEL ?= gqa
demo: $(INSTALLED)
	@mkdir -p out
	.venv/bin/bough generate --model models/stdlib-$(MODEL) --prompts examples/demo.jsonl \
		--output out/demo.jsonl --n 4 --temperature 0.6 --seed 1 \
		--device cpu --dtype float32 --show 3

# One thread a test worker: two workers would otherwise fight for the cores.
test: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2

$(INSTALLED): pyproject.toml constraints.txt constraints-cpu.txt
	@test -n "$(PYTHON)" || { echo "Python must be 3.11 to 3.13, found none" >&2; exit 1; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv || { \
		$(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python .venv/bin/python install pip; }
	@echo "Installing into .venv; this takes a few minutes, once."
	.venv/bin/python -m pip install --quiet $(PINS) -e '.[server,bench,dev]'
	@touch $@
