# `make demo` and `make test` are the README's two commands; both use one .venv, remade when
# what is installed changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint site clean

.venv/.stamp: pyproject.toml hatch_build.py sammed_data/_planes.c
	$(PYTHON) -c 'import sys; sys.exit("sammed needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: .venv/.stamp
	$(BIN)/sammed demo

lint: .venv/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2

site: .venv/.stamp  # the pages of docs/ and the API, in ./site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf .venv demo site
