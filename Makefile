# Everything sets itself up in a private virtual environment; Python 3.11 or later is all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ECOSYSTEM := $(VENV)/.ecosystem
FUZZ := $(VENV)/.fuzz
BENCH := $(VENV)/.bench
DURATION ?= 60

.PHONY: demo test test-socketcan test-socketcan-hw conformance ecosystem fuzz soak interruptions check bench bench-periodic bench-socketcan docs format clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(ECOSYSTEM): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ecosystem]'
	touch $@

$(FUZZ): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@

$(BENCH): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

demo: $(READY)   ## the main job on simulated hardware, with a ledger at the end
	$(BIN)/canbroker demo

test: $(READY)   ## all tests, two files at a time: they wait for most of it
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-socketcan: $(READY)     ## those that need a kernel with CAN: this one, or one of its own
	tools/test-socketcan

test-socketcan-hw: $(READY)  ## those that need controllers: emulated ones
	tools/can-vm --qemu -- $(BIN)/python -m pytest tests/can/test_hardware.py

conformance: $(READY)  ## python-can's own tests against canbroker; CANBROKER_PYTHON_CAN names a checkout of it
	$(BIN)/python -m tests.conformance

ecosystem: $(ECOSYSTEM)  ## cantools, can-isotp, udsoncan, canopen, python-can's writers, with canbroker
	$(BIN)/python -m pytest tests/ecosystem tests/docs

fuzz: $(FUZZ)  ## random input to every decoder, each its share of DURATION seconds
	$(BIN)/python -m tests.fuzz --duration $(DURATION)

soak: $(READY)  ## full traffic with random faults for DURATION seconds: memory, descriptors, ledger
	$(BIN)/python -m tests.soak --duration $(DURATION)

interruptions: $(READY)  ## 200 opens, shutdowns and others, interrupted by exceptions of a signal handler
	$(BIN)/python -m tests.interruptions --count 200

check: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BENCH)  ## rates, latencies and costs beside python-can's, python-can-remote and bare pyzmq
	$(BIN)/python -m benchmarks $(BENCH_OPTIONS)

bench-periodic: $(READY)   ## how regular periodic tasks are, beside python-can's; draws a picture
	$(BIN)/python -m benchmarks.periodic

bench-socketcan: $(READY)  ## python-can's SocketCAN beside canbroker; without CAN: tools/can-vm -- make bench-socketcan
	$(BIN)/python -m benchmarks.socketcan

# Not --quiet, which hides warnings from --strict. The notice of the theme about MkDocs 2 is none.
docs: $(READY)   ## the documentation, into site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
