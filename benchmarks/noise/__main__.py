"""Intensities and noise: known truths imaged with few photons, and real stacks.

    python benchmarks/noise [--full] [--seeds 0 1 2] [--patches 5000] [--only WORD] [--report] [--picture]

Each cell is saved when it is finished, with its models in ``--out``; a stopped run continues with the same command. The
report is written again after each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import (
    ITERATIONS,
    SMOOTHED,
    TRAININGS,
    applied,
    best,
    deconvolved,
    model_path,
    patches_to_90,
    quintic,
    smoothed,
    trained,
)
from picture import draw_stacks
from report import write_report
from scores import BORDER, against_acquired, against_truth
from volumes import CLEAN, CORE, FULL, REAL, Acquired, Cell, image, real_stack, real_truth

from napari_cropeq.core.devices.transfer import convert
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.formats.image import acquisition_of

ROOT = Path(__file__).resolve().parents[2]
CLEAN_PATCHES = 12_000
PLANES = {"one plane": None, "both planes": "both"}


def find_data() -> Path:
    """Return the folder of the volumes: ``shared/data`` beside the checkout, or in a parent folder."""
    folders = [parent / "shared" / "data" for parent in ROOT.parents]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def measure_cell(cell: Cell, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of all methods for a cell with a known truth."""
    given, acquisition = Acquired.make(cell, seed, arguments.data), cell.acquisition
    raws = given.raw, given.again
    bases = [quintic(raw, acquisition) - given.offset for raw in raws]

    def score(*results: Any) -> dict[str, Any]:
        return against_truth(results, bases, given)

    def error(result: Any) -> float:
        return float(((result - given.truth) ** 2).mean())

    sigma = best(smoothed, bases[0], SMOOTHED, error)
    iterations = best(lambda base, n: deconvolved(base, acquisition, n), bases[0], ITERATIONS, error)
    scores: dict[str, Any] = {
        "truth": score(given.truth, given.truth),
        "quintic": score(*bases),
        "quintic, then a Gaussian": score(*(smoothed(base, sigma) for base in bases)) | {"chosen": sigma},
        "Richardson-Lucy": score(*(deconvolved(base, acquisition, iterations) for base in bases))
        | {"chosen": iterations},
    }
    for name, settings in TRAININGS.items():
        path = model_path(arguments.out, cell.name, name, seed)
        started = time.perf_counter()
        model = trained(given.raw, acquisition, seed, arguments.patches, settings, path)
        seconds = time.perf_counter() - started
        for planes, which in PLANES.items():
            results = [applied(model, raw, acquisition, which) for raw in raws]
            more = {"training (s)": round(seconds, 1), "patches to 90 %": patches_to_90(model)}
            scores[f"{name}, {planes}"] = score(*(result - given.offset for result in results)) | more
            if planes == "one plane":
                rounded = [convert(result, given.raw.dtype).astype(float) for result in results]
                scores[f"{name}, rounded"] = score(*(result - given.offset for result in rounded))
    return scores


def measure_stack(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of a real stack, against what was acquired."""
    source, raw = real_stack(name, arguments.data)
    acquisition = acquisition_of(source)
    base = quintic(raw, acquisition)
    scores = {"quintic": against_acquired(base, base, raw, acquisition)}
    for training, settings in TRAININGS.items():
        path = model_path(arguments.out, name, training, seed)
        model = trained(raw, acquisition, seed, arguments.patches, settings, path)
        for planes, which in PLANES.items():
            result = applied(model, raw, acquisition, which)
            scores[f"{training}, {planes}"] = against_acquired(result, base, raw, acquisition)
    return scores


def measure_clean(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the PSNR of trainings on a volume that was degraded without noise."""
    which, factor = CLEAN[name]
    truth = real_truth(which, arguments.data)
    acquisition = Acquisition((factor, 1.0, 1.0))
    raw = image(truth, acquisition).astype(np.float32)
    truth = truth[: acquisition.sr_shape(raw.shape)[0]]
    inner, span = (slice(BORDER, -BORDER),) * 3, float(truth.max() - truth.min())

    def score(result: Any) -> dict[str, Any]:
        return {"psnr": round(10 * float(np.log10(span**2 / np.square(result - truth)[inner].mean())), 3)}

    scores = {"quintic": score(quintic(raw, acquisition))}
    for training, settings in TRAININGS.items():
        path = model_path(arguments.out, name, training, seed)
        model = trained(raw, acquisition, seed, CLEAN_PATCHES, settings, path)
        for planes, lateral in PLANES.items():
            scores[f"{training}, {planes}"] = score(applied(model, raw, acquisition, lateral))
    return scores


def main() -> None:
    """Measure what is missing, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all cameras, photons, factors and widths")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--patches", type=int, default=5000, help="budget of a training")
    parser.add_argument("--only", default="", metavar="WORD", help="cells whose name contains it")
    parser.add_argument("--report", action="store_true", help="write the report only")
    parser.add_argument("--picture", action="store_true", help="draw the real stacks of the first seed only")
    parser.add_argument("--data", type=Path, default=find_data())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmark-output" / "noise", help="folder of the models")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "intensities.md", help="page with the table")
    arguments = parser.parse_args()
    if arguments.picture:
        picture = arguments.page.with_name("images") / "intensities.png"
        draw_stacks(arguments.data, arguments.out, arguments.seeds[0], picture)
        return
    kept = arguments.results / "noise-cells"
    cells = {cell.name: cell for cell in (*CORE, *(FULL if arguments.full else ()))}
    for seed in () if arguments.report else arguments.seeds:
        for name in (*cells, *REAL, *CLEAN):
            path = kept / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
            needs = cells[name].truth != "phantom" if name in cells else True
            if path.exists() or arguments.only not in name or (needs and not arguments.data.is_dir()):
                continue
            started = time.perf_counter()
            if name in cells:
                scores = measure_cell(cells[name], seed, arguments)
            else:
                scores = (measure_stack if name in REAL else measure_clean)(name, seed, arguments)
            record = {
                "cell": name,
                "seed": seed,
                "patches": CLEAN_PATCHES if name in CLEAN else arguments.patches,
                "seconds": round(time.perf_counter() - started, 1),
                "machine": describe_machine() | {"torch_threads": torch.get_num_threads()},
                "scores": scores,
            }
            kept.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{name}, seed {seed}: {record['seconds']} s", flush=True)
            write_report(arguments.results, arguments.page)
    write_report(arguments.results, arguments.page)


if __name__ == "__main__":
    main()
