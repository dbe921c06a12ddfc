# Everything sets itself up in a private virtual environment; Python 3.11 or later is all it needs.
# The versions of constraints.txt go into it, so that today's environment is tomorrow's.
# `make` or `make help` lists the targets: each line of "target: ... ## text", under its "##@" heading.
PYTHON ?= python3
OLDEST_PYTHON ?= python3.11
VENV := .venv
NEWEST := .venv-newest
LOCK := .venv-lock
RIVALS := .venv-rivals
RIVALS_PYTHON ?= python3.12
INSTALLED := .venv-release
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
READY := $(VENV)/.ready
ECOSYSTEM := $(VENV)/.ecosystem
FUZZ := $(VENV)/.fuzz
BENCH := $(VENV)/.bench
BROWSER := $(VENV)/.browser
RELEASE := $(VENV)/.release
DURATION ?= 60
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# Environment variables, so that the build of this package sees them, too; newer pips read the second.
LOCKED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
COUNT ?= 200

# Tests start thousands of processes, and each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: test-web bench-web demo test check bench docs help setup format lock clean test-newest test-remote test-socketcan \
	test-socketcan-hw conformance ecosystem firmwares coverage fuzz soak interruptions \
	test-long test-portable test-portable-short test-as-windows kills kills-record kills-nats crowd bench-client bench-portable bench-rivals bench-scale bench-small bench-fleet bench-periodic bench-record bench-nats bench-replay bench-socketcan bench-stopped bench-vendor release

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@

$(ECOSYSTEM): $(READY)
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[ecosystem]'
	touch $@

$(FUZZ): $(READY)
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[fuzz]'
	touch $@

$(BROWSER): $(READY)
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[browser,signals,web]'
	touch $@

$(BENCH): $(READY)
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[bench]'
	touch $@

$(RELEASE): $(READY)
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[release]'
	touch $@

##@ Every day

demo: $(READY)  ## the main job on simulated hardware, with a ledger at the end
	$(BIN)/canbroker demo

test: $(READY)  ## all tests but the long ones, or TESTS, two files at a time: they mostly wait
	$(BIN)/python -m pytest -n 2 --dist loadfile $(if $(TESTS),-m "" $(TESTS))

check: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform darwin canbroker
	$(BIN)/mypy --platform win32 canbroker
	$(BIN)/lint-imports

bench: $(BENCH)  ## rates, latencies and costs beside python-can's, python-can-remote and bare pyzmq
	$(BIN)/python -m benchmarks $(BENCH_OPTIONS)

# Not --quiet, which hides warnings from --strict. The notice of the theme about MkDocs 2 is not a warning.
docs: $(READY)  ## the documentation, into site/
	$(LOCKED) $(BIN)/python $(PIP_INSTALL) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

##@ Setting up and tidying

help:  ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## the private environment, in .venv; the other targets make it, too

format: $(READY)  ## the sources in their form, with what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The oldest Python that we support: what installs there installs on later ones, too.
lock:  ## the newest dependencies, into constraints.txt
	$(OLDEST_PYTHON) -m venv --clear $(LOCK)
	$(LOCK)/bin/python $(PIP_INSTALL) hatchling editables '.[dev,ecosystem,bench,docs,fuzz,release]'
	{ echo "# The versions that the Makefile installs. Written by 'make lock'."; \
	  $(LOCK)/bin/python -m pip freeze --disable-pip-version-check --exclude canbroker; } > $(LOCK)/new
	mv $(LOCK)/new constraints.txt
	rm -r $(LOCK)

clean:  ## remove environments, caches and what was built
	rm -rf $(VENV) $(NEWEST) $(LOCK) $(RIVALS) $(INSTALLED) build dist site .coverage* \
		.mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

##@ More tests

test-newest:  ## all tests, or TESTS, with the newest dependencies, in an environment of its own
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(PIP_INSTALL) --editable '.[dev]'
	$(NEWEST)/bin/python -m pytest -n 2 --dist loadfile $(TESTS)

test-socketcan: $(READY)  ## those that need a kernel with CAN: this one, or one of its own
	tools/test-socketcan

test-socketcan-hw: $(READY)  ## those that need controllers: emulated ones
	tools/can-vm --qemu -- $(BIN)/python -m pytest tests/can/test_hardware.py

# The browser is that of the system: apt-get install chromium.
test-web: $(BROWSER)  ## the web page in a real browser: values, decoding, plots, trace, downloads, sending
	$(BIN)/python -m pytest -m "" -n 2 --dist load --timeout 120 $(or $(TESTS),tests/browser)

