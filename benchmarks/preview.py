"""Latency of the preview in a real window, and its cost for the window.

Two volumes (a light-sheet brain and a synthetic Dask layer of 200 GB) are viewed along y (axial, x) and along z
(lateral). Times are from the end of a pan to the screen: a tile counts when the canvas is drawn after the layer was
read again.
Prints tables and writes results/preview.json and results/preview.md.

    scripts/with-display python benchmarks/preview.py [--quick] [--only latency heartbeat memory]
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import napari
import numpy as np
import psutil
import torch
from qtpy.QtWidgets import QApplication

from heartbeat import Heartbeat, spin, summary
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.formats.image import Image
from napari_cropeq.gui.layers.viewport import view_of

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "napari-cropeq"
BRAIN = "mouse_brain_2ch_5x2x2um.ome.tif"
HUGE = (3000, 5774, 5774)  # 200 GB of uint16
FACTOR = 2.5
VIEWS = {"axial": (1, 0, 2), "lateral": (0, 1, 2)}
PIXELS = 2.0  # screen pixels a lateral voxel
LIMIT_MS = 30


class Synthetic:
    """A texture that takes almost no time to generate, in any region."""

    dtype, ndim = np.dtype(np.uint16), 3

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        return texture()[tuple(slice(r.start % 64, r.start % 64 + len(r)) for r in map(ranged, key, self.shape))].copy()


def ranged(key: slice, length: int) -> range:
    """Return the indices of a slice, which must be contiguous as chunks are."""
    found = range(length)[key]
    assert found.step == 1
    return found


@functools.cache
def texture() -> np.ndarray:
    """Return noise of period 64 from which any chunk can be cut."""
    rng = np.random.default_rng(0)
    return np.tile(rng.integers(100, 4000, (64, 64, 64)).astype(np.uint16), (2, 9, 9))


def huge() -> list[da.Array]:
    """Return the levels of the synthetic volume, in chunks of usual size."""
    shapes = [tuple(n >> level for n in HUGE) for level in range(5)]
    return [da.from_array(Synthetic(shape), chunks=(16, 512, 512), name=False, asarray=True) for shape in shapes]


def model() -> Model:
    """Return the default network with random weights, which do not affect its speed."""
    config = TrainingConfig()
    torch.manual_seed(0)
    subpositions = subpositions_for(config.network, FACTOR)
    network = build_network(config.network, config.filters, config.depth, config.kernel, subpositions)
    torch.nn.init.normal_(network.tail.weight, std=0.02)
    return Model(network, Acquisition((FACTOR, 1, 1)), [Normalisation(0.0, 4000.0)], correction=config.correction)


class Screen:
    """Records when the SR layer was read and the canvas drawn."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.read = self.drawn = 0.0
        self._canvas = viewer.window._qt_viewer.canvas._scene_canvas
        self._canvas.events.draw.connect(self._on_draw, position="last")
        self._layer: Any = None

    def watch(self, layer: Any) -> None:
        """Record when ``layer`` is read."""
        if layer is not self._layer:
            self._layer = layer
            layer.events.set_data.connect(self._on_read)

    def shows_since(self, moment: float) -> bool:
        """Return whether the canvas shows the layer as it was at ``moment`` or later."""
        return self.read >= moment and self.drawn >= self.read

    def _on_read(self, event: Any = None) -> None:
        self.read = time.perf_counter()

    def _on_draw(self, event: Any = None) -> None:
        self.drawn = time.perf_counter()


