"""Axes, scale and position of a layer, as OME files store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.utils.transforms import Affine

from napari_cropeq.errors import ImageError, VoxelSizeError
from napari_cropeq.formats.metadata import PIXEL, full_unit, in_one_unit, timing
from napari_cropeq.gui.layers.axes import assumed_axes

__all__ = ["AxesOf", "Place", "axes_of", "place_of"]


@dataclass(frozen=True)
class AxesOf:
    """The axes of an array, and their order in OME files."""

    letters: str  # in the order of the array
    order: tuple[int, ...]  # axes of the array, in OME's order

    @property
    def ordered(self) -> str:
        """The letters in OME's order: t, c, z, y, x."""
        return "".join(self.letters[axis] for axis in self.order)


@dataclass(frozen=True)
class Place:
    """Scale and position of an image in space and time."""

    voxel_size: tuple[float, float, float]  # (z, y, x) in `unit`
    translate: tuple[float, float, float]  # (z, y, x) of the first voxel's centre, in `unit`
    unit: str
    time_step: float
    time_unit: str


def axes_of(meta: Mapping[str, Any], ndim: int, name: str) -> AxesOf:
    """Return the axes of a layer: from its axis labels, or else by position.

    Parameters
    ----------
    meta : mapping
        The layer's attributes.
    ndim : int
        3 to 5.
    name : str
        What to call the layer in the message.

    Raises
    ------
    ImageError
        If two axes are the same, or one of z, y, x is missing.
    """
    letters = assumed_axes(meta.get("axis_labels") or (), ndim)
    if len(set(letters)) != ndim or not set("zyx") <= set(letters):
        raise ImageError(
            f"The axis labels of '{name}' are {', '.join(letters)}, but a file needs z, y, x and at most t and c, each "
            "once.",
            "Correct the layer's axis labels.",
        )
    order = sorted(range(ndim), key=lambda axis: "tczyx".index(letters[axis]))
    return AxesOf(letters, tuple(order))


def place_of(meta: Mapping[str, Any], axes: AxesOf, name: str) -> Place:
    """Return scale and position of a layer.

    Parameters
    ----------
    meta : mapping
        The layer's attributes: scale, translate, rotate, shear, affine, units.
    axes : AxesOf
        Its axes.
    name : str
        What to call the layer in the message.

    Raises
    ------
    ImageError
        If it is rotated, sheared, mirrored, moved in time, or in units that OME files cannot store.
    """
    scale, translate = _scale_and_translate(meta, len(axes.letters), name)
    units = [str(unit) for unit in meta.get("units") or [PIXEL] * len(axes.letters)]
    spatial = list(axes.order[-3:])
    names = [full_unit(units[axis]) for axis in spatial]
    sizes, places = (in_one_unit([values[axis] for axis in spatial], names) for values in (scale, translate))
    unknown = any(full == PIXEL != units[axis] for axis, full in zip(spatial, names, strict=True))
    if sizes is None or places is None or unknown:
        raise VoxelSizeError(
            f"The units of '{name}' along z, y, x are {', '.join(units[axis] for axis in spatial)}, but a file needs "
            "units of length (such as micrometer), or pixel for all.",
            "Correct the layer's units.",
        )
    time = axes.letters.find("t")
    time_step, time_unit = (1.0, PIXEL) if time < 0 else _timing(scale[time], translate[time], units[time], name)
    (z, y, x), unit = sizes
    (at_z, at_y, at_x), _ = places
    return Place((z, y, x), (at_z, at_y, at_x), unit, time_step, time_unit)


def _scale_and_translate(meta: Mapping[str, Any], ndim: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer's transform to world coordinates as scale and translation along each axis."""
    own = Affine(**{key: meta[key] for key in ("scale", "translate", "rotate", "shear") if key in meta}, ndim=ndim)
    whole = (
        own if meta.get("affine") is None else Affine(affine_matrix=np.asarray(meta["affine"]), ndim=ndim).compose(own)
    )
    matrix = np.asarray(whole.linear_matrix, float)
    scale = np.diag(matrix)
    if not np.allclose(matrix, np.diag(scale), rtol=0, atol=1e-9 * np.abs(matrix).max()):
        raise ImageError(
            f"The layer '{name}' is rotated or sheared, but OME files store only scale and translate.",
            "Resample it, or reset its rotate, shear and affine.",
        )
    if not (scale > 0).all():
        raise VoxelSizeError(
            f"The scales of '{name}' are {', '.join(f'{s:g}' for s in scale)}, but OME files store only positive ones.",
            "Flip the layer's data instead.",
        )
    return scale, np.asarray(whole.translate, float)


def _timing(step: float, start: float, unit: str, name: str) -> tuple[float, str]:
    time_step, time_unit = timing(step, unit)
    if start != 0 or (time_step, time_unit) != (step, unit):
        raise ImageError(
            f"The time axis of '{name}' starts at {start:g} in steps of {step:g} {unit}, but in a file it starts at 0, "
            "in steps of 1 pixel, or of any length in seconds, minutes or hours.",
            "Correct the layer's scale, translate and units.",
        )
    return time_step, time_unit