# What a program can tell of a Bus, once more with all of them behind an encrypted gateway.
test-remote: $(READY)  ## 30 cuts of connections; contracts of buses and the model behind a gateway, or TESTS
	CANBROKER_CUTS=30 $(BIN)/python -m pytest -m "" tests/integration/test_remote_ledgers.py
	CANBROKER_BEHIND_GATEWAY=1 $(BIN)/python -m pytest -m "" -n 2 --dist load --timeout 180 $(or $(TESTS),\
		tests/contract/test_bus.py tests/contract/test_periodic.py tests/contract/test_notifier.py \
		tests/contract/test_asyncio.py tests/integration/test_model.py)

# What Windows and macOS use, on Linux.
PORTABLE_SHORT := tests/unit/system tests/unit/transport/test_loopback.py tests/integration/test_fabric.py \
	tests/integration/test_share.py tests/integration/test_broker.py

test-portable: $(READY)  ## the portable sides, on Linux: contracts and what processes do, or TESTS
	CANBROKER_PORTABLE=1 $(BIN)/python -m pytest -m "" -n 2 --dist loadfile --timeout 180 $(or $(TESTS),\
		$(PORTABLE_SHORT) tests/contract tests/integration/test_failures.py tests/integration/test_leases.py \
		tests/integration/test_broker_returns.py tests/integration/test_scheduler.py \
		tests/integration/test_task_owners.py tests/integration/test_pytest_plugin.py \
		tests/integration/test_forks.py tests/integration/test_births.py \
		tests/integration/test_other_language.py)

test-portable-short: $(READY)  ## a part of test-portable, for CI
	CANBROKER_PORTABLE=1 $(BIN)/python -m pytest -m "" -n 2 --dist loadfile --timeout 180 $(PORTABLE_SHORT)

# Of what Windows and macOS lack, Windows lacks more.
test-as-windows: $(READY)  ## the unit tests, on Linux, without the names that Windows lacks
	CANBROKER_AS_WINDOWS=tests PYTHONPATH=$(CURDIR)/tests/portable/start:$(CURDIR) $(BIN)/python -m pytest -n 2 --dist loadfile \
		$(or $(TESTS),tests/unit)

conformance: $(READY)  ## python-can's own tests against canbroker; CANBROKER_PYTHON_CAN names a checkout of it
	$(BIN)/python -m tests.conformance

ecosystem: $(ECOSYSTEM)  ## cantools, can-isotp, udsoncan, canopen and their own tests, python-can's writers
	$(BIN)/python -m pytest -m "" -n 2 --dist loadfile tests/ecosystem tests/docs/test_snippets.py tests/docs/test_metrics_page.py tests/unit/signals \
		tests/unit/broker/test_databases.py tests/unit/cli/test_lines.py \
		tests/integration/test_signals.py tests/integration/test_dump_signals.py
	$(BIN)/python -m pytest -k "arrow or parquet or mf4 or signal or trigger" tests/unit/logs tests/unit/cli/test_convert.py \
		tests/unit/actors/recorder
	$(BIN)/python -m pytest tests/unit/integrations tests/integration/test_nats_exactly_once.py

firmwares: $(READY)  ## contracts, and 5,000 frames out and 20,000 in with actors killed, over each slcan firmware
	CANBROKER_ALL_FIRMWARES=1 $(BIN)/python -m pytest -m "" -n 2 --dist loadfile --timeout 300 \
		-k slcan tests/contract/test_backend.py tests/contract/test_interfaces.py tests/contract/test_unplug.py
	CANBROKER_FIRMWARE_FRAMES=10 $(BIN)/python -m pytest -m "" --timeout 300 tests/integration/test_firmwares.py

# A process that is killed reports nothing, so the true figure is a little higher. The report comes
# also when a test has failed.
coverage: $(READY)  ## lines and branches that unit, contract and integration tests reach, or TESTS, in all processes
	$(BIN)/coverage erase
	status=0; $(BIN)/coverage run -m pytest -m "" -n 2 --dist loadfile --timeout 300 \
		$(or $(TESTS),tests/unit tests/contract tests/integration) || status=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$status

##@ Long runs

test-long: $(READY)  ## the tests that make test leaves out: kills, crowds, attacks, every adapter; before an issue is closed
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 180 -m long

