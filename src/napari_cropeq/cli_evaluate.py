"""The command line's ``cropeq evaluate``: how well each method restores a truth that was degraded."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.evidence.evaluation import Cell
    from napari_cropeq.evidence.truth import Truth

__all__ = ["add_evaluate"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""

FILE = "evaluation.json"


def add_evaluate(commands: Any, show: Show) -> argparse.ArgumentParser:
    """Add ``evaluate`` to the subparsers ``commands``; ``show`` opens its progress bar."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate", help="degrade a volume, super-resolve it and compare with what it was"
    )
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="an isotropic volume: any file that train reads")
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
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers with commas between them") from error


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _evaluate(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    from napari_cropeq.evidence.evaluation import Evaluation, read_results, write_json
    from napari_cropeq.evidence.evaluation_table import result_table
    from napari_cropeq.evidence.truth import Truth
    from napari_cropeq.volume.sources import open_source

    truth = Truth.of(open_source(arguments.truth), arguments.channel, arguments.time)
    evaluation = Evaluation(_cells(arguments, truth), arguments.out)
    for note in _notes(evaluation.cells):
        print(note, file=sys.stderr)
    try:
        with show() as update:
            for step in evaluation.run():
                name = f"{step.cell.method} x{step.cell.factor:g} {step.cell.budget}".rstrip()
                update(name, step.share, f"{step.stage} {step.detail}".rstrip())
                if step.result is not None:
                    write_json(evaluation.folder.parent / FILE, {"cells": read_results(evaluation.folder.parent)})
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Interrupted: finished cells are kept, and the same command goes on.") from error
    results = evaluation.results()
    if not arguments.json:
        print(result_table(results, read_results(evaluation.folder.parent)), end="")
        print(f"{evaluation.folder.parent / FILE}: PSNR and SSIM less a rim of {arguments.rim} voxels")
    return {"evaluation": str(evaluation.folder.parent / FILE), "cells": results}


def _cells(arguments: argparse.Namespace, truth: Truth) -> list[Cell]:
    """Return the cells in the order in which they are computed: all methods of a factor before the next factor."""
    from napari_cropeq.evidence.evaluation import Cell
    from napari_cropeq.evidence.upscaling import INTERPOLATIONS

    common = {"fwhm": arguments.fwhm, "axis": "zyx".index(arguments.axis), "rim": arguments.rim}
    training = {"overrides": _settings(arguments), "seed": arguments.seed}
    training |= {"planes": arguments.planes, "device": arguments.device}
    minutes = [None] if arguments.patches is not None else arguments.minutes or [2.0]
    cells = []
    for factor in arguments.factors:
        quick = [method for method in arguments.methods if method in INTERPOLATIONS]
        cells += [Cell(truth, factor, method, **common) for method in quick]
        for budget in minutes:
            for method in (method for method in arguments.methods if method not in INTERPOLATIONS):
                cells.append(Cell(truth, factor, method, budget, arguments.patches, **common, **training))
    return cells


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what is set otherwise than by default: by the preset, then one by one."""
    from napari_cropeq.core.recipe import PRESETS, Recipe
    from napari_cropeq.evidence.evaluation import FIXED

    preset = {name: value for name, value in PRESETS[arguments.preset].items() if name not in FIXED}
    return preset | Recipe.parse(arguments.set)


def _notes(cells: tuple[Cell, ...]) -> list[str]:
    """Return, once each, how the truth is treated and what of it is not compared."""
    notes: list[str] = []
    for cell in cells:
        whole, reach = cell.truth.shape[cell.axis], cell.compared.shape[cell.axis]
        cut = (
            f"Factor {cell.factor:g} does not divide {whole} voxels along {'zyx'[cell.axis]}: "
            f"the last {whole - reach} are not compared."
        )
        for note in (cell.truth.treatment, cut if reach < whole else None):
            if note is not None and note not in notes:
                notes.append(note)
    return notes
