"""Checks of the arguments of public functions, before any work; errors name the argument and the valid values."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import AXIS_NAMES, Triple, check_voxel_size
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError, WrongTypeError

__all__ = ["axial_index", "check_callback", "length", "model_of", "voxel_size_of"]


def check_callback(callback: object) -> None:
    """Raise WrongTypeError unless ``callback`` is None or callable."""
    if callback is not None and not callable(callback):
        raise WrongTypeError(
            f"The callback {callback!r} is not callable.",
            "Give a function that takes the progress, or None.",
            setting="callback",
        )


def voxel_size_of(values: Any) -> Triple | None:
    """Return a voxel size (z, y, x), or None.

    Raises
    ------
    WrongTypeError, VoxelSizeError
        If it is not three positive numbers.
    """
    if values is None:
        return None
    try:
        z, y, x = (float(value) for value in values)
    except (TypeError, ValueError):
        raise WrongTypeError(
            f"The voxel_size {values!r} is not three numbers.",
            "Give the steps along (z, y, x), such as (2.0, 0.5, 0.5).",
            setting="voxel_size",
        ) from None
    check_voxel_size((z, y, x))
    return z, y, x


def length(name: str, value: Any) -> float:
    """Return a length as a float; objects with a ``__float__`` are numbers too. Its range is checked later.

    Raises
    ------
    WrongTypeError
        If it is not a number.
    ArgumentError
        If it is an estimate without a value.
    """
    if isinstance(value, bool) or not (isinstance(value, Real) or hasattr(value, "__float__")):
        raise WrongTypeError(
            f"The {name} {value!r} is not a length.", "Give a number in the unit of the voxel size.", setting=name
        )
    if reason := getattr(value, "reason", ""):
        raise ArgumentError(
            f"The {name} is an estimate without a value. {reason}",
            "Give a number in the unit of the voxel size.",
            setting=name,
        )
    try:
        return float(value)
    except (TypeError, ValueError):
        raise WrongTypeError(
            f"The {name} {value!r} is not a single number.",
            "Give a number in the unit of the voxel size.",
            setting=name,
        ) from None


def axial_index(axial: object) -> int | None:
    """Return the index of an axis, given by name (``z``, ``y`` or ``x``) or index; None stays None.

    Raises
    ------
    ArgumentError
        If it is something else.
    """
    if axial is None:
        return None
    if isinstance(axial, str) and axial in tuple(AXIS_NAMES):
        return AXIS_NAMES.index(axial)
    if isinstance(axial, Integral) and not isinstance(axial, bool) and int(axial) in (0, 1, 2):
        return int(axial)
    raise ArgumentError(
        f"The axial axis {axial!r} is not known.", "Choose 'z', 'y' or 'x', or its index 0, 1 or 2.", setting="axial"
    )


def model_of(name: str, model: object) -> Model:
    """Return a model, which is loaded if a path is given.

    Raises
    ------
    WrongTypeError
        If it is neither a model nor a path.
    MissingFileError, ModelFileError
        If the file does not exist, or is not a model.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        return Model.load(Path(model))
    raise WrongTypeError(
        f"The argument {name} is of type {type(model).__name__}.",
        "Give a Model, or the path of a .safetensors file.",
        setting=name,
    )
