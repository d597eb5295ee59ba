"""A model from a volume itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from napari_cropeq.api.arguments import axial_index, check_callback, check_choice, length, model_of, triple
from napari_cropeq.api.image import acquisition_for, image_of
from napari_cropeq.api.progress import Callback, reporting
from napari_cropeq.core.model import SUFFIX, Model, check_model_path
from napari_cropeq.core.predict import choose_device
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import PRESETS, Recipe, fits
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.core.training.training import Training
from napari_cropeq.formats.image import Source, training_volumes
from napari_cropeq.run.train_to_file import load_checkpoint, train_and_keep

__all__ = ["train"]


def train(
    data: Any,
    voxel_size: Sequence[float] | None = None,
    *,
    axial: str | int | None = None,
    fwhm: Any = None,
    lateral_fwhm: float = 0.0,
    preset: str = "fast",
    minutes: float | None = None,
    patches: int | None = None,
    channels: int | Sequence[int] | str | None = None,
    start: Model | str | Path | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    callback: Callback[Progress] | None = None,
    **settings: Any,
) -> Model:
    """Train a model on a volume, for that volume and its siblings.

    Parameters
    ----------
    data : array, Image, xarray.DataArray or path
        An array is (z, y, x), (c, z, y, x) or (t, c, z, y, x); of several time points the first is used.
    voxel_size : (z, y, x), optional
        Steps between voxels, in the unit of the data, or in µm where they have none; the data's own by default.
    axial : {'z', 'y', 'x'} or int, optional
        The axis of low resolution; that of the largest step by default.
    fwhm : float or FwhmEstimate, optional
        Width of the slice profile, in the unit of the voxel size; the axial step by default.
    lateral_fwhm : float
        Width of the lateral point spread, in the same unit; 0 where it is not known.
    preset : {'fast', 'paper', 'light-sheet'}
        Which settings to start from.
    minutes, patches : float, int, optional
        One budget; the preset's by default. With patches the same seed gives the same bits on the CPU.
    channels : int, sequence of int or 'all', optional
        What to train on, from 0; the first channel by default.
    start : Model or path, optional
        A model whose training is continued with its own settings, for the budget given.
    checkpoint : path, optional
        A ``.safetensors`` file in which the training is kept while it runs. If it is there already, the training is
        completed from it. It is removed at the end, but stays if the training was stopped or failed.
    device : {'auto', 'cpu', 'cuda'}
        Where to compute.
    callback : callable, optional
        Takes the progress (``patches``, ``fraction``, ``loss``, ``validation``, ...) after every step. The training
        stops if it returns False. By default there is a progress bar in terminals and notebooks.
    **settings
        Any other setting, such as ``filters=64`` or ``seed=1``; ``cropeq train --settings`` lists them.

    Returns
    -------
    Model
        The best weights so far, also of a training that was stopped.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the volume cannot be trained on.
    OSError
        If the data cannot be read, or the checkpoint cannot be written.
    """
    check_callback(callback)
    check_choice("device", device, ("auto", "cpu", "cuda"))
    choose_device(device)
    size, axis, lateral = triple("voxel_size", voxel_size), axial_index(axial), length("lateral_fwhm", lateral_fwhm)
    width = None if fwhm is None else length("fwhm", fwhm, positive=True)
    begun = None if start is None else model_of("start", start)
    recipe = _recipe(preset, begun, {"minutes": minutes, "patches": patches} | settings)
    kept = None if checkpoint is None else _checkpoint(checkpoint)
    image = image_of(data)
    chosen = _channels(channels, image)
    acquisition = acquisition_for(image, size, axis, width, lateral)

    described = image.describe() | {"channels": None if chosen is None else list(chosen), "times": [0]}
    place = None if kept is None else Checkpoint(kept, described)
    resume = place is not None and place.exists
    if place is not None and resume:
        begun = load_checkpoint(place, recipe, acquisition)
    training = Training(training_volumes(image, chosen), acquisition, recipe, device, start=begun, resume=resume)
    steps: Generator[Progress, None, None] = training.run() if place is None else train_and_keep(training, place)
    stopped = False
    with reporting(callback, "training") as goes_on, closing(steps):
        for step in steps:
            if not goes_on(step):
                stopped = True
                break
    if place is not None and not stopped:
        place.remove()
    return training.model(described)


def _checkpoint(path: object) -> Path:
    """Return where a training is kept, if that can be."""
    if not isinstance(path, (str, Path)):
        raise TypeError(f"checkpoint: got {type(path).__name__}. Give a name ending in {SUFFIX}.")
    path = Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise ValueError(f"checkpoint: {path.name!r} is not a name for a model. Give one ending in {SUFFIX}.")
    return check_model_path(path)


def _recipe(preset: str, start: Model | None, given: dict[str, Any]) -> Recipe:
    """Return the settings: the preset's, or those of the model that is continued, with those given instead."""
    check_choice("preset", preset, tuple(PRESETS))
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    unknown = [name for name in given if name not in kinds]
    if unknown:
        raise TypeError(f"{unknown[0]}: train() has no such argument or setting. Settings are {', '.join(kinds)}.")
    given = {name: _plain(name, value, kinds[name]) for name, value in given.items() if value is not None}
    if "minutes" in given and "patches" in given:
        raise ValueError("minutes, patches: got both. Give one budget.")
    if start is None:
        return Recipe.preset(preset, **given)
    if preset != "fast":
        raise ValueError("preset: a training that is continued keeps the settings of `start`. Leave the preset out.")
    if "minutes" in given or "patches" in given:
        given = {"minutes": None, "patches": None} | given
    return dataclasses.replace(Recipe.read(start.training.get("recipe")), **given)


def _plain(name: str, value: Any, kind: str) -> Any:
    """Return a setting as a plain value of its type."""
    value = value.item() if isinstance(value, np.generic) else value
    if not any(fits(value, word.strip()) for word in kind.split("|")):
        raise TypeError(f"{name}: got {value!r}. Give {kind.removesuffix(' | None')}.")
    return value


def _channels(channels: int | Sequence[int] | str | None, image: Source) -> Sequence[int] | None:
    """Return which channels to train on; None for all."""
    if isinstance(channels, str):
        check_choice("channels", channels, ("all",))
        return None
    chosen = np.atleast_1d(np.asarray(0 if channels is None else channels))
    if chosen.ndim > 1 or chosen.dtype.kind not in "iu" or not ((0 <= chosen) & (chosen < image.n_channels)).all():
        raise ValueError(
            f"channels: got {channels!r}. Give numbers from 0 to {image.n_channels - 1}, or 'all' for all of them."
        )
    return [int(number) for number in chosen]
