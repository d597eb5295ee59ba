"""What the axes of a layer are: time, channels, z, y, x. Its labels say it, or else their order is assumed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer

from napari_cropeq.errors import ArgumentError, ImageError

__all__ = ["POSITIONS", "arrange", "assumed_axes", "check_axes", "described", "possible_axes", "stated_axes"]

ORDER = "tczyx"
POSITIONS = {3: "zyx", 4: "tzyx", 5: "tczyx"}  # axes without known labels
LABELS = {"time": "t", "channel": "c", "channels": "c", "ch": "c"}
NAMES = {"t": "time", "c": "channels"}


def stated_axes(labels: Sequence[Any], ndim: int) -> str:
    """Return a letter (t, c, z, y, x) for each axis, as the labels of a layer say it; none if they do not name all."""
    lower = [str(label).lower() for label in labels]
    letters = [LABELS.get(label, label) for label in lower]
    return "".join(letters) if len(letters) == ndim and all(letter and letter in ORDER for letter in letters) else ""


def assumed_axes(labels: Sequence[Any], ndim: int) -> str:
    """Return a letter for each axis: as stated, or else by position, where a single first axis may be channels."""
    stated = stated_axes(labels, ndim)
    if stated:
        return stated
    first = LABELS.get(str(labels[0]).lower(), str(labels[0]).lower()) if len(labels) else ""
    return "czyx" if ndim == 4 and first == "c" else POSITIONS[ndim]


def check_axes(layer: Layer) -> str:
    """Return the leading axes of a layer: none, t, c, or tc.

    Raises
    ------
    ImageError
        If its labels name them in another order.
    """
    letters = assumed_axes(layer.axis_labels, layer.ndim)
    leading, last = letters[:-3], letters[-3:]
    if leading not in ("", "t", "c", "tc") or set(last) & set("tc"):
        raise ImageError(
            f"The axes of '{layer.name}' are {described(letters, layer.data.shape)}, but z, y and x must be the last "
            "three, after time and channels.",
            "Move its axes.",
            setting="axes",
        )
    return leading


def described(letters: str, shape: Sequence[int]) -> str:
    """Return name and length of each axis as text."""
    return " · ".join(f"{NAMES.get(letter, letter)} {length}" for letter, length in zip(letters, shape, strict=True))


def possible_axes(layer: Layer) -> list[str]:
    """Return what the axes of a layer with four or five may be, first what is assumed."""
    assumed = assumed_axes(layer.axis_labels, layer.ndim)
    if layer.ndim == 4:
        found = ["tzyx", "czyx", "zcyx", "ztyx", "zyxc"]
    else:
        found = ["".join(leading) + "yx" for leading in itertools.permutations("tcz")]
    return [assumed, *(letters for letters in found if letters != assumed)]


def arrange(layer: Image, letters: str) -> None:
    """Label the axes of a layer, and move them into the order time, channels, z, y, x, without a copy of the voxels.

    Parameters
    ----------
    layer : Image
        The layer, which is changed.
    letters : str
        What its axes are, one of :func:`possible_axes`.

    Raises
    ------
    ArgumentError
        If axes would have to be moved and the layer is sheared; it is not changed.
    """
    order = sorted(range(layer.ndim), key=lambda axis: ORDER.index(letters[axis]))
    moved = order != list(range(layer.ndim))
    if moved and np.any(layer.shear):
        raise ArgumentError(
            f"'{layer.name}' is sheared, so its axes cannot be moved.",
            "Open it with its axes in the order t, c, z, y, x.",
        )
    layer.axis_labels = [letters[axis] for axis in order]
    if moved:
        _move(layer, order)


def _move(layer: Image, order: list[int]) -> None:
    """Move the axes of voxels, scale, position and units."""
    rotate, affine = np.asarray(layer.rotate), np.asarray(layer.affine.affine_matrix)
    corner = [*order, layer.ndim]
    maps = {
        "scale": np.asarray(layer.scale)[order],
        "translate": np.asarray(layer.translate)[order],
        "rotate": rotate[np.ix_(order, order)],
        "affine": affine[np.ix_(corner, corner)],
        "units": [layer.units[axis] for axis in order],
    }
    levels = [_moved(level, order) for level in (layer.data if layer.multiscale else [layer.data])]
    layer.data = levels if layer.multiscale else levels[0]
    for name, value in maps.items():
        setattr(layer, name, value)


def _moved(array: Any, order: list[int]) -> da.Array | npt.NDArray[Any]:
    """Return a view of an array with its axes in another order."""
    return array.transpose(order) if isinstance(array, np.ndarray | da.Array) else da.asarray(array).transpose(order)
