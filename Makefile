# `make caption` and `make test` need Python 3.11 or later and nothing else; each makes its own virtual environment.
PYTHON ?= python3
RUNTIME := .venv-runtime
DEV := .venv

.PHONY: caption test lint clean

# The install that a user gets: no torch.
$(RUNTIME)/.done: pyproject.toml
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

# Everything: training and the tools that check the code.
$(DEV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(DEV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,serve]' --group dev
	touch $@

caption: $(RUNTIME)/.done
	$(RUNTIME)/bin/showtell caption examples/photos

lint: $(DEV)/.done
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

test: lint
	$(DEV)/bin/pytest

clean:
	rm -rf $(RUNTIME) $(DEV) build dist
