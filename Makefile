# Everything happens in .venv here; PYTHON chooses the interpreter it is made from.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test campaign nightly coverage format notebooks docs clean

demo: .venv/.installed
	$(BIN)/gradledger adapt --output gradledger-out/demo
	$(BIN)/gradledger predict gradledger-out/demo/adapted.safetensors --data watch --sample 652

test: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4

# failures on purpose, under an hour; its figures go to docs/campaign.md
campaign: .venv/.installed-test
	$(BIN)/python -m validation.campaign

# up to two hours on two cores: an hour of drawn cases with new seeds (build/nightly.json tells how to see a failure
# again), the whole table of the snapshot, and every function of the table of equations broken on purpose
nightly: .venv/.installed-test
	$(BIN)/python -m validation.instruments.nightly
	$(BIN)/python -m validation.instruments.snapshot
	$(BIN)/gradledger reproduce mutants --output validation/results

# which lines the tests run, kernel bodies included, into validation/results/coverage.json
coverage: .venv/.installed-test
	$(BIN)/python -m validation.instruments.covered

format: .venv/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: .venv/.installed-test
	$(BIN)/python tools/notebooks.py

# the site, into build/site; a link that leads nowhere ends it
docs: .venv/.installed-docs
	$(BIN)/python -m mkdocs build --strict

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/.installed-test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ .venv/.installed .venv/.installed-docs

.venv/.installed-docs: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@ .venv/.installed

clean:
	rm -rf .venv build *.egg-info
