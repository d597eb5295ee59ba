# Common tasks. Targets that need the environment make it first, which takes no time once it exists.

venv := .venv/bin/python

.PHONY: setup demo docs gallery pictures test test-all test-fast test-oldest lint house bench-training bench-recipes bench-noise bench-trust bench-fwhm bench-heartbeat bench-preview bench-remote bench-volume bench-speed bench-cluster peers bench-peers evidence soak fuzz clean

setup:
	@scripts/setup

# make demo INPUT=path/to/volume.tif runs it on a volume of your own.
demo: setup
	scripts/with-display $(venv) scripts/demo.py $(if $(INPUT),--input "$(INPUT)")

# The documentation, in site/; every warning is an error.
docs: setup
	$(venv) -m sphinx --fail-on-warning --keep-going -q -b html docs site

# Every state of the window, at two sizes and in both themes; ARGS="--docs" makes the pictures of docs again.
gallery: setup
	scripts/with-display $(venv) scripts/gallery.py $(ARGS)

# The other pictures of the window and of exactness: docs/start.md, docs/exactness.md and the animation of the README.
pictures: setup
	scripts/with-display $(venv) scripts/start_pictures.py
	scripts/with-display $(venv) scripts/preview_animation.py
	$(venv) scripts/exactness_pictures.py

lint: setup
	$(venv) -m ruff check
	$(venv) -m ruff format --check
	$(venv) -m mypy

# Two processes share the tests, with one thread each, also to draw: more threads than cores would wait for each other.
# The tests of the window then run again with the other binding of Qt: pytest-qt reads PYTEST_QT_API, napari QT_API.
# make test QT=pyside6 (or pyqt6) runs only these, with one binding.
# make test ARGS="-k spline -x" passes arguments on to pytest, ARGS="-n 0" runs it in one process; only one binding.
under = PYTEST_QT_API=$(1) QT_API=$(1) OMP_NUM_THREADS=1 LP_NUM_THREADS=1 \
    scripts/with-display $(venv) -m pytest -n 2 --dist worksteal
test: lint
	$(call under,$(or $(QT),pyqt6)) $(if $(QT),tests/gui) $(ARGS)
	$(if $(QT)$(ARGS),,$(call under,pyside6) tests/gui)

# Fast tests, in a minute: computing, storing and showing a result, and one window from Train to Save.
fast := core formats store compute view run/test_export.py
fast += gui/test_widgets.py::test_train_preview_volume_save
test-fast: setup
	$(venv) -m ruff check
	OMP_NUM_THREADS=1 scripts/with-display $(venv) -m pytest -n 2 --dist worksteal -m "not soak and not slow" \
	    $(addprefix tests/,$(fast)) $(ARGS)

# The same tests with the oldest supported versions; ARGS="-k spline" passes arguments on to pytest.
test-oldest:
	scripts/test-oldest $(addprefix tests/,$(fast)) $(ARGS)

# Draws the packages into docs/developers.md, with the files that an export and a viewport pass.
house: setup
	scripts/with-display $(venv) scripts/house.py

# make bench-training FULL=1 adds the other factors and training times; OUT=folder stores results and models elsewhere.
# If it is stopped, the same command resumes. The report is benchmarks/results/training.md, and training.json beside it.
bench-training: setup
	$(venv) benchmarks/training.py $(if $(FULL),--full) --out "$(or $(OUT),benchmark-output/training)"

# One setting changed at a time, and the suggested FWHM on volumes blurred by a known one.
bench-recipes: setup
	$(venv) benchmarks/recipes.py

# Intensities and noise: known truths with few photons, and real stacks; FULL=1 adds cameras, factors and widths. If it
# is stopped, the same command resumes.
bench-noise: setup
	$(venv) benchmarks/noise $(if $(FULL),--full) $(ARGS)

# How well expected errors hold: coverage on known truths, planted structures, and what is measured afterwards. It uses
# the models of bench-noise, and trains those that are missing. If it is stopped, the same command resumes; one part:
# make bench-trust ARGS="planted". About an hour and a half on one core.
bench-trust: setup
	$(venv) benchmarks/trust $(ARGS)

bench-fwhm: setup
	$(venv) benchmarks/fwhm.py

# How late the window responds while training, compared to idle napari; make bench-heartbeat SECONDS=10 for a quick look.
bench-heartbeat: setup
	scripts/with-display $(venv) benchmarks/heartbeat.py $(if $(SECONDS),--seconds $(SECONDS))

# How soon tiles are on the screen after a pan, how late the window responds meanwhile, and memory over many pans.
bench-preview: setup
	scripts/with-display $(venv) benchmarks/preview.py

# What a preview over HTTP costs: requests, bytes, and how late the window responds, compared to the same file here.
bench-remote: setup
	scripts/with-display $(venv) benchmarks/remote.py $(ARGS)

# Whole volumes: memory, throughput, the cost of a kill, opening a huge layer; make bench-volume ONLY="kill open".
bench-volume: setup
	scripts/with-display $(venv) benchmarks/volume.py $(if $(ONLY),--only $(ONLY))

# Ratios of speed, each taken side by side in one run: the paper's way, the network alone, MONAI, Dask. At most 30 minutes.
# MONAI is compared if it is installed: pip install --no-deps --target monai monai; PYTHONPATH=monai make bench-speed
bench-speed: setup
	$(venv) benchmarks/speed.py $(ARGS)

# Two workers with one thread each, compared to one process with two threads.
bench-cluster: setup
	$(venv) benchmarks/cluster.py

# The environments of the programs that bench-peers compares with.
peers:
	scripts/peers

# Other programs for the same job, with equal training times (make peers first). If it is stopped, the same command
# resumes; make bench-peers ARGS="--list" shows what is missing, ARGS="--budget 120" runs two hours.
bench-peers: setup
	$(venv) benchmarks/peers $(ARGS)

# The tables and pictures of docs/evidence.md; commands that have not been run yet are run first.
evidence: setup
	$(venv) benchmarks/evidence.py

# Fault-injection tests for export: kills, damage, full disks ... Every store must end equal, to the byte.
soak: setup
	OMP_NUM_THREADS=1 scripts/with-display $(venv) benchmarks/soak.py $(ARGS)
	$(if $(ARGS),,OMP_NUM_THREADS=1 $(venv) benchmarks/fuzz.py)

# 100,000 damaged files of all kinds; make fuzz ARGS="TIFF model --batches 1" for some. If it is stopped, it continues.
fuzz: setup
	OMP_NUM_THREADS=1 $(venv) benchmarks/fuzz.py $(ARGS)

# Everything: two hours on a slow machine.
test-all: test test-oldest soak

clean:
	rm -rf build dist site demo-output gallery-output benchmark-output .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
