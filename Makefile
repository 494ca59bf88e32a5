# wm_ros without a ROS installation: every target sets up what it needs. On a ROS 2 machine use colcon (README).
PYTHON ?= $(firstword $(shell command -v python3.11 python3 python))
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
# Data, messages and nodes of a test or a demo stay on this machine and in this checkout.
export ROS_LOG_DIR ?= $(CURDIR)/build/ros_log
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
# One thread for each process: nodes and tests run side by side on two cores, and waiting threads would burn them.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test check unit node real bench baselines samples lock clean

help:            ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(READY)  ## make .venv with everything pinned (about two minutes; nothing to do the second time)

$(READY): requirements.lock requirements-ros.lock setup.py setup.cfg $(wildcard wm_ros/lidar/sparse/*.[ch])
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or say make PYTHON=…"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "the ROS wheels are for Python 3.11: say make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-ros.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: setup      ## play the sample bags through the running nodes; report in build/demo/report.html
	$(BIN)/wm demo --out build/demo --force

test: setup check unit node real  ## linters, types and all tests

check: setup     ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup      ## tests without ROS
	$(BIN)/pytest test/unit

node: setup      ## tests with real nodes over real DDS
	$(BIN)/pytest test/node

real: setup      ## tests on real recordings (skipped where the folder WM_DATA is absent)
	$(BIN)/pytest test/real_data

baselines: setup ## each model against its baselines on 20 simulated scenes it has not seen, with intervals
	$(BIN)/wm eval 'sim:drive?seeds=300000-300019&seconds=3.5&beams=64&azimuths=1800' --out build/baselines/drive --force
	$(BIN)/wm eval 'sim:tabletop?seeds=300000-300019' --out build/baselines/tabletop --force
	$(BIN)/python tools/readme_figures.py

bench: setup     ## speed of each step, medians and p95
	$(BIN)/wm bench --out build/bench.json

samples: setup   ## make the two sample bags again (same seed, same bytes)
	$(BIN)/python tools/make_samples.py

lock: setup      ## pin again what .venv holds
	$(BIN)/python tools/lock.py

clean:           ## remove what was built
	rm -rf build install log
