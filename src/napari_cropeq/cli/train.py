"""The command line's ``cropeq train``: a model from a volume itself."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.core.training.checkpoint import Checkpoint
    from napari_cropeq.core.training.config import TrainingConfig
    from napari_cropeq.core.training.progress import Progress

__all__ = ["add_config", "add_train", "config_of"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""


def add_train(commands: Any, show: Show) -> argparse.ArgumentParser:
    """Add ``train`` to the subparsers ``commands``; ``show`` opens its progress bar."""
    parser: argparse.ArgumentParser = commands.add_parser("train", help="train a model on a volume itself")
    parser.add_argument("input", type=Path, metavar="INPUT", help="TIFF, OME-TIFF, ImageJ, OME-Zarr or NIfTI")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.safetensors")
    parser.add_argument("--axial", choices="zyx", help="low-resolution axis; the one of the largest step by default")
    add_config(parser)
    parser.add_argument("--settings", action=_Settings, nargs=0, help="list all settings with each preset's values")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--continue", type=Path, dest="start", metavar="MODEL", help="go on from a model and its settings"
    )
    start.add_argument("--resume", action="store_true", help="complete a training that was interrupted")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model, or start anew")
    parser.set_defaults(run=functools.partial(_train, show=show))
    return parser


def add_config(parser: Any) -> None:
    """Add to a parser, or a group of one, what says what is trained on and how: see :func:`config_of`."""
    parser.add_argument("--channel", type=_indices, default=[0], metavar="N,N|all", help="from 0, 0 by default")
    parser.add_argument("--time", type=_indices, default=[0], metavar="N,N|all", help="from 0, 0 by default")
    parser.add_argument("--fwhm", type=float, help="width of the slice profile in the file's unit; the step by default")
    parser.add_argument(
        "--lateral-fwhm",
        type=float,
        default=0.0,
        help="width of the lateral point spread; 0, as in the paper, if unknown",
    )
    parser.add_argument("--preset", choices=("fast", "paper", "light-sheet"), default="fast", help="fast by default")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="time budget; 2 by default")
    budget.add_argument("--patches", type=int, help="patch budget: the same seed then gives the same bits on the CPU")
    parser.add_argument("--filters", type=int, help="feature maps between layers; 32 (fast) or 256 by default")
    parser.add_argument("--seed", type=int, help="fixes weights and patches; 0 by default")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting; repeatable; see --settings"
    )


class _Settings(argparse.Action):
    """Prints the fields of a recipe and what each preset sets them to, then ends."""

    def __call__(self, *_: Any) -> None:
        from napari_cropeq.core.training.config import PRESETS, TrainingConfig

        configs = {name: TrainingConfig.preset(name) for name in PRESETS}
        print(f"{'setting':12} {' '.join(f'{name:>12}' for name in configs)}  what")
        for field in dataclasses.fields(TrainingConfig):
            values = " ".join(f"{_short(getattr(config, field.name)):>12}" for config in configs.values())
            choices = field.metadata.get("choices")
            print(f"{field.name:12} {values}  {field.metadata['help']}{f' {choices}' if choices else ''}")
        sys.exit(0)


def _short(value: Any) -> str:
    return "-" if value is None else str(value)


def _indices(text: str) -> list[int] | None:
    """Return numbers with commas between them; None for all."""
    if text == "all":
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers with commas between them, or all") from error


def _train(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    from napari_cropeq.core.model import Model, check_model_path
    from napari_cropeq.core.training.checkpoint import Checkpoint
    from napari_cropeq.formats.image import acquisition_of, open_source
    from napari_cropeq.run.train_to_file import OwnTraining, train_to_file

    output = check_model_path(arguments.output)
    if output.exists() and not arguments.overwrite:
        raise FileExistsError(f"Got {output}, which exists already: choose another name or add --overwrite.")
    checkpoint = Checkpoint.beside(output, {})
    if arguments.start is not None and arguments.start.resolve() == checkpoint.path.resolve():
        raise ValueError(
            f"Got {arguments.start} to go on from, where {output.name} is kept until it is complete, expected another "
            "name: choose another name for the output, or complete that training (--resume)."
        )
    start = None if arguments.start is None else Model.load(arguments.start)
    config = config_of(arguments, start)
    source = open_source(arguments.input)
    axial = "zyx".index(arguments.axial) if arguments.axial else None
    size = tuple(arguments.voxel_size) if arguments.voxel_size else None
    acquisition = acquisition_of(source, size, axial, arguments.fwhm, arguments.lateral_fwhm)
    how = OwnTraining(config, arguments.fwhm, arguments.lateral_fwhm, arguments.channel, arguments.time)
    existing = _existing(arguments, checkpoint)
    model = _run(train_to_file(output, source, acquisition, how, arguments.device, existing, start), show)
    summary = model.training
    report = {
        "model": str(output),
        "factor": acquisition.factor,
        "patches": summary["patches"],
        "seconds": summary["seconds"],
        "validation": min(loss for *_, loss in summary["losses"]),
        "fingerprint": model.fingerprint,
    }
    if not arguments.json:
        print(f"{output}: {report['patches']} patches in {report['seconds']:.0f} s, factor {acquisition.factor:.4g}")
    return report


def config_of(arguments: argparse.Namespace, start: Model | None) -> TrainingConfig:
    """Return the settings: of the preset, or of the model gone on from, with those given instead."""
    from napari_cropeq.core.training.config import TrainingConfig

    names = ("minutes", "patches", "filters", "seed")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    given |= TrainingConfig.parse(arguments.set)
    if start is None:
        return TrainingConfig.preset(arguments.preset, **given)
    if "patches" in given or "minutes" in given:
        given = {"minutes": None, "patches": None} | given
    return dataclasses.replace(TrainingConfig.read(start.training.get("recipe")), **given)


def _existing(arguments: argparse.Namespace, checkpoint: Checkpoint) -> str:
    """Return what is done with an interrupted training that is kept in ``checkpoint``."""
    if arguments.overwrite:
        return "overwrite"
    if checkpoint.exists and not arguments.resume:
        raise FileExistsError(
            f"Got {checkpoint.path}, a training that was interrupted: add --resume to complete it, or --overwrite to "
            "start anew."
        )
    return "resume" if arguments.resume else "refuse"


def _run(steps: Generator[Progress, None, Model], show: Show) -> Model:
    """Show the progress of a training, and return its model."""
    validation, note = math.nan, ""
    try:
        with closing(steps), show() as update:
            while True:
                step = next(steps)
                validation, note = step.validation or validation, step.note
                told = f"{step.rate:.0f}/s, loss {step.loss:.4f}, validation {validation:.4f}"
                update("training", step.fraction, told)
    except StopIteration as end:
        model: Model = end.value
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Interrupted: the same command with --resume completes the training.") from error
    if note:
        print(note, file=sys.stderr)
    return model
