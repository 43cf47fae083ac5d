# make setup | demo | test | check | bench | bench-long | docs; everything lives in .venv
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test fast check format bench bench-long bench-setup docs clean
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
	$(BIN)/python scripts/bench_page.py

# Benchmarks: tables to stdout and to RESULTS, all else to runs/bench.log. `bench` has small defaults: plan for an hour on two cores;
# each script takes more by itself. `bench-long` are the long ones, hours: FOLDER is a BEIR folder with many documents.
COLLECTION ?= python:
FOLDER ?=
RESULTS ?= benchmarks/results
measure = @FLATCOAT_RESULTS=$(RESULTS) $(BIN)/python benchmarks/$(1) 2>>runs/bench.log || { tail -n 20 runs/bench.log >&2; exit 1; }

bench-setup: setup
	@mkdir -p runs && : > runs/bench.log
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]' >>runs/bench.log 2>&1 || { tail -n 20 runs/bench.log >&2; exit 1; }

bench: bench-setup
	$(call measure,limits.py)
	$(call measure,startup.py)
	$(call measure,scan.py $(COLLECTION) --documents 20000)
	$(call measure,encode_dense.py $(COLLECTION) --documents 500 --rounds 3)
	$(call measure,encode_sparse.py $(COLLECTION) --documents 200)
	$(call measure,rerank.py $(COLLECTION) --queries 2 --rounds 3)
	$(call measure,train_dense.py $(COLLECTION) --steps 5 --rounds 3)
	$(call measure,train_sparse.py $(COLLECTION))
	$(call measure,maxsim.py --steps 10 --rounds 3)
	$(call measure,quickstart_peer.py $(COLLECTION) --documents 10000 --steps 60 --rounds 1 --precision bf16)

bench-long: bench-setup
	@test -n "$(FOLDER)" || { echo "say FOLDER=, a BEIR folder" >&2; exit 2; }
	$(call measure,quickstart_peer.py $(COLLECTION) --precision bf16 recipe)
	@for question in batch floor encoders; do FLATCOAT_RESULTS=$(RESULTS) $(BIN)/python benchmarks/class_notes.py $(COLLECTION) --question $$question 2>>runs/bench.log || exit 1; done
	$(call measure,sparse_search.py $(FOLDER) --cache runs/bench-sparse --peers scipy --scale 10000$(comma)30000$(comma)100000$(comma)300000$(comma)1000000)
	$(call measure,multivector_search.py $(FOLDER) --cache runs/bench-multivector --split test --peers mean-pool)
	$(call measure,negatives/scale.py)

comma := ,

clean:
	rm -rf .venv runs build dist
