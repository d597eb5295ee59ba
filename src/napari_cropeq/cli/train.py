"""``cropeq train``: train a model on an image itself."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.options import (
    PRESETS,
    add_budget,
    add_command,
    add_device,
    add_opening,
    add_out,
    add_voxel_size,
    image_path,
    integers,
)
from napari_cropeq.cli.progress import progress_bar
from napari_cropeq.errors import MismatchError, OutputExistsError
from napari_cropeq.short_repr import quality_of

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.core.training.checkpoint import Checkpoint
    from napari_cropeq.core.training.config import TrainingConfig
    from napari_cropeq.core.training.progress import Progress

__all__ = ["add_config", "add_train", "training_config"]


def add_train(commands: Any) -> None:
    """Add ``train`` to the subparsers ``commands``."""
    examples = [
        "cropeq train stack.ome.tif -o stack.safetensors",
        "cropeq train stack.tif -o stack.safetensors --voxel-size 2.31 0.32 0.32 --channel all --minutes 10",
    ]
    parser = add_command(commands, "train", "train a model on an image itself", examples, _train)
    parser.add_argument("input", type=image_path, metavar="IMAGE", help="an image, or its address")
    add_out(parser, "MODEL", "file to save the model in; its name ends in .safetensors", type=Path)
    add_voxel_size(parser)
    add_opening(parser)
    parser.add_argument(
        "--axial", choices="zyx", help="axis of low resolution (default: the one with the largest step)"
    )
    add_config(parser)
    parser.add_argument(
        "--settings", action=_Settings, nargs=0, help="list all settings and their values in each preset"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--continue", type=Path, dest="start", metavar="MODEL", help="start from this model and its settings"
    )
    start.add_argument("--resume", action="store_true", help="complete a training that was interrupted")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing model, or start an interrupted training again"
    )
    add_device(parser)


def add_config(parser: Any) -> None:
    """Add the options of the training data and of the training; see :func:`training_config`."""
    parser.add_argument(
        "--channel", type=_indices, default=[0], metavar="N,N|all", help="channels, counted from 0 (default 0)"
    )
    parser.add_argument(
        "--time", type=_indices, default=[0], metavar="N,N|all", help="time points, counted from 0 (default 0)"
    )
    parser.add_argument(
        "--fwhm",
        type=float,
        metavar="W",
        help="full width at half maximum of the slice profile, in the unit of the file (default: the axial step)",
    )
    parser.add_argument(
        "--lateral-fwhm",
        type=float,
        default=0.0,
        metavar="W",
        help="width of the blur within slices, in the unit of the file; 0 (default, as in the paper) if not known",
    )
    parser.add_argument("--preset", choices=PRESETS, default="fast", help="values of all settings (default fast)")
    add_budget(parser)
    parser.add_argument(
        "--filters", type=int, metavar="N", help="feature maps between layers (default 32, or 256 with --preset paper)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of the first weights and of the patches (default 0)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change any other setting; may be repeated"
    )


class _Settings(argparse.Action):
    """Prints all settings of a training with their values in each preset, then exits."""

    def __call__(self, *_: Any) -> None:
        from napari_cropeq.core.training.config import PRESETS, TrainingConfig

        configs = {name: TrainingConfig.preset(name) for name in PRESETS}
        print(f"{'setting':12} {' '.join(f'{name:>12}' for name in configs)}  meaning")
        for field in dataclasses.fields(TrainingConfig):
            values = " ".join(f"{_short(getattr(config, field.name)):>12}" for config in configs.values())
            choices = field.metadata.get("choices")
            print(f"{field.name:12} {values}  {field.metadata['help']}{f' {choices}' if choices else ''}")
        sys.exit(0)


def _short(value: Any) -> str:
    return "-" if value is None else str(value)


def _indices(text: str) -> list[int] | None:
    """Return the integers that are separated by commas; None for all."""
    if text == "all":
        return None
    return integers(text)


def _train(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.core.model import Model, check_model_path
    from napari_cropeq.core.training.checkpoint import Checkpoint
    from napari_cropeq.formats.image import acquisition_of
    from napari_cropeq.formats.open import open_image
    from napari_cropeq.run.train_to_file import OwnTraining, train_to_file

    output = check_model_path(arguments.out)
    if output.exists() and not arguments.overwrite:
        raise OutputExistsError(f"{output} exists already.", setting="existing")
    checkpoint = Checkpoint.beside(output, {})
    if arguments.start is not None and arguments.start.resolve() == checkpoint.path.resolve():
        raise MismatchError(
            f"{arguments.start} is the interrupted training of {output.name} itself.",
            "Complete it with --resume, or choose another output.",
        )
    start = None if arguments.start is None else Model.load(arguments.start)
    config = training_config(arguments, start)
    source = open_image(arguments.input, arguments.allow_missing, arguments.scene)
    axial = "zyx".index(arguments.axial) if arguments.axial else None
    size = tuple(arguments.voxel_size) if arguments.voxel_size else None
    acquisition = acquisition_of(source, size, axial, arguments.fwhm, arguments.lateral_fwhm)
    how = OwnTraining(config, arguments.fwhm, arguments.lateral_fwhm, arguments.channel, arguments.time)
    existing = _existing(arguments, checkpoint)
    model = _run(train_to_file(output, source, acquisition, how, arguments.device, existing, start))
    summary = model.training
    report = {
        "model": str(output),
        "factor": acquisition.factor,
        "patches": summary["patches"],
        "seconds": summary["seconds"],
        "gain": summary["gain"],
        "validation": min(loss for *_, loss in summary["losses"]),
        "fingerprint": model.fingerprint,
    }
    if not arguments.json:
        spent = f"{report['patches']} patches in {report['seconds']:.0f} s, factor {acquisition.factor:.4g}"
        print(f"{output}: {spent}, {quality_of(summary)['quality']}")
    return report


def training_config(arguments: argparse.Namespace, start: Model | None) -> TrainingConfig:
    """Return the settings of the preset or of the model to start from, changed by the options that are given."""
    from napari_cropeq.core.training.config import TrainingConfig
    from napari_cropeq.run.train_to_file import config_of

    names = ("minutes", "patches", "filters", "seed")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return config_of(given | TrainingConfig.parse(arguments.set), arguments.preset, start)


def _existing(arguments: argparse.Namespace, checkpoint: Checkpoint) -> str:
    """Return what to do with the interrupted training in ``checkpoint``."""
    if arguments.overwrite:
        return "overwrite"
    if checkpoint.exists and not arguments.resume:
        raise OutputExistsError(f"{checkpoint.path} is a training that was interrupted.", setting="unfinished")
    return "resume" if arguments.resume else "refuse"


def _run(steps: Generator[Progress, None, Model]) -> Model:
    """Show the progress of a training and return its model."""
    validation, note = "", ""
    try:
        with closing(steps), progress_bar() as update:
            while True:
                step = next(steps)
                note = step.note
                if step.validation is not None:
                    validation = f", validation {step.validation:.4f}"
                update("training", step.fraction, f"{step.rate:.0f}/s, loss {step.loss:.4f}{validation}")
    except StopIteration as end:
        model: Model = end.value
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("Interrupted. To complete the training, run the same command with --resume.") from error
    if note:
        print(note, file=sys.stderr)
    return model
