PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test bench bench-quick quality style docs clean

quickstart: $(STAMP)
	$(BIN)/hf-matryoshka quickstart $(ARGS)

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(ARGS)

# All benchmarks, for days; `make bench ARGS=--plan` says which. The quick ones write under outputs/bench.
bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py $(ARGS)

bench-quick: $(STAMP)
	$(BIN)/python benchmarks/run_all.py --quick $(ARGS)

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

style: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, under site/; a broken link or cross-reference is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# torch is pinned to a version that pip finds as a CPU wheel; a bare `torch` would pull the CUDA stack.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache outputs site
