# `make caption` and `make test` need Python 3.11 or later and nothing else; each makes its own virtual environment.
PYTHON ?= python3
RUNTIME := .venv-runtime
DEV := .venv

.PHONY: caption test lint docs release clean

# The install that a user gets: no torch. What pip says is shown only where it fails.
$(RUNTIME)/.done: pyproject.toml
	@echo "Setting up $(RUNTIME), once." >&2
	@$(PYTHON) -m venv $(RUNTIME)
	@$(RUNTIME)/bin/pip install --disable-pip-version-check --editable . >$(RUNTIME)/pip.log 2>&1 || { cat $(RUNTIME)/pip.log >&2; exit 1; }
	@touch $@

# Everything: training and the tools that check the code.
$(DEV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,serve,docs]' --group dev
	touch $@

caption: $(RUNTIME)/.done
	@$(RUNTIME)/bin/showtell caption examples/photos

lint: $(DEV)/.done
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	$(DEV)/bin/codespell

# The documentation as a site in build/site, which opens from disk. Warnings, such as a dead link, are errors.
docs: $(DEV)/.done
	$(DEV)/bin/python docs/site.py

# Wheel and sdist in dist, checked.
release: $(DEV)/.done
	rm -rf dist
	$(DEV)/bin/python -m build
	$(DEV)/bin/twine check --strict dist/*

test: lint
	$(DEV)/bin/pytest

clean:
	rm -rf $(RUNTIME) $(DEV) build dist
