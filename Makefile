# One command per job. Each creates what it needs: a virtual environment in .venv, with this package in it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test check bench fuzz man clean help

help:
	@echo 'make quickstart   the whole story on this machine, cleaned up afterwards'
	@echo 'make test         types, style and every test'
	@echo 'make bench        one table of measurements'
	@echo 'make fuzz         every reader of foreign octets against random ones'
	@echo 'make man          the manual pages, from what --help says'
	@echo 'make clean        remove what make has made'

quickstart: $(VENV)/installed
	@$(BIN)/albatross-quickstart $(QUICKSTART_OPTIONS)

test: $(VENV)/installed-test check
	$(BIN)/python -m pytest -W error

check: $(VENV)/installed-test
	$(BIN)/python -m mypy albatross_pki bench fuzz man tests
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

bench: $(VENV)/installed-test
	$(BIN)/python -m bench $(BENCH)

man: $(VENV)/installed-test
	$(BIN)/python -m man

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# the marks are newer than pyproject.toml when what it asks for is installed
$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV) ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV), with what the tests need ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,pkcs11]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-fuzz: pyproject.toml | $(VENV)/installed-test
	@echo 'installing into $(VENV), with the fuzzer ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,pkcs11,fuzz]'
	@touch $@

FUZZ_SECONDS ?= 60

fuzz: $(VENV)/installed-fuzz
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info fuzz-findings
