"""Imports point downwards only: read from sys.modules, which also knows the imports of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import napari_cropeq

PACKAGE = Path(napari_cropeq.__file__).parent

QT = ["PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy"]
WINDOW = ["napari", "magicgui", "superqt", "pyqtgraph", *QT, "napari_cropeq.gui"]
BIG_ARRAYS = ["dask", "distributed", "zarr", "tifffile", "nibabel", "napari_cropeq.volume"]


def modules_of(layer: str) -> list[str]:
    """Name the modules below napari_cropeq.<layer>, or the one module of that name, as the files on disk have it."""
    files = [*PACKAGE.glob(f"{layer}.py"), *(PACKAGE / layer).rglob("*.py")]
    names = (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)
    return sorted(name.removesuffix(".__init__") for name in names)


def loaded_by(module: str) -> set[str]:
    """Return every name in sys.modules after importing ``module`` in an interpreter of its own."""
    code = f"import sys, {module}\nprint(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


CASES = [
    ("napari_cropeq", [*WINDOW, *BIG_ARRAYS, "torch", "numpy", "scipy", "napari_cropeq.core", "napari_cropeq.cli"]),
    *((name, [*WINDOW, *BIG_ARRAYS, "napari_cropeq.cli"]) for name in modules_of("core")),
    *((name, [*WINDOW, "distributed", "napari_cropeq.cli"]) for name in modules_of("volume")),
    *((name, [*WINDOW, "distributed"]) for name in modules_of("cli*")),
    *((name, ["napari_cropeq.cli"]) for name in modules_of("gui")),
]


@pytest.mark.parametrize(("module", "forbidden"), CASES, ids=[name for name, _ in CASES])
def test_imports_nothing_above_its_layer(module: str, forbidden: list[str]) -> None:
    assert loaded_by(module).isdisjoint(forbidden)


@pytest.mark.parametrize("layer", ["core", "volume", "cli*", "gui"])
def test_no_layer_is_missed(layer: str) -> None:
    assert modules_of(layer)
