# Each target is a line or two that a person would type. `make report PROFILE=quick` runs another profile.
PROFILE ?= demo
PYTHON ?= python3
BIN := .venv/bin

.PHONY: report test test-slow lab bench lint setup notebooks lock clean
report: setup
	$(BIN)/realign run $(PROFILE)

test: setup
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lab: setup
	$(BIN)/jupyter lab

bench: setup
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/test_notebooks.py -k pair

# The environment: made once, and again when the lock changes. Nothing is asked of the network when it stands.
setup: .venv/ready
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "realign needs Python 3.11 or newer; name one by: make PYTHON=python3.12")'
	@echo "installing the pinned packages into .venv (with the GPU build of torch some 3 GB to download; minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (realign)" >/dev/null
	@touch $@

# For maintainers: write the parameters cells from params/demo.yaml, and the .ipynb from the .py.
notebooks: setup
	$(BIN)/python -m realign_utils.notebook_files

# For maintainers: every version exact, for all platforms (needs uv).
lock:
	uv pip compile --universal --python-version 3.11 --all-extras pyproject.toml -o requirements.lock

# The results of a profile; what is in runs/store stays, so that a new run is quick.
clean:
	rm -rf runs/$(PROFILE) .pytest_cache .ruff_cache
