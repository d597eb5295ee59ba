"""A local cluster of two workers with one thread each against one process with two threads, on the same cores.

Both export the same volume in turns. The time is from the first finished tile to the last, without start-up.
Prints a table and writes results/cluster.json.

    python benchmarks/cluster.py [--runs 3] [--depth 128]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.export import export
from volume import ROOT, result_of, write_source

TILE = 128


def seconds_a_tile(result: SuperResolution, output: Path, cluster: Cluster | None) -> float:
    """Export, and return the seconds per tile after the first."""
    first = last = (0.0, 0)
    for step in export(result, output, TILE, cluster=cluster):
        if step.stage == "tiles" and step.done > last[1]:
            last = (time.perf_counter(), step.done)
            first = first if first[1] else last
    shutil.rmtree(output)
    return (last[0] - first[0]) / (last[1] - first[1])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--depth", type=int, default=128, help="slices of 512 x 512")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "cluster.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, Cluster(workers=2) as cluster:
        folder = Path(name)
        result = result_of(open_image(write_source(folder, options.depth)))
        seconds_a_tile(result, folder / "warm.ome.zarr", cluster)  # workers open source and model once
        for _ in range(options.runs):
            load = load_average()
            one = seconds_a_tile(result, folder / "one.ome.zarr", None)
            two = seconds_a_tile(result, folder / "two.ome.zarr", cluster)
            rows.append({"one_process_s": round(one, 3), "two_workers_s": round(two, 3), "load": load})
            rows[-1]["overhead"] = round(two / one - 1, 3)
            print(rows[-1], flush=True)
    values = {
        "machine": describe_machine(),
        "threads_of_one_process": torch.get_num_threads(),
        "tile": TILE,
        "seconds_a_tile": rows,
        "overhead": statistics.median(float(row["overhead"]) for row in rows),  # type: ignore[arg-type]
    }
    print("overhead of the cluster:", values["overhead"])
    options.output.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
