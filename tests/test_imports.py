"""Imports point downwards only: read from sys.modules, which also knows the imports of imports."""

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
    "cli": [*WINDOW, *CLUSTER, "matplotlib"],
    "gui": [],
}
"""The packages from the ground up, and which libraries none of their modules loads."""

ROOT_MODULES = {
    "napari_cropeq": [*WINDOW, *CLUSTER, *PICTURES, *FILES, *METHOD, "numpy", "scipy"],
    "napari_cropeq.errors": [*WINDOW, *CLUSTER, *PICTURES, *FILES, *METHOD, "numpy", "scipy"],
}

# Imports each module in a child of its own; what none of them may be blamed for is imported once, in their parent.
LOADER = """
import importlib, json, os, sys
common, *modules = sys.argv[1:]
for name in filter(None, common.split(",")):
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
"""

COMMON = {
    "core": "numpy,safetensors,scipy.ndimage,torch",
    "formats": "numpy,scipy.ndimage,dask.array,tifffile,zarr",
    "store": "numpy,scipy.ndimage,dask.array,tifffile,zarr",
    "gui": "numpy,scipy.ndimage,torch,dask.array,tifffile,zarr,napari.layers,napari.utils,magicgui.widgets,pyqtgraph",
}
DEFAULT = "numpy,scipy.ndimage,torch,dask.array,tifffile,zarr"
COMMON["evidence"] = f"{DEFAULT},matplotlib.figure,skimage.metrics"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def modules_of(floor: str) -> list[str]:
    """Return the names of the modules below ``napari_cropeq.<floor>``, as the files on disk have them."""
    names = (".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts) for f in (PACKAGE / floor).rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in names)


def loaded_by(modules: list[str], common: str) -> dict[str, set[str]]:
    """Return the modules that importing each of ``modules`` has loaded."""
    run = subprocess.run([sys.executable, "-c", LOADER, common, *modules], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    found = dict(json.loads(line) for line in run.stdout.splitlines())
    assert list(found) == modules
    return {name: set(loaded) for name, loaded in found.items()}


@needs_fork
@pytest.mark.parametrize("floor", FLOORS)
def test_imports_nothing_above_its_floor(floor: str) -> None:
    floors = list(FLOORS)
    above = ["cli"] if floor == "gui" else floors[floors.index(floor) + 1 :]
    forbidden = {*FLOORS[floor], *(f"napari_cropeq.{name}" for name in above)}
    modules = modules_of(floor)
    assert modules, "no floor is missed"
    loaded = loaded_by(modules, COMMON.get(floor, DEFAULT))
    assert {name: found for name, names in loaded.items() if (found := sorted(forbidden & names))} == {}


@needs_fork
@pytest.mark.parametrize(("module", "forbidden"), ROOT_MODULES.items(), ids=ROOT_MODULES)
def test_the_root_is_light(module: str, forbidden: list[str]) -> None:
    loaded = loaded_by([module], "")[module]
    assert sorted(loaded & {*forbidden, *(f"napari_cropeq.{name}" for name in FLOORS)}) == []


def test_every_package_has_a_floor() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(FLOORS)
