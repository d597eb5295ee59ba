"""Checks of the arguments of public functions, before any work; errors name the argument and the valid values."""

from __future__ import annotations

import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import AXIS_NAMES, Triple
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError, WrongTypeError

__all__ = ["axial_index", "check_callback", "length", "model_of", "path_of", "triple"]


def check_callback(callback: object) -> None:
    """Raise WrongTypeError unless ``callback`` is None or callable."""
    if callback is not None and not callable(callback):
        raise WrongTypeError(
            f"The callback {callback!r} is not callable.",
            "Give a function that takes the progress, or None.",
            setting="callback",
        )


def triple(name: str, values: Any) -> Triple | None:
    """Return three positive numbers (z, y, x), or None.

    Raises
    ------
    WrongTypeError, ArgumentError
        If they are something else.
    """
    if values is None:
        return None
    try:
        z, y, x = (float(value) for value in values)
    except (TypeError, ValueError):
        raise WrongTypeError(
            f"The {name} {values!r} is not three numbers.", "Give the steps along (z, y, x).", setting=name
        ) from None
    if not all(math.isfinite(value) and value > 0 for value in (z, y, x)):
        raise ArgumentError(
            f"The {name} ({z:g}, {y:g}, {x:g}) is not positive.", "Give the steps along (z, y, x).", setting=name
        )
    return z, y, x


def length(name: str, value: Any, positive: bool = False) -> float:
    """Return a length of 0 or more, or a positive one; objects with a ``__float__`` are numbers too.

    Raises
    ------
    WrongTypeError, ArgumentError
        If it is something else.
    """
    if not isinstance(value, Real) and not hasattr(value, "__float__"):
        raise WrongTypeError(
            f"The {name} {value!r} is not a length.", "Give a number in the unit of the voxel size.", setting=name
        )
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        kind = "a positive length" if positive else "a length"
        raise ArgumentError(
            f"The {name} {number:g} is not {kind}.", "Give a number in the unit of the voxel size.", setting=name
        )
    return number


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
    if isinstance(axial, Integral) and int(axial) in (0, 1, 2):
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
    FileNotFoundError, ValueError
        If the file does not exist, or is not a model.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, Path)):
        return Model.load(model)
    raise WrongTypeError(
        f"The argument {name} is of type {type(model).__name__}.",
        "Give a Model, or the path of a .safetensors file.",
        setting=name,
    )


def path_of(name: str, path: object, suffixes: str) -> Path:
    """Return a path, with ``~`` expanded.

    Raises
    ------
    WrongTypeError
        If it is not a path; ``suffixes`` are named in the message.
    """
    if not isinstance(path, (str, Path)):
        raise WrongTypeError(
            f"The argument {name} is of type {type(path).__name__}.", f"Give a name ending in {suffixes}.", setting=name
        )
    return Path(path).expanduser()