fuzz: $(FUZZ)  ## random input to every decoder, each its share of DURATION seconds
	$(BIN)/python -m tests.fuzz --duration $(DURATION)

soak: $(READY)  ## full traffic with random faults for DURATION seconds: memory, descriptors, ledger
	$(BIN)/python -m tests.soak --duration $(DURATION)

interruptions: $(READY)  ## 200 opens, shutdowns and others, interrupted by exceptions of a signal handler
	$(BIN)/python -m tests.interruptions --count 200

kills: $(READY)  ## COUNT brokers killed at random moments of their first two seconds
	$(BIN)/python -m tests.kills --count $(COUNT)

kills-record: $(ECOSYSTEM)  ## COUNT recorders of each format killed at random moments: every frame is in a file, or counted
	$(BIN)/python -m tests.recorder_kills --count $(COUNT)

kills-nats: $(READY)  ## DURATION seconds of NATS servers, bridges and channels killed: every frame is in the stream once, or counted
	$(BIN)/python -m tests.nats_kills --duration $(DURATION)

crowd: $(READY)  ## a thousand clients of one channel, at a soft limit of 1024 open files
	CANBROKER_CROWD=1 $(BIN)/python -m pytest -m "" tests/integration/test_descriptors.py -k thousand_clients

##@ More measurements

bench-client: $(READY)  ## what a client loads: modules, memory, milliseconds
	$(BIN)/python -m benchmarks.client

bench-portable: $(BENCH)  ## canbroker natively and in portable mode, in turns: rates, latencies, costs
	$(BIN)/python -m benchmarks --portable $(BENCH_OPTIONS)

# All in one Python, as a newer one is faster.
bench-rivals:  ## as bench, and sockcan, which needs Python 3.12: in an environment of its own
	$(RIVALS_PYTHON) -m venv $(RIVALS)
	$(LOCKED) $(RIVALS)/bin/python $(PIP_INSTALL) --editable '.[bench,bench-rivals]'
	$(RIVALS)/bin/python -m benchmarks $(BENCH_OPTIONS)

bench-periodic: $(READY)  ## how regular periodic tasks are, beside python-can's; draws a picture
	$(BIN)/python -m benchmarks.periodic

bench-record: $(READY)  ## what recording two full buses costs, beside python-can's logger on the same traffic
	$(BIN)/python -m benchmarks.record

bench-nats: $(READY)  ## what the bridge to NATS costs, live and with a backlog, and how much it can publish
	$(BIN)/python -m benchmarks.nats

bench-replay: $(READY)  ## errors of replayed times, beside python-can's player, and canplayer where there is CAN
	$(BIN)/python -m benchmarks.replay

bench-socketcan: $(READY)  ## python-can's SocketCAN beside canbroker; without CAN: tools/can-vm -- make bench-socketcan
	$(BIN)/python -m benchmarks.socketcan

bench-web: $(READY)  ## a full bus with 300 identifiers and four open pages: others' latency, processor time
	$(BIN)/python -m benchmarks.web

bench-scale: $(BENCH)  ## what 1 to 64 channels cost, and 1 to 256 clients of one; draws a picture
	$(BIN)/python -m benchmarks.scale

bench-small: $(READY)  ## four adapters on a part of one processor: latency, and nothing may be lost
	$(BIN)/python -m benchmarks.small

bench-fleet: $(READY)  ## what fifty benches cost one NATS server and a consumer
	$(BIN)/python -m benchmarks.fleet

bench-stopped: $(READY)  ## what others notice while a client that was stopped catches up
	$(BIN)/python -m benchmarks.stopped

bench-vendor: $(READY)  ## python-can's PCAN bus beside canbroker on one double of an adapter; needs gcc
	$(BIN)/python -m benchmarks.vendor

##@ Publishing

# Each is installed as a user would, with the newest of what it depends on, and runs outside of this
# directory, whose packages Python would prefer.
release: $(RELEASE)  ## sdist and wheel in dist/, checked by twine and by the demo from an empty environment
	rm -rf dist
	$(LOCKED) $(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	set -e; for file in dist/*; do \
		$(PYTHON) -m venv --clear $(INSTALLED); \
		$(INSTALLED)/$(SCRIPTS)/python $(PIP_INSTALL) "$$file"; \
		(cd $(INSTALLED) && $(SCRIPTS)/canbroker --version && $(SCRIPTS)/canbroker demo --speed 0); \
	done
	rm -r $(INSTALLED)
	ls -l dist
