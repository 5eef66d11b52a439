# make demo: install and run the main job on built-in data.
# make check: what a change should pass before a commit, in a minute or so.   make test: every check and every test.
# make docs: the site, in build/site.   All install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -q

# What a plain `pip install` is worth: masks of photos in an environment of its own, its size, seconds and memory; then
# the server, as the Dockerfile installs it.
LIGHT := .venv-light

# Annotation tools' own packages, which read what fewseg writes; they take other versions of numpy and pillow.
TOOLS := .venv-tools

.PHONY: light tools demo check test fast-tests lint types imports security audit docs clean

demo: $(VENV)/.installed
	@out=runs/demo; n=1; while [ -e $$out ]; do n=$$((n + 1)); out=runs/demo-$$n; done; $(BIN)/fewseg demo --out $$out

check: $(VENV)/.installed-dev
	$(MAKE) -j 2 lint types imports fast-tests

fast-tests: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow and not browser and not distributed and not gpu"

test: lint types imports security tools
	$(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

security: $(VENV)/.installed-dev
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

# Known vulnerabilities of what is installed; what the index's service does not know, or where it is not reached, is said.
audit: $(VENV)/.installed-dev
	@$(BIN)/pip-audit --skip-editable --progress-spinner off --timeout 20 > $(VENV)/audit.txt 2>&1; code=$$?; \
	grep -v "could not be audited" $(VENV)/audit.txt; \
	if unknown=$$(grep -c "could not be audited" $(VENV)/audit.txt); then echo "not audited, as the service does not know them: $$unknown packages"; fi; \
	if [ $$code -ne 0 ] && ! grep -q "known vulnerabilit" $(VENV)/audit.txt; then \
	  echo "audit skipped: the service of known vulnerabilities was not reached"; \
	else exit $$code; fi

tools: $(TOOLS)/.installed

# The pages of docs/ as a site, and in it the page that `fewseg web` writes where its runtime can be had.
docs: $(VENV)/.installed-dev
	@$(BIN)/python docs/site/build.py build/site

light:
	rm -rf $(LIGHT)
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install --quiet .
	$(LIGHT)/bin/python .ci/light.py
	$(LIGHT)/bin/python benchmarks/light.py --runtimes graphs --rounds 1 --photos 5
	du -sh $(LIGHT)
	$(LIGHT)/bin/python -m pip install --quiet '.[serve]'
	$(LIGHT)/bin/python .ci/serve.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing fewseg into $(VENV) (PyTorch is large: this takes a few minutes)"
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing fewseg and its test tools into $(VENV) (PyTorch is large: this takes a few minutes)"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(TOOLS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --upgrade pip
	$(TOOLS)/bin/python -m pip install --quiet --group tools
	@touch $@

clean:
	rm -rf $(VENV) $(LIGHT) $(TOOLS) runs build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
