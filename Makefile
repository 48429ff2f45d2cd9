# README's two commands: `make demo` and `make test`. Both make .venv when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE=

.PHONY: demo test lint bench fuzz protos clean

$(VENV)/demo.stamp: setup.cfg pyproject.toml tools/build-tools
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("swarmp2p needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11")'
	tools/build-tools $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/swarmp2p demo $(ARGS)

# js-libp2p for tests/interop. Without it (no network, say) the other tests run all the same, and those tests say
# what to do.
JS := tests/interop/js
$(JS)/node_modules/complete: $(JS)/package-lock.json tools/js-peers $(VENV)/dev.stamp
	-tools/js-peers $(BIN)/python

test: $(VENV)/dev.stamp $(JS)/node_modules/complete
	$(BIN)/python -m pytest -n auto --maxschedchunk=1 $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --config setup.cfg

bench: $(VENV)/dev.stamp $(JS)/node_modules/complete
	$(BIN)/python -m benchmarks.dht --nodes 32 --json
	$(BIN)/python -m benchmarks.gossip --scenario all --runs 3 --json
	$(BIN)/python -m benchmarks.first_task --json
	$(BIN)/python -m benchmarks.mesh --json
	$(BIN)/python -m benchmarks.bridge --json

# For nightly runs: each decoder of bytes from outside, a minute each. ARGS='--seconds 600 --corpus FOLDER' for more.
fuzz: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python tools/fuzz/fuzz.py $(ARGS)

# Needs grpcio-tools 1.62: its protobuf 4.25 output is read by every runtime that setup.cfg allows.
protos:
	$(PYTHON) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. swarmp2p/dht/kad.proto swarmp2p/gossip/rpc.proto swarmp2p/peer_record.proto

clean:
	rm -rf $(VENV) build dist *.egg-info out $(JS)/node_modules $(JS)/.node
