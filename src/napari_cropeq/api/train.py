"""Train a model on a volume itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_cropeq.api.arguments import check_callback, model_of
from napari_cropeq.api.image import sampled
from napari_cropeq.api.progress import Callback, reporting
from napari_cropeq.core.devices.device import choose_device
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import SUFFIX, Model, check_model_path
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig, fits
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.core.training.training import Training
from napari_cropeq.core.whole_file import path_of
from napari_cropeq.errors import ArgumentError, WrongTypeError
from napari_cropeq.formats.image import Image, training_volumes
from napari_cropeq.run.train_to_file import config_of, load_checkpoint, train_and_keep

__all__ = ["train"]


def train(
    data: Any, voxel_size: Sequence[float] | None = None, *,
    axial: str | int | None = None, fwhm: Any = None, lateral_fwhm: float = 0.0,
    preset: str = "fast", minutes: float | None = None, patches: int | None = None,
    channels: int | Sequence[int] | str | None = None, start: Model | str | Path | None = None,
    checkpoint: str | Path | None = None, device: str = "auto", allow_missing: float | None = None,
    callback: Callback[Progress] | None = None,
    **settings: Any,
) -> Model:  # fmt: skip
    """Train a model on a volume, for that volume and similar ones, and return the best weights.

    Parameters
    ----------
    data : array, Image, xarray.DataArray or path
        An array is (z, y, x), (c, z, y, x) or (t, c, z, y, x); the first of several time points is used.
    voxel_size : (z, y, x), optional
        Steps between voxels, in the unit of the data, or in µm if they have none; the data's own by default.
    axial : {'z', 'y', 'x'} or int, optional
        The axis of low resolution; that of the largest step by default.
    fwhm, lateral_fwhm : float or FwhmEstimate, optional
        Widths of the slice profile (the axial step by default) and of the lateral point spread (0 if not known).
    preset : {'fast', 'paper', 'light-sheet'}
        Settings to start from.
    minutes, patches : float, int, optional
        The budget, one of the two; the preset's by default. On the CPU, patches and a seed decide the bits.
    channels : int, sequence of int or 'all', optional
        Channels to train on, from 0; the first one by default.
    start : Model or path, optional
        A model to continue with its own settings, for a new budget.
    checkpoint : path, optional
        A ``.safetensors`` file that keeps the training while it runs. If it exists already, that training is
        completed. It is removed at the end, but stays if the training is stopped or fails.
    device : {'auto', 'cpu', 'cuda', 'mps', 'xpu'}
        Where to compute.
    allow_missing : float, optional
        As in :func:`~napari_cropeq.formats.open.open_image`.
    callback : callable, optional
        Called with the progress (``patches``, ``fraction``, ``loss``, ``validation``, ...) after every step. The
        training stops if it returns False. By default, terminals and notebooks show a progress bar.
    **settings
        Any other setting, such as ``filters=64`` or ``seed=1``; the fields of
        :class:`~napari_cropeq.core.training.config.TrainingConfig`.

    Returns
    -------
    Model
        With the best weights so far, also if the callback stopped the training.

    Raises
    ------
    TypeError, ValueError, OSError
        If an argument is wrong, or the volume cannot be read or trained on.
    """
    check_callback(callback)
    choose_device(device)  # fails for a device that is not known or not available
    started = None if start is None else model_of("start", start)
    config = _config(preset, started, {"minutes": minutes, "patches": patches} | settings)
    kept = None if checkpoint is None else _checkpoint(checkpoint)
    image, acquisition = sampled(data, voxel_size, axial, fwhm, lateral_fwhm, allow_missing)
    job = _Job(image, acquisition, _channels(channels, image), config, device, started, kept)
    return job.run(callback)


@dataclass(frozen=True)
class _Job:
    """A training whose arguments have been checked."""

    image: Image
    acquisition: Acquisition
    channels: Sequence[int] | None
    config: TrainingConfig
    device: str
    start: Model | None
    kept: Path | None  # the checkpoint

    def run(self, callback: Callback[Progress] | None) -> Model:
        """Train until the end, or until the callback stops it, and return the model."""
        chosen = None if self.channels is None else list(self.channels)
        described = self.image.describe() | {"channels": chosen, "times": [0]}
        checkpoint = None if self.kept is None else Checkpoint(self.kept, described)
        start, resume = self.start, False
        if checkpoint is not None and checkpoint.exists:
            start, resume = load_checkpoint(checkpoint, self.config, self.acquisition), True
        volumes = training_volumes(self.image, chosen)
        training = Training(volumes, self.acquisition, self.config, self.device, start=start, resume=resume)
        steps = training.run() if checkpoint is None else train_and_keep(training, checkpoint)
        with reporting(callback, "training") as continues, closing(steps):
            stopped = any(not continues(step) for step in steps)
        if checkpoint is not None and not stopped:
            checkpoint.remove()
        return training.model(described)


def _checkpoint(path: object) -> Path:
    """Return the path of the checkpoint, if it can be written there."""
    checked = path_of("checkpoint", path, f"Give a name ending in {SUFFIX}.")
    if checked.suffix != SUFFIX:
        raise ArgumentError(
            f"The name of the checkpoint, {checked.name!r}, does not end in {SUFFIX}.",
            "Choose another name.",
            setting="checkpoint",
        )
    return check_model_path(checked)


def _config(preset: str, start: Model | None, given: dict[str, Any]) -> TrainingConfig:
    """Return the settings of the training, if the given ones are known and of the right type."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(TrainingConfig)}
    unknown = [name for name in given if name not in kinds]
    if unknown:
        raise WrongTypeError(
            f"train() has no argument or setting {unknown[0]}.",
            f"The settings are {', '.join(kinds)}.",
            setting=unknown[0],
        )
    given = {name: _plain(name, value, kinds[name]) for name, value in given.items() if value is not None}
    if start is not None and preset != "fast":
        raise ArgumentError(
            "A model that is continued keeps its own settings, not those of a preset.",
            "Give either a preset or a model to start from.",
            setting="preset",
        )
    return config_of(given, preset, start)


def _plain(name: str, value: Any, kind: str) -> Any:
    """Return a setting as a plain value of its type."""
    value = value.item() if isinstance(value, np.generic) else value
    if not any(fits(value, word.strip()) for word in kind.split("|")):
        raise WrongTypeError(
            f"The setting {name} has the value {value!r}, of type {type(value).__name__}.",
            f"Give a value of type {kind.removesuffix(' | None')}.",
            setting=name,
        )
    return value


def _channels(channels: int | Sequence[int] | str | None, image: Image) -> Sequence[int] | None:
    """Return the numbers of the channels to train on; None for all."""
    if isinstance(channels, str) and channels == "all":
        return None
    chosen = np.atleast_1d(np.asarray(0 if channels is None else channels))
    if chosen.ndim > 1 or chosen.dtype.kind not in "iu" or not ((0 <= chosen) & (chosen < image.n_channels)).all():
        most = image.n_channels - 1
        raise ArgumentError(
            f"The data have no channels {channels!r}.",
            f"Give numbers from 0 to {most}, or 'all'." if most else "Give 0: there is one channel.",
            setting="channels",
        )
    return [int(number) for number in chosen]
