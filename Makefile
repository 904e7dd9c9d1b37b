# Python and make are all that a machine needs; everything is installed into .venv inside the tree.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UNIT := .venv-unit

.PHONY: run unit test coverage clients lint lock audit

# One lock for Linux and macOS, Python 3.11 and newer. What is locked stays; `make lock UPGRADE=--upgrade` takes what is new.
LOCK := pip compile pyproject.toml --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet $(UPGRADE)

run: $(VENV)/.installed
	@$(BIN)/python manage.py quickstart

# The tests that need no server, database, SDK or browser, in an environment of their own: tests/unit.py has the rules.
unit: $(UNIT)/.installed
	@$(UNIT)/bin/python -m pytest --unit --numprocesses auto --quiet $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

# Which lines the tests run, server processes included. Slower than `make test`, which measures nothing.
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html:build/coverage $(ARGS)

clients: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.agents $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py makemigrations --check --dry-run

lock: $(VENV)/.installed-dev
	$(BIN)/uv $(LOCK) --output-file requirements.lock
	$(BIN)/uv $(LOCK) --all-extras --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(BIN)/uv $(LOCK) --group unit --constraint requirements-dev.lock --output-file requirements-unit.lock

audit: $(VENV)/.installed-dev
	@$(BIN)/python .ci/audit.py

$(VENV)/bin/python $(UNIT)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "AIPassport needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	@echo "Installing into $(@D:/bin=) …"
	@$(PYTHON) -m venv $(@D:/bin=)

$(VENV)/.installed: requirements.lock | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@ $(VENV)/.installed

$(UNIT)/.installed: requirements-unit.lock | $(UNIT)/bin/python
	@$(UNIT)/bin/python -m pip install --quiet --require-hashes -r requirements-unit.lock
	@touch $@
