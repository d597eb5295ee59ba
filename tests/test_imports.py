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
WINDOW = ["napari", "magicgui", "superqt", "pyqtgraph", *QT, "napari_cropeq.gui"]
BIG_ARRAYS = ["dask", "distributed", "zarr", "tifffile", "nibabel", "napari_cropeq.volume"]
METHOD = ["torch", "numpy", "scipy", "napari_cropeq.core"]
PICTURES = ["matplotlib", "napari_cropeq.evidence"]


def modules_of(layer: str) -> list[str]:
    """Name the modules below napari_cropeq.<layer>, or the one module of that name, as the files on disk have it."""
    files = [*PACKAGE.glob(f"{layer}.py"), *(PACKAGE / layer).rglob("*.py")]
    names = (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)
    return sorted(name.removesuffix(".__init__") for name in names)


# Imports each module in a child of its own; what none of them may be blamed for is imported once, in their parent.
LOADER = """
import importlib, json, os, sys
layer, *modules = sys.argv[1:]
if layer != "napari_cropeq":
    import numpy, safetensors, scipy.ndimage, torch
if layer in ("volume", "evidence", "gui", "cli*"):
    import dask.array, tifffile, zarr
if layer == "evidence":
    import matplotlib.figure, skimage.metrics
if layer == "gui":
    import napari, napari.layers, napari.utils, magicgui.widgets, pyqtgraph
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

LAYERS = {
    "napari_cropeq": [*WINDOW, *BIG_ARRAYS, *PICTURES, "torch", "numpy", "scipy"]
    + [f"napari_cropeq.{n}" for n in ("core", "cli")],
    "core": [*WINDOW, *BIG_ARRAYS, *PICTURES, "napari_cropeq.cli.main"],
    "volume": [*WINDOW, *PICTURES, "distributed", "napari_cropeq.cli.main"],
    "evidence": [*WINDOW, "distributed", "napari_cropeq.cli.main"],
    "cli*": [*WINDOW, "distributed", "matplotlib"],
    "gui": ["napari_cropeq.cli.main"],
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
@pytest.mark.parametrize(("layer", "forbidden"), LAYERS.items(), ids=LAYERS)
def test_imports_nothing_above_its_layer(layer: str, forbidden: list[str]) -> None:
    modules = modules_of(layer) or ["napari_cropeq"]
    run = subprocess.run([sys.executable, "-c", LOADER, layer, *modules], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    loaded = dict(json.loads(line) for line in run.stdout.splitlines())
    assert list(loaded) == modules
    assert {name: found for name, names in loaded.items() if (found := sorted(set(forbidden) & set(names)))} == {}


@pytest.mark.parametrize("layer", ["core", "volume", "evidence", "cli*", "gui"])
def test_no_layer_is_missed(layer: str) -> None:
    assert modules_of(layer)
