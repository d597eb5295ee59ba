"""What is given to a public function, checked before any work; an error names the argument and says what would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import AXIS_NAMES, Triple
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import choose_device

__all__ = ["axial_index", "check_callback", "check_choice", "check_device", "length", "model_of", "triple"]


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError unless the argument ``name`` has one of a few values."""
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is not known. Choose {', '.join(map(repr, choices))}.")


def check_callback(callback: object) -> None:
    """Raise TypeError unless ``callback`` is None or can be called."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: {callback!r} cannot be called. Give a function that takes the progress, or None.")


def check_device(device: str) -> None:
    """Raise ValueError unless ``device`` is known and there."""
    check_choice("device", device, ("auto", "cpu", "cuda"))
    choose_device(device)


def triple(name: str, values: Any) -> Triple | None:
    """Return three positive numbers (z, y, x), or None.

    Raises
    ------
    TypeError, ValueError
        If they are something else.
    """
    if values is None:
        return None
    try:
        z, y, x = (float(value) for value in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {values!r} is not three numbers. Give the steps along (z, y, x).") from None
    if not all(math.isfinite(value) and value > 0 for value in (z, y, x)):
        raise ValueError(f"{name}: ({z:g}, {y:g}, {x:g}) is not positive. Give the steps along (z, y, x).")
    return z, y, x


def length(name: str, value: Any, positive: bool = False) -> float:
    """Return a length of 0 or more, or only a positive one; what has a ``float`` is a number too.

    Raises
    ------
    TypeError, ValueError
        If it is something else.
    """
    if not isinstance(value, Real) and not hasattr(value, "__float__"):
        raise TypeError(f"{name}: {value!r} is not a length. Give a number in the unit of the voxel size.")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        kind = "a positive length" if positive else "a length"
        raise ValueError(f"{name}: {number:g} is not {kind}. Give a number in the unit of the voxel size.")
    return number


def axial_index(axial: object) -> int | None:
    """Return an axis given as ``z``, ``y`` or ``x``, or as its index, as its index; None stays None.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if axial is None:
        return None
    if isinstance(axial, str) and axial in tuple(AXIS_NAMES):
        return AXIS_NAMES.index(axial)
    if isinstance(axial, Integral) and int(axial) in (0, 1, 2):
        return int(axial)
    raise ValueError(f"axial: {axial!r} is not an axis. Choose 'z', 'y' or 'x', or its index 0, 1 or 2.")


def model_of(name: str, model: object) -> Model:
    """Return a model, read from its file where a path is given.

    Raises
    ------
    TypeError
        If it is neither.
    FileNotFoundError, ValueError
        If the file is not there, or is no model.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, Path)):
        return Model.load(model)
    raise TypeError(f"{name}: got {type(model).__name__}. Give a Model, or the path of a .safetensors file.")
