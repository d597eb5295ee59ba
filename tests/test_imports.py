"""Imports point downwards only; sys.modules also shows indirect imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import napari_cropeq

PACKAGE = Path(napari_cropeq.__file__).parent

QT = ["PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy"]
WINDOW = ["napari", "magicgui", "superqt", "pyqtgraph", *QT]
FILES = ["dask", "zarr", "tifffile", "nibabel"]
CLUSTER = ["distributed"]
METHOD = ["torch", "safetensors"]
PICTURES = ["matplotlib", "skimage"]

FLOORS = {
    "core": [*WINDOW, *CLUSTER, *PICTURES, *FILES, "filelock", "rich"],
    "formats": [*WINDOW, *CLUSTER, *PICTURES, *METHOD, "filelock", "rich"],
    "store": [*WINDOW, *CLUSTER, *PICTURES, *METHOD, "nibabel", "rich"],
    "compute": [*WINDOW, *CLUSTER, *PICTURES, "rich"],
    "view": [*WINDOW, *CLUSTER, *PICTURES, "rich"],
    "run": [*WINDOW, *CLUSTER, *PICTURES, "rich"],
    "evidence": [*WINDOW, *CLUSTER],
    "api": [*WINDOW, *CLUSTER, "matplotlib"],
    "cli": [*WINDOW, *CLUSTER, "matplotlib"],
    "gui": [],
}
"""The packages from the ground up, and which libraries none of their modules loads."""

ROOT_MODULES = {
    "napari_cropeq": [*WINDOW, *CLUSTER, *PICTURES, *FILES, *METHOD, "numpy", "scipy"],
    "napari_cropeq.errors": [*WINDOW, *CLUSTER, *PICTURES, *FILES, *METHOD, "numpy", "scipy"],
    "napari_cropeq.short_repr": [*WINDOW, *CLUSTER, *PICTURES, *FILES, *METHOD, "numpy", "scipy"],
}

# Imports each module in its own child process, floor by floor. To save time, allowed libraries are imported first, in
# the parent, and modules that have passed are imported there for the floors above.
LOADER = """
import importlib, json, os, sys
for common, modules, keep in json.loads(sys.argv[1]):
    for name in common:
        importlib.import_module(name)
    for module in modules:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            importlib.import_module(module)
            print(json.dumps([module, sorted(sys.modules)]), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{module} cannot be imported")
    for module in modules if keep else ():
        importlib.import_module(module)
"""

WINDOW_PARTS = [
    "napari.layers",
    "napari.utils",
    "napari.viewer",
    "magicgui.widgets",
    "pyqtgraph",
    "superqt",
    "vispy.scene",
]
CORE = [(["numpy", "safetensors", "scipy.ndimage", "scipy.optimize", "torch"], "core", False)]
OTHERS = [
    (["numpy", "scipy.ndimage", "dask.array", "tifffile", "zarr"], "formats", True),
    ([], "store", True),
    (["scipy.optimize", "torch"], "compute", True),
    ([], "view", True),
    ([], "run", True),
    ([], "api", False),
    ([], "cli", False),
    (["matplotlib.figure", "skimage.metrics"], "evidence", True),
    (WINDOW_PARTS, "gui", False),
]
"""What is imported first, the floor, and whether it is imported for those after it: by one process, in this order."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def modules_of(floor: str) -> list[str]:
    """Return the names of the modules below ``napari_cropeq.<floor>``, as the files on disk have them."""
    names = (".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts) for f in (PACKAGE / floor).rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names)


def loaded_by(steps: list[tuple[list[str], list[str], bool]]) -> dict[str, set[str]]:
    """Return the modules that importing each of the modules of ``steps`` has loaded."""
    command = [sys.executable, "-c", LOADER, json.dumps(steps)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    found = dict(json.loads(line) for line in run.stdout.splitlines())
    assert list(found) == [module for _, modules, _ in steps for module in modules]
    return {name: set(loaded) for name, loaded in found.items()}


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Return what each module of the package has loaded."""
    steps = [[(common, modules_of(floor), keep) for common, floor, keep in part] for part in (CORE, OTHERS)]
    return loaded_by(steps[0]) | loaded_by(steps[1])


@needs_fork
@pytest.mark.parametrize("floor", FLOORS)
def test_imports_nothing_above_its_floor(floor: str, loaded: dict[str, set[str]]) -> None:
    floors = list(FLOORS)
    above = ["cli"] if floor == "gui" else floors[floors.index(floor) + 1 :]
    forbidden = {*FLOORS[floor], *(f"napari_cropeq.{name}" for name in above)}
    modules = modules_of(floor)
    assert modules, "the floor has modules"
    assert {name: found for name in modules if (found := sorted(forbidden & loaded[name]))} == {}


@needs_fork
@pytest.mark.parametrize(("module", "forbidden"), ROOT_MODULES.items(), ids=ROOT_MODULES)
def test_the_root_is_light(module: str, forbidden: list[str]) -> None:
    loaded = loaded_by([([], [module], False)])[module]
    assert sorted(loaded & {*forbidden, *(f"napari_cropeq.{name}" for name in FLOORS)}) == []


def test_every_package_has_a_floor() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(FLOORS)