class Bench:
    """A viewer with a volume and its preview."""

    def __init__(self, viewer: napari.Viewer, volume: str, data: Path) -> None:
        self.viewer, self.volume = viewer, volume
        viewer.layers.clear()
        if volume == "brain":
            viewer.open(data / BRAIN, plugin=PLUGIN)
            viewer.layers.pop()
        else:
            # napari would read whole planes of a layer with one level: 18 GB of chunks for an axial plane.
            levels: Any = {"data": huge(), "multiscale": True, "contrast_limits": (0, 4000)}
            viewer.add_image(**levels, scale=(5, 2, 2), units=["um"] * 3, name="huge")
        self.source = viewer.layers[0]
        self.panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Preview")[1].panels["Preview"]
        self.panel.layer.value = self.source
        self.screen = Screen(viewer)

    def look(self, view: str) -> None:
        """Show the middle of the volume with ``PIXELS`` screen pixels per voxel."""
        self.viewer.dims.order = VIEWS[view]
        self.viewer.dims.ndisplay = 2
        data = self.source.data[0] if self.source.multiscale else self.source.data
        middle = np.array(data.shape) / 2
        self.viewer.dims.point = self.source.data_to_world(middle)
        camera = self.viewer.scene.camera
        camera.zoom = PIXELS / float(self.source.scale[-1])
        camera.center = self.centre = np.array(self.source.data_to_world(middle))[list(self.viewer.dims.order)]
        spin(0.5)

    def begin(self) -> float:
        """Press Preview, and return the seconds until the first tile is on the screen."""
        self.panel.session.use_model(model(), "default network")
        started = time.perf_counter()
        self.panel.buttons["preview"].native.click()
        wait(lambda: self.result is not None and self.result.layer in self.viewer.layers)
        self.screen.watch(self.result.layer)
        wait(lambda: self.finished[0] > 0)
        wait_since = time.perf_counter()
        self.result.shown._refresh_soon.throttle()
        wait(lambda: self.screen.shows_since(wait_since))
        return time.perf_counter() - started

    @property
    def result(self) -> Any:
        """Result of the preview."""
        return self.panel.result

    @property
    def finished(self) -> tuple[int, int]:
        """Number of finished tiles and of all tiles in view."""
        return self.result.state.in_view

    def place(self, number: int) -> np.ndarray:
        """Return a position half a viewport right or left of the middle, further down for each ``number``."""
        height, width = np.array(self.viewer.canvas.size) / self.viewer.scene.camera.zoom
        extent = np.ptp(np.array(self.source.extent.world), axis=0)[list(self.viewer.dims.order)]
        centre = self.centre.copy()
        centre[1] += (number * height / 7) % max(extent[1] / 2 - height / 2, 1e-9)
        centre[2] += (number % 2 - 0.5) * min(width, extent[2] / 2)
        return centre

    def pan(self, centre: np.ndarray) -> dict[str, Any]:
        """Pan, and return seconds until the first tile and until the whole viewport is on the screen."""
        before, started = self.result.state.computed, time.perf_counter()
        self.viewer.scene.camera.center = tuple(centre)
        out: dict[str, Any] = {}
        ready = first = 0.0
        while time.perf_counter() - started < 120:
            spin_once()
            now = time.perf_counter()
            settled = not self.result.follower.due
            if settled and not first and self.finished[0] > 0:
                first = now
            if first and "first" not in out and self.screen.shows_since(first):
                out["first"] = self.screen.drawn - started
            if settled and not ready and not self.result.looking:
                ready = now
            if ready and self.screen.shows_since(ready):
                out["full"] = self.screen.drawn - started
                break
            if ready and now - ready > 0.15:  # nothing was computed, so nothing is read again
                out["full"] = max(self.screen.drawn, ready) - started
                break
        out.setdefault("first", out.get("full"))
        out["tiles"] = self.result.state.computed - before
        return out


def wait(done: Callable[[], bool], seconds: float = 120) -> None:
    """Process events of the window until ``done`` returns True."""
    end = time.perf_counter() + seconds
    while not done():
        if time.perf_counter() > end:
            raise TimeoutError(f"The window did not respond as expected within {seconds:g} s.")
        spin_once()


def spin_once() -> None:
    """Process events of the window once."""
    QApplication.processEvents()
    time.sleep(0.001)


SHAPES = {  # SR voxels (z, y, x): several sizes along the line of sight and in the plane
    "axial": [(64, r, p) for p in (64, 128, 256) for r in (1, 4, 8, 16)] + [(128, 8, 128), (32, 8, 128)],
    "along x": [(64, r, w) for r in (32, 64, 128) for w in (1, 8, 16, 32)],
    "lateral": [(a, r, 128) for a in (1, 8, 16, 32, 64) for r in (16, 32, 64)] + [(16, 64, 64), (16, 32, 256)],
}


