"""``cropeq evaluate``: how well each method restores volumes that were degraded."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.options import PRESETS, add_budget, add_command, add_device, add_out, add_place, numbers
from napari_cropeq.cli.progress import progress_bar

if TYPE_CHECKING:
    from napari_cropeq.evidence.evaluate.evaluation import Evaluation
    from napari_cropeq.evidence.evaluate.experiment import Experiment
    from napari_cropeq.evidence.evaluate.truth import Truth

__all__ = ["add_evaluate"]

FILE = "evaluation.json"


def add_evaluate(commands: Any) -> None:
    """Add ``evaluate`` to the subparsers ``commands``."""
    examples = [
        "cropeq evaluate isotropic.ome.tif -o results/ --factors 2,4",
        "cropeq evaluate truths/ -o results/ --factors 4 --methods quintic,fast --patches 20000",
    ]
    summary = "degrade isotropic volumes, super-resolve them, and compare with the truth"
    parser = add_command(commands, "evaluate", summary, examples, _evaluate)
    parser.add_argument(
        "truth", nargs="+", metavar="TRUTH", help="an isotropic image, a folder of images, or a pattern in quotes"
    )
    add_out(parser, "FOLDER", "folder for the results; the same command resumes a stopped run there", type=Path)
    parser.add_argument(
        "--factors", type=numbers, default=[2.0, 4.0], metavar="F,F", help="factors to degrade by (default 2,4)"
    )
    parser.add_argument(
        "--fwhm",
        type=float,
        metavar="W",
        help="full width at half maximum of the slice profile, in voxels (default: the factor)",
    )
    parser.add_argument("--axis", choices="zyx", default="z", help="axis to degrade (default z)")
    parser.add_argument(
        "--methods",
        type=_names,
        default=["cubic", "quintic", "fast"],
        metavar="M,M",
        help="cubic, quintic, fast (the default training), or a network: valid, padded, ... (default "
        "cubic,quintic,fast)",
    )
    add_budget(parser, numbers, "M,M", "train for this many minutes; several budgets are compared (default 2)")
    parser.add_argument("--preset", choices=PRESETS, default="fast", help="settings of the networks (default fast)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the trainings (default 0)")
    parser.add_argument(
        "--border",
        "--rim",
        type=int,
        default=16,
        metavar="N",
        help="voxels on every side that the scores leave out (default 16)",
    )
    parser.add_argument(
        "--planes",
        choices=("x", "y", "z", "both"),
        help="planes that go through the network (default: one plane, as in the paper)",
    )
    add_place(parser)
    add_device(parser)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",")))


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.evidence.evaluate.evaluation import Evaluation
    from napari_cropeq.evidence.evaluate.experiment import check_method
    from napari_cropeq.evidence.evaluate.page import cuts, write_page
    from napari_cropeq.evidence.evaluate.seeds import spread_table
    from napari_cropeq.evidence.evaluate.table import score_table
    from napari_cropeq.evidence.records import read_records

    for method in arguments.methods:
        check_method(method)
    truths, notes = _truths(arguments)
    evaluation = Evaluation(_experiments(arguments, truths), arguments.out)
    for note in (*notes, *cuts(evaluation)):
        print(note, file=sys.stderr)
    folder, command = evaluation.folder.parent, shlex.join(["cropeq", *sys.argv[1:]])
    try:
        with progress_bar() as update:
            for step in evaluation.run():
                now = step.experiment
                name = f"{now.truth.name} x{now.factor:g} {now.method} {now.budget}".rstrip()
                update(name, step.share, f"{step.stage} {step.detail}".rstrip())
                if step.stage == "done":
                    _write(evaluation)
    except KeyboardInterrupt as error:
        # A second interruption, a full disk or too little memory ends the drawing; the experiments are kept.
        with contextlib.suppress(KeyboardInterrupt, OSError, MemoryError, RuntimeError):
            _write(evaluation)
            write_page(evaluation, command, notes)
        raise KeyboardInterrupt("Interrupted. Run the same command again to compute the other experiments.") from error
    summary, results = _write(evaluation), evaluation.records()
    if not arguments.json:
        table = score_table(results, read_records(folder)) if len(truths) == 1 else spread_table(summary)
        print(table, end="")
        print(f"{folder / FILE}: PSNR and SSIM without a border of {arguments.border} voxels")
    files = [FILE, *write_page(evaluation, command, notes)]
    if not arguments.json:
        print(f"{folder}: {', '.join(files)}")
    report = {"evaluation": str(folder / FILE), "cells": results, "summary": summary}
    return report | {"files": [str(folder / name) for name in files]}


def _write(evaluation: Evaluation) -> dict[str, Any]:
    """Write all experiments of the folder; return the spread over volumes of those of this command."""
    from napari_cropeq.evidence.evaluate.seeds import summarise
    from napari_cropeq.evidence.records import read_records, write_json

    folder = evaluation.folder.parent
    found = read_records(folder)
    summary = summarise(evaluation.records(), found)
    write_json(folder / FILE, {"cells": found, "summary": summary})
    return summary


def _truths(arguments: argparse.Namespace) -> tuple[list[Truth], list[str]]:
    """Return the volumes and the notes on how they were found."""
    from napari_cropeq.evidence.evaluate.test_set import TestSet

    test_set = TestSet(arguments.truth, arguments.channel, arguments.time)
    with progress_bar() as update:
        for name, share in test_set.read():
            update(f"reading {name}", share, "")
    return test_set.truths, test_set.notes


def _experiments(arguments: argparse.Namespace, truths: Sequence[Truth]) -> list[Experiment]:
    """Return the experiments in the order in which they are computed.

    Factor by factor: first the interpolations of all volumes, then for each budget the networks, volume by volume. So
    a stopped run has compared its methods on the same volumes.
    """
    from napari_cropeq.evidence.evaluate.experiment import Experiment
    from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS

    common = {"fwhm": arguments.fwhm, "axis": "zyx".index(arguments.axis), "border": arguments.border}
    training = {"overrides": _settings(arguments), "seed": arguments.seed}
    training |= {"planes": arguments.planes, "device": arguments.device}
    minutes = [None] if arguments.patches is not None else arguments.minutes or [2.0]
    quick = [method for method in arguments.methods if method in INTERPOLATIONS]
    networks = [method for method in arguments.methods if method not in INTERPOLATIONS]
    experiments = []
    for factor in arguments.factors:
        experiments += [Experiment(truth, factor, method, **common) for truth in truths for method in quick]
        for budget in minutes:
            for truth in truths:
                own = (truth, factor)
                experiments += [
                    Experiment(*own, name, budget, arguments.patches, **common, **training) for name in networks
                ]
    return experiments


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that differ from the default: those of the preset, then the single ones."""
    from napari_cropeq.core.training.config import PRESETS, TrainingConfig
    from napari_cropeq.evidence.evaluate.experiment import FIXED

    preset = {name: value for name, value in PRESETS[arguments.preset].items() if name not in FIXED}
    return preset | TrainingConfig.parse(arguments.set)
