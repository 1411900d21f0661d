# Needs python3 (3.11 or newer) with pip, make and git. Everything is made inside this directory.
PYTHON ?= python3
PIP_ARGS ?=
TEST_ARGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := out/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs golden bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 10
	@echo
	@echo 'variables: PYTHON=python3.12, PIP_ARGS="options for pip install", TEST_ARGS="options for pytest", WORKERS=2'

install: $(INSTALLED)  ## make .venv and install shrink in it, with the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: this is Python " + sys.version.split()[0] + "\n  why: 3.11 or newer is needed\n  fix: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' $(PIP_ARGS)
	$(BIN)/python -m pip check
	@touch $@

demo: $(INSTALLED)  ## export the demo CNN and ViT to int8, verify them, classify a few images
	$(BIN)/shrink export --recipe recipes/fashion_cnn.toml --out $(DEMO)/cnn --force
	$(BIN)/shrink export --recipe recipes/fashion_vit.toml --out $(DEMO)/vit --force
	$(BIN)/shrink data unpack fashion-mnist $(DEMO)/images --count 10 > /dev/null
	$(BIN)/python -m device_runner classify $(DEMO)/cnn/tflite-int8 $(DEMO)/images
	$(BIN)/python -m device_runner classify $(DEMO)/vit/onnx-int8 $(DEMO)/images
	@echo
	@$(BIN)/shrink report $(DEMO)/cnn $(DEMO)/vit > /dev/null
	@$(BIN)/shrink report $(DEMO)/vit $(DEMO)/cnn > /dev/null
	@echo 'Look at $(DEMO)/cnn/report.html and $(DEMO)/vit/report.html; the images: $(DEMO)/images.'

test: $(INSTALLED)  ## run the tests, but for the long measurements
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) $(TEST_ARGS)

lint: $(INSTALLED)  ## check style and types
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

docs: $(INSTALLED)  ## write docs/cli.md anew from the command line's own help
	$(BIN)/python docs/generate_cli.py

golden: $(INSTALLED)  ## write the golden reports of the tests anew
	$(BIN)/python tests/report/report_golden.py

bench: $(INSTALLED) demo  ## run the benchmarks, but for the whole zoo; about an hour, on a machine that does nothing else
	$(BIN)/python -m benchmarks.demo
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.export_cost
	$(BIN)/python -m benchmarks.zoo --set a
	$(BIN)/python -m benchmarks.runner --bundle $(DEMO)/cnn/tflite-int8
	$(BIN)/python -m benchmarks.report

clean:  ## remove .venv, caches and everything in out/
	rm -rf $(VENV) out build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