def tiles() -> list[dict[str, Any]]:
    """Time tiles of several shapes without a window; medians of 5."""
    volume = np.random.default_rng(0).integers(0, 4000, (120, 400, 500)).astype(np.uint16)
    source = Image(da.from_array(volume, chunks=(1, 400, 500)), "zyx", (5.0, 2.0, 2.0), "um", (0.0, 0.0, 0.0), "noise")
    result = SuperResolution(source, model(), device="cpu")
    rows = []
    for view, shapes in SHAPES.items():
        across = {"axial": 1, "along x": 2, "lateral": 0}[view]
        for shape in shapes:
            box = Box((64, 64, 64), (64 + shape[0], 64 + shape[1], 64 + shape[2]))
            seconds = []
            for _ in range(6):
                started = time.perf_counter()
                result.compute((), box)
                seconds.append(time.perf_counter() - started)
            middle = float(np.median(seconds[1:]))
            row = {"view": view, "tile": list(shape), "ms": round(1000 * middle, 1)}
            row["kpixel/s of one plane"] = round(box.size / shape[across] / middle / 1000, 1)
            row["kvoxel/s"] = round(box.size / middle / 1000)
            rows.append(row)
    return rows


def latency(bench: Bench, view: str, pans: int) -> dict[str, Any]:
    """Measure pans to new positions, and back to them."""
    bench.look(view)
    started = bench.begin()
    wait(lambda: not bench.result.looking)
    fresh, back = [], []
    for number in range(pans):
        one, two = bench.place(number), bench.place(number + 1)
        bench.pan(one)
        spin(0.3)
        bench.result.worker.in_view.store.clear()  # nothing is computed at the target of a pan
        fresh.append(bench.pan(two))
        bench.pan(one)
        spin(0.3)
        back.append(revisit(bench, two))
    height, width = bench.viewer.canvas.size
    return {
        "volume": bench.volume,
        "view": view,
        "canvas": [height, width],
        "voxels a side": [round(height / PIXELS), round(width / PIXELS)],
        "tile": list(bench.result.result.shapes.for_view(VIEWS[view][0])),
        "tiles a viewport": round(float(np.median([f["tiles"] for f in fresh])), 1),
        "from the button, s": round(started, 2),
        "first, s": median(f["first"] for f in fresh),
        "first, worst, s": round(max(f["first"] for f in fresh), 3),
        "full, s": median(f["full"] for f in fresh),
        "revisit, s": median(b["seconds"] for b in back),
        "revisit, worst, s": round(max(b["seconds"] for b in back), 3),
        "revisit, tiles computed": sum(b["tiles"] for b in back),
    }


def revisit(bench: Bench, place: np.ndarray) -> dict[str, Any]:
    """Move back to a position, and return the seconds until the canvas shows the layer there."""
    started, before = time.perf_counter(), bench.result.state.computed
    bench.viewer.scene.camera.center = tuple(place)
    wait(lambda: bench.screen.drawn > started and bench.screen.drawn >= bench.screen.read)
    seconds = bench.screen.drawn - started
    spin(0.3)
    done, total = bench.finished
    if done != total or not total:
        raise RuntimeError(f"Only {done} of {total} tiles were in memory.")
    return {"seconds": seconds, "tiles": bench.result.state.computed - before}


def refreshes(bench: Bench) -> dict[str, Any]:
    """Time the calls that read the lazy SR layer: refresh, slider step, pan, axis roll; ms.

    The source is hidden, and nothing is computed at the same time.
    """
    bench.look("lateral")
    bench.begin()
    wait(lambda: not bench.result.looking)
    layer, viewer = bench.result.layer, bench.viewer
    bench.panel.buttons["stop"].native.click()
    bench.source.visible = False
    camera = viewer.scene.camera
    home = np.array(camera.center)

    def step(number: int) -> None:
        viewer.dims.set_current_step(0, viewer.dims.current_step[0] + (1 if number % 2 else -1) * 7)

    def pan(number: int) -> None:
        camera.center = tuple(home + np.array([0, 50, 50]) * (number % 3))
        layer.refresh(extent=False, thumbnail=False, highlight=False)

    actions: dict[str, Callable[[int], None]] = {
        "refresh": lambda _: layer.refresh(extent=False, thumbnail=False, highlight=False),
        "step": step,
        "pan": pan,
        "roll": lambda number: setattr(viewer.dims, "order", ((0, 1, 2), (1, 0, 2), (2, 0, 1))[number % 3]),
    }
    row: dict[str, Any] = {"SR volume": " x ".join(map(str, layer.data[0].shape)), "levels": len(layer.data)}
    for name, action in actions.items():
        times = []
        for number in range(1, 22):
            started = time.perf_counter()
            action(number)
            times.append(1000 * (time.perf_counter() - started))
            spin(0.1)
        row[f"{name}, ms"] = round(float(np.median(times)), 1)
        row[f"{name}, worst"] = round(max(times), 1)
    bench.source.visible = True
    return row


