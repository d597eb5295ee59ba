# The usual errands. Every target that needs the environment makes it first, which takes no time once it is there.

venv := .venv/bin/python

.PHONY: setup demo test lint bench-heartbeat clean

setup:
	@scripts/setup

# make demo INPUT=path/to/volume.tif runs it on a volume of your own.
demo: setup
	scripts/with-display $(venv) scripts/demo.py $(if $(INPUT),--input "$(INPUT)")

lint: setup
	$(venv) -m ruff check
	$(venv) -m ruff format --check
	$(venv) -m mypy

# make test ARGS="-k spline -x" passes arguments on to pytest.
test: lint
	scripts/with-display $(venv) -m pytest $(ARGS)

# How late the window is while training, against idle napari; make bench-heartbeat SECONDS=10 for a quick look.
bench-heartbeat: setup
	scripts/with-display $(venv) benchmarks/heartbeat.py $(if $(SECONDS),--seconds $(SECONDS))

clean:
	rm -rf build dist demo-output benchmark-output .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
