"""Follow a source through an export, or a viewport to its first tile, and print the files of the package on the way.

A real run is traced. A file is on the way if one of its functions takes or returns a followed object, or an object made
from one: for an export the image and its super-resolution, for a viewport the view, its tile requests and their boxes.
The arithmetic of boxes in ``core``, which everything uses, and the lazy layer, which napari reads at each redraw, are
left out.
Usage: python scripts/trip.py [export|viewport]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "napari_cropeq"
sys.path.insert(0, str(PACKAGE.parent))  # trace this checkout, even if another one is installed
GROUND = ("core/geometry.py", "core/network_grid.py", "core/spline.py", "core/tiles.py", "view/lazy.py")
FOLLOWED = {
    "export": ("Image", "SuperResolution"),
    "viewport": ("View", "TileRequest", "Box"),
}
WAIT_SECONDS = 60
LIMIT = {"export": 10, "viewport": 8}


class Trip:
    """The files whose functions took or returned a followed object, in order of the first time."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self._known: dict[CodeType, str | None] = {}
        self._carriers: dict[int, object] = {}  # keeps them alive, so that their ids are not reused
        self.stops: dict[str, str] = {}  # file: the function that was called first
        self.on = False

    def __call__(self, frame: FrameType, event: str, returned: Any) -> None:
        """Record a call or a return; this is the profile function."""
        if event not in ("call", "return") or not self.on:
            return
        code = frame.f_code
        file = self._file(code)
        making = code.co_name == "__init__"
        if file is None and not making:
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values = [frame.f_locals.get(name) for name in names]
        if event == "call" and making and any(map(self._is_followed, values[1:])) and is_ours(values[0]):
            self._carriers[id(values[0])] = values[0]
        handed = [returned] if event == "return" else values
        if file is not None and file not in self.stops and any(map(self._is_followed, handed)):
            self.stops[file] = code.co_qualname

    def _file(self, code: CodeType) -> str | None:
        """Return the file of the package that contains the code, or None if it is elsewhere."""
        if code not in self._known:
            path = Path(code.co_filename)
            file = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None
            self._known[code] = None if file in GROUND else file
        return self._known[code]

    def _is_followed(self, value: object) -> bool:
        return type(value).__name__ in self._kinds or id(value) in self._carriers


def is_ours(value: object) -> bool:
    """Return whether the class of an object is defined in the package."""
    return type(value).__module__.startswith("napari_cropeq.")


@contextmanager
def traced(trip: Trip) -> Iterator[None]:
    """Trace this thread and those started meanwhile, once the trip is switched on."""
    threading.setprofile(trip)
    sys.setprofile(trip)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        trip.on = False


def a_stack(folder: Path) -> Path:
    """Write a small stack, and return its path."""
    import tifffile

    voxels = np.random.default_rng(0).integers(0, 4000, (24, 96, 128)).astype(np.uint16)
    size = {"PhysicalSizeZ": 2.5, "PhysicalSizeY": 1.0, "PhysicalSizeX": 1.0}
    path = folder / "stack.ome.tif"
    tifffile.imwrite(path, voxels, metadata={"axes": "ZYX", **size}, photometric="minisblack")
    return path


def a_model(factor: float = 2.5) -> Any:
    """Return a model with random weights."""
    from napari_cropeq.core.geometry import Acquisition
    from napari_cropeq.core.model import Model
    from napari_cropeq.core.network import build_network, subpositions_for
    from napari_cropeq.core.normalisation import Normalisation

    network = build_network("subpixel", 8, 3, 3, subpositions_for("subpixel", factor))
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    return Model(network, Acquisition((factor, 1.0, 1.0)), [Normalisation(0.0, 4000.0)])


def export(folder: Path, trip: Trip) -> None:
    """Export a stack by the command line."""
    from napari_cropeq.cli.main import main

    a_model().save(folder / "model.safetensors")
    words = ["export", a_stack(folder), "-m", folder / "model.safetensors", "-o", folder / "out.ome.zarr"]
    with traced(trip):
        trip.on = True
        code = main([*map(str, words), "--device", "cpu"])
    assert code == 0 and (folder / "out.ome.zarr").is_dir()


def viewport(folder: Path, trip: Trip) -> None:
    """Preview in a real window, move to another slice, and wait for its first tile."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_cropeq.gui import jobs

    jobs.lower_priority = lambda: None  # with idle priority, work would hardly proceed beside other programs
    viewer = napari.Viewer()
    viewer.open(a_stack(folder), plugin="napari-cropeq")
    preview = viewer.window.add_plugin_dock_widget("napari-cropeq", "Preview")[1].panels["Preview"]
    preview.session.use_model(a_model(), "a model")

    def wait_until(true: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not true():
            QApplication.processEvents()
            time.sleep(0.01)
            if time.monotonic() > end:
                raise TimeoutError("the preview does not end")

    with traced(trip):
        preview.buttons["preview"].native.click()
        wait_until(lambda: preview.result is not None and preview.result.state.computed > 0)
        wait_until(lambda: not preview.result.busy)
        computed, trip.on = preview.result.state.computed, True
        viewer.dims.set_point(0, 0.0)
        wait_until(lambda: preview.result.state.computed > computed)
    viewer.close()


TRIPS: dict[str, Callable[[Path, Trip], None]] = {"export": export, "viewport": viewport}


def main(names: list[str]) -> int:
    """Print the trips and return 1 if one has too many files."""
    code = 0
    for name in names or list(TRIPS):
        trip = Trip(FOLLOWED[name])
        with tempfile.TemporaryDirectory() as folder:
            TRIPS[name](Path(folder), trip)
        if not trip.stops:
            raise RuntimeError(f"the trace of the {name} is empty")
        print(f"{name}: {len(trip.stops)} files (at most {LIMIT[name]})")
        for file, function in trip.stops.items():
            print(f"  {file:34} {function}")
        code |= len(trip.stops) > LIMIT[name]
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
