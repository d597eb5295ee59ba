"""Training to a model file: kept in a checkpoint while it runs, resumed from there, and cleaned up at its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.core.training.training import Training
from napari_cropeq.formats.image import Source, training_volumes

__all__ = [
    "OwnTraining",
    "check_model_free",
    "is_training_unfinished",
    "load_checkpoint",
    "train_and_keep",
    "train_to_file",
]


@dataclass(frozen=True)
class OwnTraining:
    """How a model is trained on an image.

    Parameters
    ----------
    config : TrainingConfig
        Budget and settings.
    fwhm : float, optional
        Width of the slice profile in the image's unit; the step by default.
    lateral_fwhm : float
        Width of the lateral point spread in the image's unit; 0 where it is not known.
    channels, times : sequence of int, optional
        What is trained on; None for all.
    """

    config: TrainingConfig
    fwhm: float | None = None
    lateral_fwhm: float = 0.0
    channels: Sequence[int] | None = (0,)
    times: Sequence[int] | None = (0,)


def is_training_unfinished(path: Path) -> bool:
    """Return whether a training of the model ``path`` was interrupted."""
    return Checkpoint.beside(path, {}).exists


def check_model_free(path: Path, existing: str) -> None:
    """Raise FileExistsError if a model or an unfinished training stands at ``path`` and is to be refused."""
    if existing != "refuse":
        return
    for there in (path, Checkpoint.beside(path, {}).path):
        if there.exists():
            raise FileExistsError(
                f"Got {there}, which exists already: choose another name, go on from it (--resume), or allow "
                "overwriting (--overwrite)."
            )


def train_to_file(
    path: Path,
    source: Source,
    acquisition: Acquisition,
    how: OwnTraining,
    device: str = "auto",
    existing: str = "refuse",
    start: Model | None = None,
) -> Generator[Progress, None, Model]:
    """Train on an image and save the model, yielding after every step; the generator returns the model.

    Whatever ends it early, what was learnt is kept in a checkpoint beside ``path``.

    Parameters
    ----------
    path : Path
        The model file, ending in ``.safetensors``.
    source : Source
        The image.
    acquisition : Acquisition
        Its grid and slice profile.
    how : OwnTraining
        What to train on, and with which settings.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    existing : str
        ``refuse`` a model or checkpoint that is there; ``resume``: complete the checkpoint, or return the model if
        there is no checkpoint; ``overwrite``.
    start : Model, optional
        A model whose training is continued, with a new budget.

    Raises
    ------
    FileExistsError
        If there is a model or a checkpoint, and ``existing`` is "refuse".
    ValueError
        If the image cannot be trained on, or what is there is of another image or of other settings.
    OSError
        If the model or its checkpoint cannot be written.
    """
    check_model_free(path, existing)
    chosen = {"channels": how.channels, "times": how.times}
    described = source.describe() | {name: value and list(value) for name, value in chosen.items()}
    checkpoint = Checkpoint.beside(path, described)
    resume = existing == "resume" and checkpoint.exists
    if resume:
        start = load_checkpoint(checkpoint, how.config, acquisition)
    elif existing == "resume" and path.is_file():
        return load_checkpoint(Checkpoint(path, described), how.config, acquisition)
    volumes = training_volumes(source, how.channels, how.times)
    training = Training(volumes, acquisition, how.config, device, start=start, resume=resume)
    yield from train_and_keep(training, checkpoint)
    model = training.model(described)
    try:
        model.save(path)
    except BaseException:
        _keep_last(training, checkpoint)
        raise
    checkpoint.remove()
    return model


def train_and_keep(
    training: Training, checkpoint: Checkpoint, on_disk_error: Callable[[OSError], None] | None = None
) -> Generator[Progress, None, None]:
    """Run a training, yielding after every step; what was learnt is kept while it runs, and if it ends early.

    Parameters
    ----------
    training : Training
        What to run.
    checkpoint : Checkpoint
        Where it is kept. It is not removed here: only the caller knows when the model is safe.
    on_disk_error : callable, optional
        Called with the error if the checkpoint cannot be written; the training then goes on. By default it ends.

    Raises
    ------
    OSError
        If the checkpoint cannot be written, without ``on_disk_error``.
    """
    whole = False
    try:
        with closing(training.run()) as steps:  # closing validates what was learnt since the last time
            for step in steps:
                try:
                    checkpoint.keep(training)
                except OSError as error:
                    if on_disk_error is None:
                        raise
                    on_disk_error(error)
                yield step
        whole = True
    finally:
        if not whole:
            _keep_last(training, checkpoint)


def _keep_last(training: Training, checkpoint: Checkpoint) -> None:
    """Keep a training that has ended early; a full disk or memory does not hide what ended it."""
    if training.summary()["patches"]:
        with suppress(OSError, MemoryError, RuntimeError):
            checkpoint.keep(training, now=True)


def load_checkpoint(checkpoint: Checkpoint, config: TrainingConfig, acquisition: Acquisition) -> Model:
    """Return what a checkpoint holds, to be completed.

    Raises
    ------
    ValueError
        If it is of another image, acquisition or recipe.
    """
    model = checkpoint.load(config)
    if model.acquisition != acquisition:
        raise ValueError(
            f"Got another voxel size or FWHM than the training in {checkpoint.path.name} had, expected the same: give "
            "the same, or start anew."
        )
    return model
