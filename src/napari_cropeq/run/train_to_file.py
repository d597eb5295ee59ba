"""Train to a model file: a checkpoint keeps the training while it runs, and is removed at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import AccessError, MismatchError, OutputExistsError
from napari_cropeq.formats.image import Image, training_volumes

__all__ = [
    "OwnTraining",
    "check_model_free",
    "config_of",
    "is_training_unfinished",
    "load_checkpoint",
    "train_and_keep",
    "train_to_file",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnTraining:
    """Settings to train a model on an image.

    Parameters
    ----------
    config : TrainingConfig
        Budget and settings.
    fwhm : float, optional
        Width of the slice profile in the image's unit; the step by default.
    lateral_fwhm : float
        Width of the lateral point spread in the image's unit; 0 where it is not known.
    channels, times : sequence of int, optional
        Which to train on; None for all.
    """

    config: TrainingConfig
    fwhm: float | None = None
    lateral_fwhm: float = 0.0
    channels: Sequence[int] | None = (0,)
    times: Sequence[int] | None = (0,)


def config_of(given: Mapping[str, Any], preset: str = "fast", start: Model | None = None) -> TrainingConfig:
    """Return the settings of a training: those of a preset, or of a model to continue, with some replaced.

    Parameters
    ----------
    given : mapping
        Settings to replace, by name. A budget replaces the other kind of budget as well.
    preset : str
        Name of the preset; not used if there is a model to continue.
    start : Model, optional
        The model to continue.

    Raises
    ------
    ValueError
        If a setting is unknown or out of range, or ``start`` does not store its settings.
    """
    if start is None:
        return TrainingConfig.preset(preset, **given)
    if "minutes" in given or "patches" in given:
        given = {"minutes": None, "patches": None, **given}
    return replace(TrainingConfig.read(start.training.get("recipe")), **given)


def is_training_unfinished(path: Path) -> bool:
    """Return whether a training of the model ``path`` was interrupted."""
    return Checkpoint.beside(path, {}).exists


def check_model_free(path: Path, existing: str) -> None:
    """Raise OutputExistsError if a model or an unfinished training exists at ``path`` and ``existing`` is "refuse"."""
    if existing != "refuse":
        return
    if path.exists():
        raise OutputExistsError(
            f"The model {path} exists already.",
            'Choose another name, use it with existing="resume", or replace it with existing="overwrite".',
            setting="existing_model",
        )
    checkpoint = Checkpoint.beside(path, {}).path
    if checkpoint.exists():
        raise OutputExistsError(
            f"{checkpoint} holds an unfinished training.",
            'Complete it with existing="resume", or start again with existing="overwrite".',
            setting="unfinished",
        )


def train_to_file(
    path: Path,
    source: Image,
    acquisition: Acquisition,
    how: OwnTraining,
    device: str = "auto",
    existing: str = "refuse",
    start: Model | None = None,
) -> Generator[Progress, None, Model]:
    """Train on an image and save the model, yielding after every step; the generator returns the model.

    If it ends early, for any reason, a checkpoint beside ``path`` keeps the training.

    Parameters
    ----------
    path : Path
        The model file, ending in ``.safetensors``.
    source : Image
        The image.
    acquisition : Acquisition
        Its grid and slice profile.
    how : OwnTraining
        Channels, time points and settings.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``.
    existing : str
        ``refuse``: raise an error if a model or checkpoint exists; ``resume``: complete the checkpoint, or return the
        model if there is no checkpoint; ``overwrite``.
    start : Model, optional
        A model whose training is continued, with a new budget.

    Raises
    ------
    OutputExistsError
        If there is a model or a checkpoint, and ``existing`` is "refuse".
    ValueError
        If the image cannot be trained on, or the model or checkpoint is of another image or has other settings.
    OSError
        If the model or its checkpoint cannot be written.
    """
    check_model_free(path, existing)
    chosen = {"channels": how.channels, "times": how.times}
    described = source.describe() | {name: value and list(value) for name, value in chosen.items()}
    checkpoint = Checkpoint.beside(path, described)
    resume = existing == "resume" and checkpoint.exists
    if resume:
        logger.info("%s: resuming the training in %s", path, checkpoint.path.name)
        start = load_checkpoint(checkpoint, how.config, acquisition)
    elif existing == "resume" and path.is_file():
        return load_checkpoint(Checkpoint(path, described), how.config, acquisition)
    volumes = training_volumes(source, how.channels, how.times)
    training = Training(volumes, acquisition, how.config, device, start=start, resume=resume)
    with _full_disk(checkpoint):
        yield from train_and_keep(training, checkpoint)
        model = _saved(training, path, checkpoint)
    checkpoint.remove()
    return model


@contextmanager
def _full_disk(checkpoint: Checkpoint) -> Iterator[None]:
    """Say of a full disk what is kept of the training, and that it can be resumed."""
    try:
        yield
    except AccessError as error:
        if error.setting != "space":
            raise
        kept = f" {checkpoint.path.name} keeps the training up to its last save." if checkpoint.exists else ""
        remedy = 'Make space, then continue with existing="resume".'
        raise AccessError(error.problem + kept, remedy, setting="space_to_resume") from error


def train_and_keep(
    training: Training, checkpoint: Checkpoint, on_disk_error: Callable[[OSError], None] | None = None
) -> Generator[Progress, None, None]:
    """Run a training, yielding after every step; a checkpoint keeps it while it runs, and if it ends early.

    Parameters
    ----------
    training : Training
        The training to run.
    checkpoint : Checkpoint
        Keeps the training. It is not removed here: only the caller knows when the model is saved.
    on_disk_error : callable, optional
        Called with the error if the checkpoint cannot be written; the training then continues. Without it, the
        error ends the training.

    Raises
    ------
    OSError
        If the checkpoint cannot be written, without ``on_disk_error``.
    """
    complete = False
    try:
        with closing(training.run()) as steps:  # closing validates the weights learnt since the last validation
            for step in steps:
                try:
                    checkpoint.keep(training)
                except OSError as error:
                    if on_disk_error is None:
                        raise
                    on_disk_error(error)
                yield step
        complete = True
        done = training.summary()
        logger.info("%s: trained on %d patches in %.1f s", checkpoint.path.name, done["patches"], done["seconds"])
    finally:
        if not complete:
            _keep_last(training, checkpoint)


def _saved(training: Training, path: Path, checkpoint: Checkpoint) -> Model:
    """Save the model of a training and return it; if it cannot be saved, the checkpoint keeps it."""
    model = training.model(checkpoint.source)
    try:
        model.save(path)
    except BaseException:
        _keep_last(training, checkpoint)
        raise
    return model


def _keep_last(training: Training, checkpoint: Checkpoint) -> None:
    """Keep a training that has ended early; an error here must not hide the one that ended it."""
    if training.summary()["patches"]:
        with suppress(OSError, MemoryError, RuntimeError):
            checkpoint.keep(training, now=True)


def load_checkpoint(checkpoint: Checkpoint, config: TrainingConfig, acquisition: Acquisition) -> Model:
    """Return the model of a checkpoint, whose training is to be completed.

    Raises
    ------
    ValueError
        If it is of another image, acquisition or training config.
    """
    model = checkpoint.load(config)
    if model.acquisition != acquisition:
        raise MismatchError(
            f"The voxel size or FWHM differs from that of the training in {checkpoint.path.name}.",
            "Give the same values, or remove the checkpoint to start again.",
            setting="restart",
        )
    return model