def steady(bench: Bench, view: str, seconds: float) -> dict[str, Any]:
    """Pan by one viewport in ten seconds, and count the tiles that were computed and never shown."""
    bench.look(view)
    bench.begin()
    store = bench.result.worker.in_view.store
    known, born, seen = set(store), {}, set()
    for _ in drift(bench, seconds):
        view_now = view_of(bench.viewer, bench.result.layer)
        for tile in set(store) - known:
            born.setdefault(tile, time.perf_counter())
        if view_now is not None:
            seen |= {t for t in born if store.grid.box(t[1]).intersect(view_now.box) is not None}
    return {"volume": bench.volume, "view": view, "computed": len(born), "never shown": len(set(born) - seen)}


def drift(bench: Bench, seconds: float) -> Iterator[None]:
    """Move the camera by one viewport in ten seconds."""
    camera, started = bench.viewer.scene.camera, time.perf_counter()
    width = bench.viewer.canvas.size[1] / camera.zoom
    while (elapsed := time.perf_counter() - started) < seconds:
        centre = bench.centre.copy()
        centre[2] += width * (elapsed / 10)
        camera.center = tuple(centre)
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            spin_once()
        yield


def heartbeats(viewer: napari.Viewer, data: Path, seconds: float, runs: int) -> dict[str, Any]:
    """Measure delays of the window while it is panned, with and without the preview, in turns."""
    spells = []
    for number in range(2 * runs):
        previewing = number % 2 == 1
        bench = Bench(viewer, "brain", data)
        delays = []
        for view in VIEWS:
            bench.look(view)
            if previewing:
                bench.begin()
            camera, centre, started = viewer.scene.camera, bench.centre, time.perf_counter()
            width = viewer.canvas.size[1] / camera.zoom

            def move(camera=camera, centre=centre, width=width, started=started) -> None:
                place = centre.copy()
                place[2] += width / 2 * np.sin((time.perf_counter() - started) / 3)
                camera.center = tuple(place)

            delays.append(Heartbeat(move).run(seconds / len(VIEWS), lambda: None))
        kind = "preview" if previewing else "idle"
        spells.append({"kind": kind, **summary(np.concatenate(delays))})
        print("  ".join(f"{key} {value}" for key, value in spells[-1].items()), flush=True)
        close(bench)
    p99 = {k: float(np.median([s["p99_ms"] for s in spells if s["kind"] == k])) for k in ("idle", "preview")}
    return {
        "seconds": seconds,
        "median_p99_ms": p99,
        "difference_ms": round(p99["preview"] - p99["idle"], 2),
        "limit_ms": LIMIT_MS,
        "max_ms": {k: float(max(s["max_ms"] for s in spells if s["kind"] == k)) for k in p99},
        "spells": spells,
    }


