"""The default training with one setting changed at a time, at equal numbers of patches or minutes.

Each experiment is saved when it finishes; the same command continues a stopped run. Prints a table and writes
results/recipes.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.evidence.evaluate.evaluation import Evaluation
from napari_cropeq.evidence.evaluate.experiment import Experiment
from napari_cropeq.evidence.evaluate.table import decibels, markdown
from napari_cropeq.evidence.evaluate.truth import Truth
from napari_cropeq.evidence.records import write_json
from napari_cropeq.formats.open import open_image
from training import ROOT, VOLUMES, find_data

VARIANTS: tuple[tuple[str, ...], ...] = (
    (),
    ("optimiser=adamw",),
    ("optimiser=adamw", "batch=16"),
    ("schedule=constant", "average=0.99"),
    ("average=0.98",),
    ("rate=0.0005",),
    ("rate=0.002",),
    ("batch=2",),
    ("batch=8",),
    ("filters=48", "blocks=4"),
    ("filters=64", "blocks=3"),
    ("edge_weight=0.0",),
    ("edge_weight=3.0",),
    ("intensity=0.2",),
    ("gradient=0.0",),
    ("gradient=0.8",),
    ("rotations=any",),
    ("match_noise=false",),
)
PLACES = (("MRI", 2.0), ("MRI", 2.5), ("MRI", 4.0), ("EM", 4.0), ("brain", 4.0))


def main() -> int:
    """Run the missing experiments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of each training")
    parser.add_argument("--patches", type=int, help="patches of each training, instead; independent of a busy machine")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--data", type=Path, default=find_data())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmark-output" / "recipes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    truths = {n: Truth.of(open_image(p)) for n, f in VOLUMES.items() if (p := arguments.data / f).exists()}
    minutes = None if arguments.patches else arguments.minutes
    rows, found = [], []
    for volume, factor in PLACES:
        if volume not in truths:
            print(f"SKIPPED {volume}: there is no {arguments.data / VOLUMES[volume]}")
            continue
        quintic = Experiment(truths[volume], factor, "quintic", device="cpu")
        wanted = [
            (words, kind) for kind in ("subpixel", "valid") for words in VARIANTS if kind == "subpixel" or not words
        ]
        experiments = [
            Experiment(
                truths[volume],
                factor,
                kind,
                minutes,
                arguments.patches,
                overrides=TrainingConfig.parse(words),
                device="cpu",
            )
            for words, kind in wanted
        ]
        evaluation = Evaluation([quintic, *experiments], arguments.out)
        for step in evaluation.run():
            if step.record is None:
                continue
            found.append(step.record)
            if step.experiment is quintic:
                base = step.record["scores"]["psnr"]
                continue
            words, kind = wanted[step.number - 1]
            psnr, training = step.record["scores"]["psnr"], step.record["training"]
            rows.append(
                [volume, f"{factor:g}", kind, ", ".join(words) or "default", decibels(psnr), f"{psnr - base:+.2f}"]
            )
            rows[-1] += [str(training["patches"]), str(round(step.record["inference"]["voxels_per_second"] / 1e3))]
            print(" ".join(rows[-1]), flush=True)
    if found:
        write_json(ROOT / "benchmarks" / "results" / "recipes.json", {"cells": found})
        header = ["volume", "factor", "network", "setting", "PSNR (dB)", "over quintic", "patches", "kvoxel/s"]
        print(markdown(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
