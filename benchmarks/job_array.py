"""Resume a store of 20 GB in a job array of 8 processes, on a disk that reads 250 MB/s in each process.

The store is small, and each read to verify a shard waits as long as its share of 20 GB takes. All processes start at
once. Prints when each of them was ready to compute, how it ended, and how often each shard was read on average; writes
results/job_array.json.

    python benchmarks/job_array.py [--processes 8] [--gigabytes 20] [--rate 250]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import ValidNetwork
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.run.export import export
from napari_cropeq.store.shards import Shards

ROOT = Path(__file__).resolve().parents[1]
TILE = 16
SHAPE = (16, 80, 64)  # z, y, x; the result has 80 tiles


def the_result() -> SuperResolution:
    """Return the super-resolution of a small volume by a network that is not trained."""
    torch.manual_seed(0)
    voxels = np.random.default_rng(0).integers(100, 4000, SHAPE).astype(np.uint16)
    acquisition = Acquisition((4.0, 1.0, 1.0))
    model = Model(ValidNetwork(filters=4), acquisition, [Normalisation(0.0, 4000.0)])
    size, origin = (4.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    source = Image(da.from_array(voxels), "zyx", size, "micrometer", origin, "noise")
    return SuperResolution(source, model, device="cpu")


def compute_all(result: SuperResolution, path: Path, count: int) -> int:
    """Finish all tiles without completing the output; return the bytes of the shards."""
    for number in range(count):
        steps = export(result, path, TILE, part_of=(number, count))
        next(step for step in steps if step.done == step.total)
        steps.close()  # type: ignore[attr-defined]
    return sum(file.stat().st_size for file in shards_of(path))


def shards_of(path: Path) -> list[Path]:
    """Return the files of all shards."""
    return [file for file in partial_of(path).glob("*/c/**/*") if file.is_file()]


def resume(path: Path, part: tuple[int, int], slower: float, start: Any, found: Any) -> None:
    """Run one of the processes; each byte that is read to verify a shard takes ``slower`` seconds."""
    torch.set_num_threads(1)
    reads, record = 0, Shards.record

    def slow(shards: Shards, tile: Any) -> Any:
        nonlocal reads
        reads += 1
        read = record(shards, tile)
        time.sleep((read.size or 0) * slower)
        return read

    Shards.record = slow  # type: ignore[method-assign]
    result = the_result()
    start.wait()
    begin, ready, ended = time.monotonic(), None, "failed"
    try:
        for step in export(result, path, TILE, part_of=part):
            ready = ready or time.monotonic() - begin
            ended = step.stage
    except OSError as error:
        ended = str(error)
    seconds = round(time.monotonic() - begin, 1)
    found.put({"part": part[0], "ready_s": ready and round(ready, 1), "end_s": seconds, "end": ended, "reads": reads})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=250.0, help="MB/s that each process reads")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "job_array.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        path, count = Path(name) / "out.ome.zarr", options.processes
        size = compute_all(the_result(), path, count)
        shards = len(shards_of(path))
        slower = options.gigabytes * 1e3 / options.rate / size
        forked = multiprocessing.get_context("fork")
        start, found = forked.Barrier(count), forked.Queue()
        parts = [(number, count) for number in range(count)]
        jobs = [forked.Process(target=resume, args=(path, part, slower, start, found)) for part in parts]
        for job in jobs:
            job.start()
        rows = sorted((found.get() for _ in jobs), key=lambda row: row["part"])
        for job in jobs:
            job.join()
        report = {
            "machine": describe_machine(),
            "gigabytes": options.gigabytes,
            "megabytes_a_second": options.rate,
            "shards": shards,
            "reads_of_a_shard": round(sum(row["reads"] for row in rows) / shards, 2),
            "complete": path.exists(),
            "processes": rows,
        }
    for row in rows:
        print(row)
    print({key: value for key, value in report.items() if key not in ("machine", "processes")})
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
