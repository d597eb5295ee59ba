"""How fast the pipeline is, in ratios: each is taken side by side, in turns, in one run.

Ours is compared to tiles of 64 x 64 px that give 32 x 32, as in the paper; to the network alone on inputs of the same
shapes; to a large matrix product in float32; to MONAI's sliding window with a padded network of equal size; and to
dask.map_overlap with the same network. Then volumes of 1 to 64 times the size are computed, and the exponent of their
times is fitted.

Prints tables and writes results/speed.json and results/speed.md. MONAI and Dask are optional; the rest needs numpy,
scipy, torch and safetensors only, so that it can run on a machine that is lent for it:

    PYTHONPATH=src python benchmarks/speed.py [--device cuda] [--filters 32 64 256] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.devices.device import processor_of
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.host import exact_convolutions, freed_memory_kept
from napari_cropeq.core.network import Network, PaddedNetwork, build_network, subpositions_for, work
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.thread_map import ThreadMap
from napari_cropeq.core.tiles import divide

ROOT = Path(__file__).resolve().parents[1]
FACTOR = 2.5
# SR voxels of a comparison (z, y, x), in an even number of boxes, and rounds: seconds for each method on two CPU cores.
SIZES = {32: ((256, 6, 256), 3), 64: ((256, 2, 256), 3), 256: ((256, 1, 128), 2)}
ON_GPU = (256, 128, 512)
GROWTH = (1, 4, 16, 64)
SMALLEST = (256, 16, 256)  # SR voxels of the volume with size 1: two boxes, so that two threads are busy
PAPER_TILE, PAPER_BATCH = 64, 32
SIDE = {"cpu": 3072, "cuda": 16384}  # of the matrices
BLOCK = 256  # side of the blocks of dask.map_overlap, px
NO_GPU = "There is no CUDA GPU on this machine, so nothing was measured on one: the path is tested on the CPU only."

Task = Callable[[], object]


def source_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Return noise (z, y, x) of which SR voxels of ``shape`` are computed."""
    slices = math.ceil(shape[0] / FACTOR)
    return np.random.default_rng(0).integers(100, 4000, (slices, *shape[1:])).astype(np.uint16)


def predictor_of(kind: str, filters: int, shape: tuple[int, int, int], device: str) -> Predictor:
    """Return what computes SR voxels of ``shape`` (z, y, x), in planes (z, x)."""
    torch.manual_seed(0)
    network = build_network(kind, filters, 7, 3, subpositions_for(kind, FACTOR))
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    source = source_of(shape)
    correction = 2.0 if kind == "subpixel" else 0.0
    scale = Normalisation.measure(source)
    return Predictor(network, Acquisition((FACTOR, 1.0, 1.0)), source, scale, "x", device, correction=correction)


def whole(predictor: Predictor, shape: tuple[int, int, int]) -> None:
    """Compute SR voxels of ``shape`` from raw voxels, box by box, as a run over a volume does."""
    threads = ThreadMap(predictor.side_by_side)
    boxes = divide(Box.whole(shape), TileShapes(0, predictor.planes, predictor.canonical_tile).bulk)
    try:
        for _, found in threads.map(lambda box: predictor(box, dtype=np.uint16), boxes):
            found.result()
    finally:
        threads.dismiss()


# -- the others --------------------------------------------------------------------------------------------------------