def memory(bench: Bench, pans: int, cap: int) -> dict[str, Any]:
    """Pan to new positions with a small cache, and return the growth of the process after the cache was full."""
    bench.look("axial")
    bench.panel.session.cache.cap = cap
    bench.begin()
    process, sizes, held = psutil.Process(), [], []
    for number in range(pans):
        place = bench.centre + np.array([0, number % 20, number // 20]) * 150  # new tiles each time
        bench.viewer.scene.camera.center = tuple(place)
        spin(0.25)
        sizes.append(process.memory_info().rss)
        held.append(bench.panel.session.cache.nbytes)
    full = next((n for n, size in enumerate(held) if size > 0.95 * cap), len(held) - 1)
    begin = max(full, pans // 5)
    return {
        "pans": pans,
        "cap, MB": cap // 10**6,
        "held at most, MB": round(max(held) / 1e6, 1),
        "cache full after pan": full,
        "growth since, MB": round((np.median(sizes[-20:]) - np.median(sizes[begin : begin + 20])) / 1e6, 1),
        "rss, MB": [round(size / 1e6) for size in sizes[:: max(1, pans // 20)]],
    }


def median(values: Any) -> float:
    """Return the median, to a millisecond."""
    return round(float(np.median(list(values))), 3)


def close(bench: Bench) -> None:
    """Close the dock of a bench, which stops its work."""
    bench.viewer.window.remove_dock_widget("all")
    spin(0.5)


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table of rows with the same keys."""
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "| " + " | ".join("---" for _ in keys) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(str(row[k]) for k in keys) + " |" for row in rows)])


def report(values: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    parts = [
        "# The preview in a real window",
        "Made by `make bench-preview`; see [docs/benchmarks.md](../../docs/benchmarks.md).",
    ]
    parts.append(f"Machine: {json.dumps(values['machine'])}")
    if values.get("tiles"):
        parts += ["## Tiles of several shapes, without a window", table(values["tiles"])]
    if values.get("refresh"):
        parts += ["## Cost of reading the lazy layer", table([values["refresh"]])]
    if values.get("latency"):
        parts += ["## From the end of a pan to the screen", table(values["latency"])]
    if values.get("steady"):
        parts += ["## Tiles computed while panning steadily by one viewport in ten seconds", table(values["steady"])]
    if values.get("heartbeat"):
        beat = values["heartbeat"]
        text = f"99th percentile {beat['median_p99_ms']}, difference {beat['difference_ms']:+} ms "
        text += f"(limit {LIMIT_MS}), maxima {beat['max_ms']}."
        parts += ["## Delays of the window, ms", text, table(beat["spells"])]
    if values.get("memory"):
        parts += ["## Memory over many pans", table([values["memory"]])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short run that writes nothing")
    parser.add_argument("--only", nargs="+", default=["tiles", "refresh", "latency", "steady", "heartbeat", "memory"])
    parser.add_argument("--data", type=Path, default=None, help="folder of the brain")
    options = parser.parse_args()
    folders = [parent / "shared" / "data" for parent in ROOT.parents]
    data = options.data or next((folder for folder in folders if folder.is_dir()), folders[0])
    volumes = ["brain", "huge"] if (data / BRAIN).exists() else ["huge"]
    if "brain" not in volumes:
        print(f"SKIPPED brain and heartbeat: there is no {data / BRAIN}", flush=True)
    results = ROOT / "benchmarks" / "results"
    path = results / "preview.json"
    values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    values["machine"] = describe_machine()
    if "tiles" in options.only:
        values["tiles"] = tiles()
        print(table(values["tiles"]), flush=True)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    spin(2.0)
    if "refresh" in options.only:
        bench = Bench(viewer, "huge", data)
        values["refresh"] = refreshes(bench)
        print(values["refresh"], flush=True)
        close(bench)
    for part in ("latency", "steady"):
        if part not in options.only:
            continue
        rows = []
        for volume in volumes:
            bench = Bench(viewer, volume, data)
            for view in VIEWS:
                rows.append(
                    latency(bench, view, 2 if options.quick else 7)
                    if part == "latency"
                    else steady(bench, view, 5 if options.quick else 30)
                )
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            close(bench)
        values[part] = rows
    if "heartbeat" in options.only and "brain" in volumes:
        values["heartbeat"] = heartbeats(viewer, data, 6 if options.quick else 60, 1 if options.quick else 3)
    if "memory" in options.only:
        bench = Bench(viewer, "huge", data)
        values["memory"] = memory(bench, 40 if options.quick else 500, 10**8)
        print(values["memory"], flush=True)
        close(bench)
    if not options.quick:
        path.write_text(json.dumps(values, indent=1) + "\n")
        (results / "preview.md").write_text(report(values))
    print(report(values))
    viewer.close()


if __name__ == "__main__":
    main()
