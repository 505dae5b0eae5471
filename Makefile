# The README's two commands. Each makes its own virtual environment once and uses it again until a dependency changes.
#
#   make demo   install the package, then: python -m ssmtheory.experiments.token_dynamics
#   make test   install the package with everything the tests use, then: pytest -q
#
# DEMO_ARGS and TEST_ARGS are passed on: make demo DEMO_ARGS="--text novel.txt", make test TEST_ARGS="tests/scan -x"
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check -c constraints.txt
# `python -m` in a checkout imports the checkout, so the install is editable: the C sources are compiled in place
BUILD := pyproject.toml setup.py constraints.txt $(wildcard ssmtheory/scan/*.[ch] ssmtheory/bench/*.c)
# idle OpenMP threads sleep rather than spin: on a busy machine spinning costs more than it saves
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test clean

demo: .venv/installed
	.venv/bin/python -m ssmtheory.experiments.token_dynamics $(DEMO_ARGS)

test: .venv-test/installed
	.venv-test/bin/python -m pytest -q $(TEST_ARGS)

.venv/installed: $(BUILD)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ssmtheory needs Python 3.11 or newer: make PYTHON=python3.12")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) --editable .
	@touch $@

.venv-test/installed: $(BUILD)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ssmtheory needs Python 3.11 or newer: make PYTHON=python3.12")'
	@test -x .venv-test/bin/python || $(PYTHON) -m venv .venv-test
	.venv-test/bin/python $(PIP_INSTALL) --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv .venv-test build
