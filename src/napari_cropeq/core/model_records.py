"""The records in the header of a model file, of its training and its provenance: what is read from them, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["check_records", "is_number"]


def check_records(header: Mapping[str, Any]) -> None:
    """Raise ValueError if a record of a header has an entry that cannot be; entries may be missing."""
    for group, checks in _RECORDS.items():
        for name, check in checks.items():
            if name in header[group] and not check(header[group][name]):
                raise ValueError(f"its {group} has an impossible {name}")


def is_number(value: Any) -> bool:
    """Return whether a value of a header is a number that a 64-bit number can hold."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_source(value: Any) -> bool:
    """Return whether a value describes a source, as :func:`provenance` keeps it; other entries may be anything."""
    return isinstance(value, dict) and all(check(value[key]) for key, check in _SOURCE.items() if key in value)


def _is_noise(value: Any) -> bool:
    return isinstance(value, dict) and all(is_number(value.get(name)) for name in ("slope", "offset"))


def _is_transfer(value: Any) -> bool:
    """Return whether a value is what :meth:`napari_cropeq.core.training.noise.PhotonTransfer.record` returns."""
    if not isinstance(value, dict) or not is_number(value.get("correlation")):
        return False
    intensity: Any = value.get("intensity")
    variance: Any = value.get("variance")
    numbers = _list_of(lambda number: is_number(number) and math.isfinite(number))
    return numbers(intensity) and numbers(variance) and len(intensity) == len(variance)


_SOURCE: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("name", "path", "dtype", "unit"), _is_text),
    "shape": _list_of(lambda length: type(length) is int),
    "voxel_size": lambda size: size is None or (_list_of(is_number)(size) and len(size) == 3),
    "layers": _list_of(lambda name: isinstance(name, str)),
}

_RECORDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "training": {
        "patches": lambda count: count is None or (type(count) is int and count >= 0),
        "seconds": lambda seconds: seconds is None or (is_number(seconds) and 0 <= seconds < 1e12),
        "gain": lambda gain: gain is None or is_number(gain),
        "losses": _list_of(lambda row: _list_of(is_number)(row) and len(row) == 4),
        "noise": _list_of(_is_noise),
        "photon_transfer": _list_of(_is_transfer),
        "recipe": lambda recipe: recipe is None or isinstance(recipe, dict),
    },
    "provenance": {
        "source": _is_source,
        "source_checksum": _is_text,
        "versions": lambda versions: isinstance(versions, dict) and all(map(_is_text, versions.values())),
    },
}
"""Checks of what is read from the records in a header."""
