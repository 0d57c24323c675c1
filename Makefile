PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test bench bench-quick quality style docs clean

quickstart: $(STAMP)
	$(BIN)/hf-matryoshka quickstart $(ARGS)

test: quality
	$(BIN)/python -m pytest $(ARGS)

# All benchmarks, for days; `make bench ARGS=--plan` says which. The quick ones write under outputs/bench.
bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py $(ARGS)

bench-quick: $(STAMP)
	$(BIN)/python benchmarks/run_all.py --quick $(ARGS)

# Type checkers do not follow the editable install: links put the folders of the package where a wheel has them.
quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types/hf_matryoshka
	ln -s "$(CURDIR)"/hf_matryoshka/* "$(CURDIR)"/modeling "$(CURDIR)"/trainers "$(CURDIR)"/hub_cards build/types/hf_matryoshka
	$(BIN)/mypy -p hf_matryoshka -m public_api

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
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache outputs site
