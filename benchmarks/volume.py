"""Whole volumes: memory, throughput, cost of a kill, opening a huge layer, and delays of the window.

Prints tables and writes results/volume.json and results/volume.md. Parts that are not selected are kept from the last
run.

    scripts/with-display python benchmarks/volume.py [--only memory throughput kill open heartbeat run]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch
import zarr

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.export import export
from napari_cropeq.store.disk import BULK

ROOT = Path(__file__).resolve().parents[1]
BRAIN = "mouse_brain_2ch_5x2x2um.ome.tif"
FACTOR = 2.5
SIDE = 512
DEPTH = 64  # slices of the volume with relative depth 1
DEEPER = (1, 4, 16)
KILLS = 8
SECTIONS = ("memory", "throughput", "kill", "open", "heartbeat", "run")


def write_source(folder: Path, depth: int) -> Path:
    """Write a textured volume (z, y, x) as an OME-Zarr, as acquisition software does."""
    path = folder / f"source_{depth}.ome.zarr"
    if path.exists():
        return path
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array("0", shape=(depth, SIDE, SIDE), dtype=np.uint16, chunks=(16, 256, 256))
    rng = np.random.default_rng(0)
    for start in range(0, depth, 16):
        array[start : start + 16] = rng.integers(100, 4000, (16, SIDE, SIDE)).astype(np.uint16)
    scale = [{"type": "scale", "scale": [FACTOR, 1.0, 1.0]}]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return path


def result_of(source: Image) -> SuperResolution:
    """Return the super-resolution of a source by the default network."""
    from preview import model  # opens no window, but needs napari

    return SuperResolution(source, model(), device="cpu")


# -- memory ------------------------------------------------------------------------------------------


def status(name: str) -> int:
    """Return a value of /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def child_memory(source: Path, output: Path) -> None:
    """Export in this process, and print idle and peak memory, seconds, voxels."""
    opened = open_image(source)
    result = result_of(opened)
    idle, started = status("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in export(result, output):
        pass
    seconds = time.perf_counter() - started
    voxels = int(np.prod(result.sr_shape))
    print(json.dumps({"idle": idle, "peak": status("VmHWM"), "seconds": seconds, "voxels": voxels}))


def memory(folder: Path) -> list[dict[str, Any]]:
    """Measure peak memory for increasingly deep volumes, each in a separate process."""
    rows = []
    for times in DEEPER:
        source = write_source(folder, DEPTH * times)
        output = folder / "out.ome.zarr"
        found = json.loads(child("--child-memory", source, output).splitlines()[-1])
        size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
        shutil.rmtree(output)
        rows.append(
            {
                "deeper": times,
                "voxels": found["voxels"],
                "idle_mb": round(found["idle"] / 1e6),
                "peak_mb": round(found["peak"] / 1e6),
                "over_idle_mb": round((found["peak"] - found["idle"]) / 1e6),
                "seconds": round(found["seconds"], 1),
                "mvoxel_per_s": round(found["voxels"] / found["seconds"] / 1e6, 2),
                "size_on_disk_mb": round(size / 1e6),
            }
        )
        print(rows[-1], flush=True)
    return rows


def child(*arguments: object) -> str:
    """Run this script in a separate process and return its output."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# -- throughput --------------------------------------------------------------------------------------


def throughput(folder: Path) -> dict[str, Any]:
    """Compare an export with the network alone on inputs of the same shapes, in turns."""
    result = result_of(open_image(write_source(folder, DEPTH)))
    network = result._predictor.network
    predict, inputs = network.predict, []

    def recorded(batch: torch.Tensor) -> torch.Tensor:
        inputs.append(tuple(batch.shape))
        return predict(batch)

    network.predict = recorded  # type: ignore[method-assign]
    result.compute(result.leading_indices[0], Box((0, 0, 0), (16, 64, 64)))
    whole, alone = [], []
    for _ in range(3):
        inputs.clear()
        started = time.perf_counter()
        for _ in export(result, folder / "out.ome.zarr"):
            pass
        whole.append(time.perf_counter() - started)
        shutil.rmtree(folder / "out.ome.zarr")
        made = {shape: torch.randn(shape) for shape in set(inputs)}
        started = time.perf_counter()
        for shape in list(inputs):
            predict(made[shape])
        alone.append(time.perf_counter() - started)
        print({"pipeline_s": whole[-1], "network_s": alone[-1]}, flush=True)
    network.predict = predict  # type: ignore[method-assign]
    voxels = int(np.prod(result.sr_shape))
    ratios = [n / w for n, w in zip(alone, whole, strict=True)]
    return {
        "voxels": voxels,
        "pipeline_mvoxel_per_s": round(voxels / statistics.median(whole) / 1e6, 2),
        "network_alone_mvoxel_per_s": round(voxels / statistics.median(alone) / 1e6, 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
    }


# -- a kill ------------------------------------------------------------------------------------------


def child_kill(source: Path, output: Path, log: Path) -> None:
    """Export in this process and log every computed part."""
    result = result_of(open_image(source))
    compute = result.compute
    with open(log, "a", encoding="utf-8") as file:

        def noted(leading: Any, box: Box, *rest: Any) -> Any:
            voxels = compute(leading, box, *rest)
            file.write(f"{box.start} {box.size}\n")
            file.flush()
            return voxels

        result.compute = noted  # type: ignore[method-assign]
        for _ in export(result, output, existing="resume"):
            pass


def kill(folder: Path) -> dict[str, Any]:
    """Kill exports at random moments, resume them, and count what was computed twice."""
    source, output, log = write_source(folder, DEPTH), folder / "killed.ome.zarr", folder / "parts.log"
    chance, shards = random.Random(0), []
    log.unlink(missing_ok=True)
    for number in range(KILLS + 1):
        before = len(log.read_text().splitlines()) if log.exists() else 0
        command = [sys.executable, __file__, "--child-kill", str(source), str(output), str(log)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if number < KILLS:
            while (len(log.read_text().splitlines()) if log.exists() else 0) == before:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 4))
            process.send_signal(signal.SIGKILL)
        process.wait()
    counts = Counter(line.rsplit(" ", 1)[0] for line in log.read_text().splitlines())
    sizes = dict(line.rsplit(" ", 1) for line in log.read_text().splitlines())
    again = sum((n - 1) * int(sizes[part]) for part, n in counts.items())
    shards = again / np.prod(BULK) / KILLS
    shutil.rmtree(output)
    return {"kills": KILLS, "shards_recomputed_per_kill": round(float(shards), 2), "in_flight_at_most": 4}


# -- the window --------------------------------------------------------------------------------------


def window_of() -> tuple[Any, Callable[[float], None]]:
    """Return a viewer in a real window, and a function that processes its events."""
    import napari

    from heartbeat import spin

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1500, 950)
    spin(1.0)
    return viewer, spin


def begin(viewer: Any, output: Path) -> Any:
    """Open the Volume widget on the synthetic volume of 200 GB."""
    from preview import PLUGIN, huge, model

    levels: Any = {"data": huge(), "multiscale": True, "contrast_limits": (0, 4000)}
    viewer.add_image(**levels, scale=(5, 2, 2), units=["um"] * 3, name="huge")
    volume = viewer.window.add_plugin_dock_widget(PLUGIN, "Volume")[1].panels["Volume"]
    volume.session.use_model(model(), "default network")
    volume.destination.value = output
    return volume


def opening(folder: Path) -> dict[str, Any]:
    """Measure the time from Start to a layer of 500 GB, and to open its unfinished store."""
    from preview import Screen, wait

    viewer, spin = window_of()
    volume = begin(viewer, folder / "huge.ome.zarr")
    spin(8.0)  # the estimate
    started = time.perf_counter()
    volume.buttons["start"].native.click()
    wait(lambda: volume.result is not None and volume.result.layer in viewer.layers)
    screen = Screen(viewer)
    screen.watch(volume.result.layer)
    since = time.perf_counter()
    volume.result.layer.refresh()
    wait(lambda: screen.shows_since(since))
    started = time.perf_counter() - started
    nbytes = volume.result.result.nbytes
    wait(lambda: volume.result.state.tiles[0] > 0)
    volume.buttons["stop"].native.click()
    wait(lambda: not volume.result.busy)
    viewer.window.remove_dock_widget("all")
    spin(0.5)
    started = time.perf_counter()
    [layer] = viewer.open(folder / "huge.partial.ome.zarr", plugin="napari-cropeq")
    screen.watch(layer)
    since = time.perf_counter()
    layer.refresh()
    wait(lambda: screen.shows_since(since))
    reopened = time.perf_counter() - started
    viewer.close()
    shutil.rmtree(folder / "huge.partial.ome.zarr")
    return {
        "result_gb": round(nbytes / 1e9),
        "start_to_layer_on_screen_s": round(started, 2),
        "open_store_to_screen_s": round(reopened, 2),
    }


def heartbeat(folder: Path, seconds: float, runs: int) -> dict[str, Any]:
    """Measure delays of the window while the job runs and while it is paused, in turns.

    The first period is without the second layer of 500 GB, to show the cost of that layer.
    """
    from heartbeat import LIMIT_MS, Heartbeat, stepper, summary
    from preview import wait

    viewer, spin = window_of()
    volume = begin(viewer, folder / "beat.ome.zarr")
    spin(8.0)
    beat, spells = Heartbeat(stepper(viewer)), []
    for number in range(2 * runs + 1):
        kind = "source alone" if number == 0 else "running" if number % 2 == 0 else "idle"
        if number == 1:
            volume.buttons["start"].native.click()
            wait(lambda: volume.result is not None and volume.result.state.tiles[0] > 0)
        if number:
            volume.result.worker.pause_all(kind == "idle")
            spin(15.0)  # the current part is finished
        load = load_average()
        found = summary(beat.run(seconds, lambda: None))
        if number:
            found["tiles"] = volume.result.state.tiles[0]
        spells.append({"kind": kind, **found, "load_average": load})
        print(spells[-1], flush=True)
    volume.buttons["stop"].native.click()
    wait(lambda: not volume.result.busy)
    viewer.close()
    shutil.rmtree(folder / "beat.partial.ome.zarr", ignore_errors=True)
    kinds = ("source alone", "idle", "running")
    p99 = {kind: statistics.median(s["p99_ms"] for s in spells if s["kind"] == kind) for kind in kinds}
    return {
        "seconds": seconds,
        "spells": spells,
        "p99_source_alone_ms": p99["source alone"],
        "p99_idle_ms": p99["idle"],
        "p99_running_ms": p99["running"],
        "difference_ms": round(p99["running"] - p99["idle"], 2),
        "limit_ms": LIMIT_MS,
    }


# -- a real run --------------------------------------------------------------------------------------


def real(folder: Path, data: Path) -> dict[str, Any]:
    """Train on a real volume and export both of its channels, with the command line."""
    model, output = folder / "brain.safetensors", folder / "brain_SR.ome.zarr"
    cropeq = [sys.executable, "-m", "napari_cropeq.cli"]
    seconds = []
    for command in (
        ["train", data / BRAIN, "-o", model, "--minutes", "3", "--channel", "all"],
        ["export", data / BRAIN, "-m", model, "-o", output, "--json"],
    ):
        started = time.perf_counter()
        ran = subprocess.run([*cropeq, *map(str, command)], check=True, capture_output=True, text=True)
        seconds.append(round(time.perf_counter() - started, 1))
    [report] = json.loads(ran.stdout)["exports"]
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    source = open_image(output)
    leading = (0,) * (source.data.ndim - 3)
    found = {
        "source": BRAIN,
        "shape": report["shape"],
        "levels": [list(level.shape) for level in source.levels],
        "train_s": seconds[0],
        "export_s": seconds[1],
        "mvoxel_per_s": round(float(np.prod(report["shape"])) / seconds[1] / 1e6, 2),
        "uncompressed_mb": round(float(np.prod(report["shape"])) * source.data.dtype.itemsize / 1e6),
        "on_disk_mb": round(size / 1e6),
        "exactness": report["exactness"],
        "mean": float(da.mean(source.data[leading]).compute()),
    }
    shutil.rmtree(output)
    return found


# -- the report --------------------------------------------------------------------------------------


def report(values: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = ["# Whole volumes", ""]
    for name, machine in values["machines"].items():
        lines.append(f"- {name}: measured on {machine['processor']}, {machine['cores']} cores, no GPU")
    lines.append("")
    if "memory" in values:
        head = ["deeper", "Mvoxel", "idle MB", "peak MB", "over idle MB", "Mvoxel/s", "on disk MB"]
        lines += [f"| {' | '.join(head)} |", "| " + " | ".join(["---"] * len(head)) + " |"]
        for row in values["memory"]:
            cells = [f"{row['deeper']}x", round(row["voxels"] / 1e6), row["idle_mb"], row["peak_mb"]]
            cells += [row["over_idle_mb"], row["mvoxel_per_s"], row["size_on_disk_mb"]]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    for name in ("throughput", "kill", "open", "run"):
        if name in values:
            lines += [f"**{name}**: " + ", ".join(f"{k} {v}" for k, v in values[name].items()), ""]
    if "heartbeat" in values:
        beat = values["heartbeat"]
        maxima = {k: max(s["max_ms"] for s in beat["spells"] if s["kind"] == k) for k in ("idle", "running")}
        lines += [
            f"**heartbeat**, 99th percentile, median of {len(beat['spells']) // 2} periods of "
            f"{beat['seconds']:g} s: source and result shown, job paused, {beat['p99_idle_ms']} ms; job running "
            f"{beat['p99_running_ms']} ms; difference {beat['difference_ms']} ms (limit {beat['limit_ms']}); "
            f"maxima {maxima['idle']} and {maxima['running']} ms. The source alone: {beat['p99_source_alone_ms']} ms.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each heartbeat period")
    parser.add_argument("--runs", type=int, default=3, help="heartbeat periods of each kind")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "volume.json")
    parser.add_argument("--child-memory", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child-kill", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child_memory:
        child_memory(*options.child_memory)
        return
    if options.child_kill:
        child_kill(*options.child_kill)
        return
    os.environ.setdefault("NAPARI_CONFIG", str(Path(tempfile.mkdtemp()) / "settings.yaml"))
    values = json.loads(options.output.read_text()) if options.output.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work: dict[str, Callable[[], Any]] = {
            "memory": lambda: memory(folder),
            "throughput": lambda: throughput(folder),
            "kill": lambda: kill(folder),
            "run": lambda: real(folder, options.data),
            "open": lambda: opening(folder),
            "heartbeat": lambda: heartbeat(folder, options.seconds, options.runs),
        }
        for section, measure in work.items():
            if section not in options.only:
                continue
            if section == "run" and not (options.data / BRAIN).exists():
                print(f"SKIPPED run: there is no {options.data / BRAIN}", flush=True)
                continue
            values[section] = measure()
            values["machines"] = values.get("machines", {}) | {
                section: describe_machine()
            }  # each part may have another machine
            print(section, values[section], flush=True)
            options.output.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            options.output.with_suffix(".md").write_text(report(values), encoding="utf-8")


if __name__ == "__main__":
    main()
