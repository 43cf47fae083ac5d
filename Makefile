# make setup | demo | test | check | bench; everything lives in .venv
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test fast check format bench docs clean
setup: .venv/.done

.venv/.done: constraints.txt pyproject.toml scripts/setup.sh
	PYTHON=$(PYTHON) sh scripts/setup.sh
	touch $@

demo: setup
	$(BIN)/flatcoat run recipes/quickstart.toml --out runs/quickstart

test: setup
	$(BIN)/python -m pytest -n 2

fast: setup
	$(BIN)/python -m pytest -n 2 -m "not slow"

check: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2

format: setup
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

docs: setup
	$(BIN)/python scripts/cli_docs.py

COLLECTION ?= python:
bench: setup
	$(BIN)/python benchmarks/scan.py $(COLLECTION)
	$(BIN)/python benchmarks/encode_dense.py $(COLLECTION)
	$(BIN)/python benchmarks/train_dense.py $(COLLECTION)
	for question in batch floor encoders; do $(BIN)/python benchmarks/class_notes.py $(COLLECTION) --question $$question; done

clean:
	rm -rf .venv runs build dist
