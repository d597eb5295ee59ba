"""What a preview of an OME-Zarr at an address costs: requests, bytes, seconds, and delays of the window.

A volume with a pyramid is served by another process, which counts requests and answers each after a delay. The same
volume is previewed from its folder and from its address, in turns and in the same window, along z (lateral view) and
along y (axial view). A heartbeat measures the window while the view is panned; see benchmarks/heartbeat.py.
Prints a table and writes results/remote.json.

    scripts/with-display python benchmarks/remote.py [--seconds 15] [--runs 3] [--delay 30]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import napari
import numpy as np
import zarr
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication

from heartbeat import Heartbeat, spin, summary
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.ome_zarr.write import Level, write_metadata
from napari_cropeq.formats.pyramid import level_shapes
from preview import FACTOR, PIXELS, VIEWS, model, wait

ROOT = Path(__file__).resolve().parents[1]
SHAPE, CHUNK = (128, 2048, 2048), (16, 256, 256)
PLUGIN = "napari-cropeq"
COUNTS = "/counts"


def serve(folder: Path, delay: float) -> None:
    """Serve a folder until the process is ended; the path COUNTS tells requests and bytes so far."""
    sys.path.insert(0, str(ROOT / "tests"))
    from web_server import serving

    def late(path: str, number: int) -> int | None:
        if path == COUNTS:
            (folder / "counts").write_text(json.dumps([len(served.answers), sum(n for *_, n in served.answers)]))
        else:
            time.sleep(delay)
        return None

    with serving(folder, fail=late) as served:
        print(served.url, flush=True)
        time.sleep(10**6)


class Server:
    """The other process."""

    def __init__(self, folder: Path, delay: float) -> None:
        command = [sys.executable, __file__, "--serve", str(folder), "--delay", str(1000 * delay)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self._asked = 0

    def counts(self) -> np.ndarray:
        """Return requests and bytes so far."""
        requests, size = json.loads(urllib.request.urlopen(self.url + COUNTS).read())
        self._asked += 1
        return np.array([requests - self._asked + 1, size])


def write(path: Path) -> int:
    """Write the volume with its levels, and return the bytes on disk."""
    rng, levels = np.random.default_rng(0), []
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for number, shape in enumerate(level_shapes(SHAPE)):
        factor = tuple(a / b for a, b in zip(SHAPE, shape, strict=True))
        levels.append(Level(str(number), factor, tuple((f - 1) / 2 for f in factor)))
        group.create_array(str(number), data=rng.integers(100, 4000, shape, dtype=np.uint16), chunks=CHUNK)
    write_metadata(path, ImageInfo("zyx", (FACTOR, 1.0, 1.0), "micrometer"), levels)
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class Window:
    """A viewer with one image and its preview."""

    def __init__(self, viewer: napari.Viewer, place: str) -> None:
        self.viewer = viewer
        viewer.layers.clear()
        (self.source,) = viewer.open(place, plugin=PLUGIN)
        self.panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Preview")[1].panels["Preview"]
        self.panel.layer.value = self.source
        self.panel.session.use_model(model(), "default network")

    def look(self, view: str) -> None:
        """Show the middle of the volume with ``PIXELS`` screen pixels a voxel, and wait until it is there."""
        self.viewer.dims.order = VIEWS[view]
        middle = self.source.data_to_world(np.array(self.source.data[0].shape) / 2)
        self.viewer.dims.point = middle
        self.viewer.scene.camera.zoom = PIXELS
        self.viewer.scene.camera.center = self.home = np.array(middle)[list(self.viewer.dims.order)]
        self.settle()

    def settle(self) -> None:
        """Wait until all layers are loaded, and all tiles in view computed."""
        spin(0.2)
        result = self.panel.result
        wait(lambda: all(layer.loaded for layer in self.viewer.layers) and not (result and result.looking))

    def begin(self) -> None:
        """Press Preview, and wait until the view is complete."""
        self.panel.buttons["preview"].native.click()
        wait(lambda: self.panel.result is not None and self.panel.result.layer in self.viewer.layers)
        self.settle()

    def pan(self, number: int) -> None:
        """Move the view by half of it, to places that were not seen before."""
        width = self.viewer.canvas.size[1] / PIXELS
        self.viewer.scene.camera.center = tuple(self.home + np.array([0, 0, 1]) * width / 2 * (number % 4 - 1.5))


def costs(viewer: napari.Viewer, server: Server, view: str) -> list[dict[str, Any]]:
    """Count what opening, looking, previewing and one pan ask of the server."""
    rows, last = [], server.counts()
    window: list[Window] = []
    steps = {
        "open": lambda: window.append(Window(viewer, f"{server.url}/a.zarr")),
        "show": lambda: window[0].look(view),
        "preview": lambda: window[0].begin(),
        "pan by half a view": lambda: (window[0].pan(3), window[0].settle()),
    }
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        seconds, now = time.perf_counter() - started, server.counts()
        requests, size = (int(n) for n in now - last)
        last = now
        rows.append({"view": view, "step": name, "requests": requests, "MB": round(size / 1e6, 2)})
        rows[-1]["s"] = round(seconds, 2)
        print(rows[-1], flush=True)
    return rows


def beats(viewer: napari.Viewer, place: str, where: str, view: str, seconds: float) -> list[dict[str, Any]]:
    """Measure the delays of the window while the view is panned: first without, then with a preview."""
    get_settings().experimental.async_ = False  # as napari is by default; an address changes it
    window, rows = Window(viewer, place), []
    window.look(view)
    number = [0]

    def move() -> None:
        number[0] += 1
        window.pan(number[0] // 10)

    heartbeat = Heartbeat(move)
    for kind in ("idle", "preview"):
        if kind == "preview":
            window.begin()
        rows.append({"where": where, "view": view, "kind": kind, **summary(heartbeat.run(seconds, lambda: None))})
        print(rows[-1], flush=True)
    window.panel.buttons["stop"].native.click()
    wait(lambda: not window.panel.result.busy)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each period")
    parser.add_argument("--runs", type=int, default=3, help="periods of each kind")
    parser.add_argument("--delay", type=float, default=30.0, help="of each answer, ms")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "remote.json")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.delay / 1000)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder) / "a.zarr")
        server = Server(Path(folder), options.delay / 1000)
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1500, 950)
        spin(2.0)
        try:
            rows = [row for view in ("lateral", "axial") for row in costs(viewer, server, view)]
            places = {"folder": f"{folder}/a.zarr", "address": f"{server.url}/a.zarr"}
            found = [
                row
                for _ in range(options.runs)
                for where, place in places.items()
                for row in beats(viewer, place, where, "axial", options.seconds)
            ]
        finally:
            server.process.terminate()
            QApplication.processEvents()
            viewer.close()
    medians = {
        f"{where}, {kind}": float(np.median([f["p99_ms"] for f in found if f["where"] == where and f["kind"] == kind]))
        for where in places
        for kind in ("idle", "preview")
    }
    report = {
        "volume": {"shape": SHAPE, "chunk": CHUNK, "MB": round(size / 1e6, 1)},
        "delay_ms": options.delay,
        "costs": rows,
        "median_p99_ms": medians,
        "heartbeats": found,
        "machine": describe_machine() | {"napari": napari.__version__},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(medians)


if __name__ == "__main__":
    main()
