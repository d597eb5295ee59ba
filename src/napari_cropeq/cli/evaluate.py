"""The command line's ``cropeq evaluate``: how well each method restores volumes that were degraded."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.evidence.evaluate.evaluation import Evaluation
    from napari_cropeq.evidence.evaluate.experiment import Experiment
    from napari_cropeq.evidence.evaluate.truth import Truth

__all__ = ["add_evaluate"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""

FILE = "evaluation.json"


def add_evaluate(commands: Any, show: Show) -> argparse.ArgumentParser:
    """Add ``evaluate`` to the subparsers ``commands``; ``show`` opens its progress bar."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate", help="degrade volumes, super-resolve them and compare with what they were"
    )
    parser.add_argument(
        "truth",
        nargs="+",
        metavar="TRUTH",
        help="an isotropic volume (any file that train reads), a folder of them, or a pattern in quotes",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results; a stopped run goes on there")
    parser.add_argument("--factors", type=_numbers, default=[2.0, 4.0], metavar="F,F", help="2,4 by default")
    parser.add_argument("--fwhm", type=float, help="width of the slice profile in voxels; the factor by default")
    parser.add_argument("--axis", choices="zyx", default="z", help="axis that is degraded")
    parser.add_argument(
        "--methods",
        type=_names,
        default=["cubic", "quintic", "fast"],
        metavar="M,M",
        help="cubic, quintic, fast (the default training), or a network: valid, padded, ...",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=_numbers, metavar="M,M", help="time budgets; 2 by default")
    budget.add_argument("--patches", type=int, help="patch budget")
    parser.add_argument("--preset", choices=("fast", "paper", "light-sheet"), default="fast", help="of the networks")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="e.g. filters=64; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rim", type=int, default=16, help="voxels left out of the scores on every side")
    parser.add_argument("--planes", choices=("x", "y", "z", "both"), help="as in export")
    parser.add_argument("--channel", type=int, default=0, help="number of the channel, from 0")
    parser.add_argument("--time", type=int, default=0, help="number of the time point, from 0")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.set_defaults(run=functools.partial(_evaluate, show=show))
    return parser


def _numbers(text: str) -> list[float]:
    try:
        return list(dict.fromkeys(float(word) for word in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers with commas between them") from error


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",")))


def _evaluate(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    from napari_cropeq.evidence.evaluate.evaluation import Evaluation
    from napari_cropeq.evidence.evaluate.experiment import check_method
    from napari_cropeq.evidence.evaluate.page import cuts, write_page
    from napari_cropeq.evidence.evaluate.seeds import spread_table
    from napari_cropeq.evidence.evaluate.table import result_table
    from napari_cropeq.evidence.records import read_results

    for method in arguments.methods:
        check_method(method)
    truths, notes = _truths(arguments, show)
    evaluation = Evaluation(_cells(arguments, truths), arguments.out)
    for note in (*notes, *cuts(evaluation)):
        print(note, file=sys.stderr)
    folder, command = evaluation.folder.parent, shlex.join(["cropeq", *sys.argv[1:]])
    try:
        with show() as update:
            for step in evaluation.run():
                now = step.experiment
                name = f"{now.truth.name} x{now.factor:g} {now.method} {now.budget}".rstrip()
                update(name, step.share, f"{step.stage} {step.detail}".rstrip())
                if step.stage == "done":
                    _write(evaluation)
    except KeyboardInterrupt as error:
        # A second one, a full disk or too little memory end the drawing; the cells are kept all the same.
        with contextlib.suppress(KeyboardInterrupt, OSError, MemoryError, RuntimeError):
            _write(evaluation)
            write_page(evaluation, command, notes)
        raise KeyboardInterrupt("Interrupted: finished cells are kept, and the same command goes on.") from error
    summary, results = _write(evaluation), evaluation.results()
    if not arguments.json:
        table = result_table(results, read_results(folder)) if len(truths) == 1 else spread_table(summary)
        print(table, end="")
        print(f"{folder / FILE}: PSNR and SSIM less a rim of {arguments.rim} voxels")
    files = [FILE, *write_page(evaluation, command, notes)]
    if not arguments.json:
        print(f"{folder}: {', '.join(files)}")
    report = {"evaluation": str(folder / FILE), "cells": results, "summary": summary}
    return report | {"files": [str(folder / name) for name in files]}


def _write(evaluation: Evaluation) -> dict[str, Any]:
    """Write all cells of the folder, and how those of this command spread over volumes, which is returned."""
    from napari_cropeq.evidence.evaluate.seeds import summarise
    from napari_cropeq.evidence.records import read_results, write_json

    folder = evaluation.folder.parent
    found = read_results(folder)
    summary = summarise(evaluation.results(), found)
    write_json(folder / FILE, {"cells": found, "summary": summary})
    return summary


def _truths(arguments: argparse.Namespace, show: Show) -> tuple[list[Truth], list[str]]:
    """Return the volumes, read, and what is to be said of how they were named."""
    from napari_cropeq.evidence.evaluate.test_set import TestSet

    test_set = TestSet(arguments.truth, arguments.channel, arguments.time)
    with show() as update:
        for name, share in test_set.read():
            update(f"reading {name}", share, "")
    return test_set.truths, test_set.notes


def _cells(arguments: argparse.Namespace, truths: Sequence[Truth]) -> list[Experiment]:
    """Return the cells in the order in which they are computed.

    All of a factor come before the next: first what is quick, of all volumes, then for each budget the networks, volume
    by volume, so that a stopped run has compared its methods on the same volumes.
    """
    from napari_cropeq.evidence.evaluate.experiment import Experiment
    from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS

    common = {"fwhm": arguments.fwhm, "axis": "zyx".index(arguments.axis), "rim": arguments.rim}
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
    """Return what is set otherwise than by default: by the preset, then one by one."""
    from napari_cropeq.core.training.config import PRESETS, TrainingConfig
    from napari_cropeq.evidence.evaluate.experiment import FIXED

    preset = {name: value for name, value in PRESETS[arguments.preset].items() if name not in FIXED}
    return preset | TrainingConfig.parse(arguments.set)
