# make setup | demo | fast | check | test | format | bench | bench-long | reproduce | docs | site | audit | sbom | lock; everything lives in .venv
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE # tests start a hundred processes: what is compiled is kept

.PHONY: setup demo test fast check format bench bench-long bench-setup reproduce docs site audit sbom lock clean
setup: .venv/.done

.venv/.done: constraints.txt requirements.lock pyproject.toml scripts/setup.sh
	PYTHON=$(PYTHON) sh scripts/setup.sh
	touch $@

demo: setup
	$(BIN)/flatcoat run recipes/quickstart.toml --out runs/quickstart

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

fast: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

check: setup
	$(BIN)/ruff format --check src tests scripts benchmarks examples
	$(BIN)/ruff check src tests scripts benchmarks examples
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

format: setup
	$(BIN)/ruff format src tests scripts benchmarks examples
	$(BIN)/ruff check --fix src tests scripts benchmarks examples

docs: setup
	$(BIN)/python scripts/cli_docs.py
	$(BIN)/python scripts/checks_page.py
	$(BIN)/python scripts/bench_page.py
	$(BIN)/python scripts/recipe_docs.py

# The documentation as a site in build/site, for any server of files or for a browser on the disk: it asks no other machine for anything.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

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

# Every number of README and docs again, and which moved: ten hours on two cores; ARGS='--list', '--quick', '--within 60', '--only NAME'.
# COLLECTIONS is a folder with the collections that --list names; what is absent is said and left out.
COLLECTIONS ?= ../shared/collections
ARGS ?=

reproduce: bench-setup
	@$(BIN)/python scripts/reproduce.py --collections $(COLLECTIONS) $(ARGS)

# Known faults of every pinned version, from the advisory databases: wants network.
audit: setup
	$(BIN)/python -m pip_audit -r requirements.lock --disable-pip --require-hashes --progress-spinner off

# What is installed, as CycloneDX: dist/sbom.cdx.json; and its licences.
sbom: setup
	$(BIN)/python scripts/sbom.py
	$(BIN)/python scripts/sbom.py --licences

# After constraints.txt has changed: the hashes of every file of each version.
lock: setup
	$(BIN)/python scripts/lock.py

# Lines run by tests, of the rooms that pyproject.toml names, in two passes: as always, with kernels compiled anew so that what writes
# their instructions is seen; and small kernels' tests as plain Python. Then each room by itself against the 95 % of pyproject.toml.
ROOMS := tests/contracts tests/engines tests/faults/test_clocks.py tests/faults/test_disks.py tests/golden tests/properties tests/unit
coverage: setup
	@rm -f .coverage .coverage.*
	cache=$$(mktemp -d) && NUMBA_CACHE_DIR=$$cache $(BIN)/python -m coverage run -m pytest -p no:cacheprovider $(ROOMS); done=$$?; rm -rf $$cache; exit $$done
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m coverage run -m pytest -p no:cacheprovider tests/unit/test_kernels_small.py tests/unit/test_kernels_edit.py tests/unit/test_kernels_postings.py
	$(BIN)/python -m coverage combine -q
	@short=0; for room in '*.py' 'data/*' 'index/**' 'mining/*' 'objectives/*'; do \
		echo "src/flatcoat/$$room"; $(BIN)/python -m coverage report --include "src/flatcoat/$$room" || short=1; done; exit $$short

# Faults planted in losses, samplers and measures, one at a time (docs/testing.md): SAMPLE of each file, hours where it is large
SAMPLE ?= 20
mutants: setup
	$(BIN)/python scripts/mutants.py objectives mining measures --sample $(SAMPLE)

clean:
	rm -rf .venv runs build dist