def shapes_of(predictor: Predictor, shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Return the shapes that go through the network for SR voxels of ``shape``."""
    predict, shapes = predictor.network.predict, []

    def noted(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        return predict(batch)

    predictor.network.predict = noted
    whole(predictor, shape)
    predictor.network.predict = predict
    return shapes


def network_alone(predictor: Predictor, shape: tuple[int, int, int]) -> Task:
    """Return what sends inputs of the same shapes through the network, in as many threads."""
    made = {s: torch.randn(s, device=predictor.device) for s in shapes_of(predictor, shape)}
    shapes = shapes_of(predictor, shape)

    def run() -> None:
        threads = ThreadMap(predictor.side_by_side)
        try:
            with freed_memory_kept(), exact_convolutions(predictor.device):
                for _, found in threads.map(lambda s: predictor.network.predict(made[s]), shapes):
                    last = found.result()
                last.sum().item()  # waits for a GPU
        finally:
            threads.dismiss()

    return run


def papers_way(network: Network, shape: tuple[int, int, int], device: torch.device) -> Task:
    """Return what cuts interpolated planes into tiles of 64 x 64 px, a batch at a time, and keeps 32 x 32 of each."""
    inner = PAPER_TILE - network.shrink
    tiles = shape[1] * math.ceil(shape[0] / inner) * math.ceil(shape[2] / inner)
    batch = torch.randn(PAPER_BATCH, 1, PAPER_TILE, PAPER_TILE, device=device)

    def run() -> None:
        with freed_memory_kept(), exact_convolutions(device):
            for start in range(0, tiles, PAPER_BATCH):
                last = network.predict(batch[: min(PAPER_BATCH, tiles - start)])
            last.sum().item()

    return run


def monai_way(filters: int, shape: tuple[int, int, int], device: torch.device) -> Task:
    """Return MONAI's sliding window, with its defaults, over planes and a padded network with as many convolutions."""
    from monai.inferers import sliding_window_inference

    network = PaddedNetwork(filters, 7).eval().requires_grad_(False).to(device)
    planes = torch.randn(shape[1], 1, shape[0], shape[2], device=device)

    def run() -> None:
        with torch.inference_mode(), freed_memory_kept(), exact_convolutions(device):
            sliding_window_inference(planes, (PAPER_TILE, PAPER_TILE), PAPER_BATCH, network.predict).sum().item()

    return run


def dask_way(network: Network, shape: tuple[int, int, int]) -> Task:
    """Return dask.map_overlap over interpolated planes, with the same network and settings of the allocator."""
    import dask
    import dask.array as da

    planes = np.random.default_rng(0).normal(size=(shape[1], shape[0], shape[2])).astype(np.float32)
    blocks = da.from_array(planes, chunks=(shape[1], BLOCK, BLOCK))
    halo = network.halo

    def refine(block: np.ndarray) -> np.ndarray:
        return network.predict(torch.from_numpy(np.ascontiguousarray(block))[:, None])[:, 0].numpy()

    depth = {0: 0, 1: halo, 2: halo}
    refined = da.map_overlap(refine, blocks, depth=depth, boundary="reflect", trim=False, dtype=np.float32)

    def run() -> None:
        with freed_memory_kept(), dask.config.set(scheduler="synchronous"):
            refined.compute()

    return run


def products(device: torch.device) -> tuple[dict[str, Task], float]:
    """Return large matrix products in float32, by each library that torch has for them, and the FLOP of each."""
    side = SIDE[device.type]
    one, other = (torch.randn(side, side, device=device) for _ in range(2))
    tasks: dict[str, Task] = {"product": lambda: torch.mm(one, other)[0, 0].item()}
    if device.type == "cpu":  # oneDNN, which convolves, is faster than MKL on some processors
        image = one.reshape(1, side, side, 1).to(memory_format=torch.channels_last)
        kernels = other.reshape(side, side, 1, 1)
        tasks["product by oneDNN"] = lambda: torch.mkldnn_convolution(image, kernels, None, [0, 0], [1, 1], [1, 1], 1)
    return tasks, 2.0 * side**3


# -- measurements ------------------------------------------------------------------------------------------------------


def clock(device: str) -> Callable[[], float]:
    """Return the clock: with one thread on the CPU, its time for this process, which other programs hardly change."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def in_turns(tasks: dict[str, Task], rounds: int, now: Callable[[], float]) -> dict[str, list[float]]:
    """Return the seconds of each task in each round; each is run once before."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            started = now()
            task()
            if number:
                seconds[name].append(now() - started)
    return seconds


def compare(filters: int, device: str) -> dict[str, Any]:
    """Return the ratios for a network with so many filters."""
    shape, rounds = SIZES[filters] if device == "cpu" else (ON_GPU, 5)
    predictor = predictor_of("valid", filters, shape, device)
    network, there = predictor.network, predictor.device
    multiply, flop = products(there)
    tasks: dict[str, Task] = {
        "ours": lambda: whole(predictor, shape),
        "network alone": network_alone(predictor, shape),
        "paper": papers_way(network, shape, there),
    } | multiply
    with suppress(ImportError):
        tasks["MONAI"] = monai_way(filters, shape, there)
    if device == "cpu":
        with suppress(ImportError):
            tasks["dask.map_overlap"] = dask_way(network, shape)
    seconds = in_turns(tasks, rounds, clock(device))
    computed = sum(2.0 * n * work(network, h - 32, w - 32) for n, _, h, w in shapes_of(predictor, shape))
    rate = {name: statistics.median(times) for name, times in seconds.items()}
    ours = seconds["ours"]

    def ratio(name: str) -> float:
        return round(statistics.median(t / o for t, o in zip(seconds[name], ours, strict=True)), 3)

    fastest = [min(times) for times in zip(*(seconds[name] for name in multiply), strict=True)]
    alone = zip(seconds["network alone"], fastest, strict=True)
    return {
        "filters": filters,
        "device": device,
        "voxels": math.prod(shape),
        "rounds": rounds,
        "mvoxel_per_s": round(math.prod(shape) / rate["ours"] / 1e6, 4),
        "of the network alone": ratio("network alone"),
        "network alone, of a matrix product": round(statistics.median(computed / n * m / flop for n, m in alone), 3),
        "times the paper's way": ratio("paper"),
        "times MONAI's sliding window": ratio("MONAI") if "MONAI" in seconds else None,
        "times dask.map_overlap": ratio("dask.map_overlap") if "dask.map_overlap" in seconds else None,
        "seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
        "load": load(),
    }


def growth(device: str) -> dict[str, Any]:
    """Return the seconds for volumes of increasing size, by the default network, and the exponent."""
    rows, now = [], clock(device)
    for times in GROWTH:
        shape = SMALLEST[0], round(SMALLEST[1] * times**0.5), round(SMALLEST[2] * times**0.5)
        predictor = predictor_of("subpixel", 32, shape, device)
        predictor(Box.whole((16, 16, 64)))  # what is done only once
        started = now()
        whole(predictor, shape)
        seconds = now() - started
        rows.append({"times": times, "voxels": math.prod(shape), "seconds": round(seconds, 3), "load": load()})
        print(rows[-1], flush=True)
    exponent = np.polyfit(*(np.log([row[key] for row in rows]) for key in ("voxels", "seconds")), 1)[0]
    return {"device": device, "rows": rows, "exponent": round(float(exponent), 3)}


def load() -> float | None:
    """Return the load of the machine over the last minute."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def machine(device: str) -> dict[str, Any]:
    """Return what measures."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "processor": cpu if device == "cpu" else processor_of(torch.device(device)),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "clock": clock(device).__name__,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


# -- the report --------------------------------------------------------------------------------------------------------

COLUMNS = (
    "of the network alone",
    "network alone, of a matrix product",
    "times the paper's way",
    "times MONAI's sliding window",
    "times dask.map_overlap",
)


def report(values: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = ["# Speed", ""]
    for device in ("cpu", "cuda"):
        found = values.get(device)
        if not found:
            continue
        about = found["machine"]
        used = f", {about['torch_threads']} used" if device == "cpu" else ""
        time_of = "CPU time of the process" if about["clock"] == "process_time" else "elapsed time"
        lines += [f"{about['processor']}, {about['cores']} cores{used}; torch {about['torch']}; {time_of}.", ""]
        head = ["filters", "Mvoxel/s", *COLUMNS, "load"]
        lines += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        for row in found["rows"]:
            cells = [row["filters"], row["mvoxel_per_s"], *(row[name] for name in COLUMNS), row["load"]]
            lines.append(f"| {' | '.join('–' if cell is None else str(cell) for cell in cells)} |")
        lines += ["", "| size | Mvoxel | seconds | Mvoxel/s | load |", "| --- | --- | --- | --- | --- |"]
        for row in found["growth"]["rows"]:
            rate = row["voxels"] / row["seconds"] / 1e6
            cells = [f"{row['times']}x", round(row["voxels"] / 1e6, 2), row["seconds"], round(rate, 2), row["load"]]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines += ["", f"Exponent of the time with the volume: {found['growth']['exponent']}", ""]
    if not values.get("cuda"):
        lines += [NO_GPU, ""]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), nargs="+", default=("cpu", "cuda"))
    parser.add_argument("--filters", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--threads", type=int, help="of torch; as many as there are cores by default")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "speed.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    values = json.loads(options.output.read_text()) if options.output.exists() else {}
    for device in options.device:
        if device == "cuda" and not torch.cuda.is_available():
            print(NO_GPU)
            continue
        rows = []
        for filters in options.filters:
            rows.append(compare(filters, device))
            print(rows[-1], flush=True)
        values[device] = {"machine": machine(device), "rows": rows, "growth": growth(device)}
        options.output.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        options.output.with_suffix(".md").write_text(report(values), encoding="utf-8")
    print(report(values))


if __name__ == "__main__":
    main()
