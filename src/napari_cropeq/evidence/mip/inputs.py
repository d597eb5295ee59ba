"""Checks that a result and a source belong together and can be shown side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_cropeq.core.geometry import LATERAL_TOLERANCE, Acquisition, int_triple
from napari_cropeq.core.normalisation import check_dtype, check_finite, sample
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.errors import ArgumentError, ImageError, MismatchError
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.metadata import in_one_unit
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import is_url, partial_of
from napari_cropeq.store.journal import Journal

__all__ = ["channel_name", "check_grid", "check_voxels", "chosen_channels", "open_complete"]

CHANNELS = 2
"""Most channels in a picture, each in its own colour."""


def chosen_channels(source: Image, channels: Sequence[int] | None) -> list[int]:
    """Return the channels to show: ``channels``, or the first two.

    Raises
    ------
    ArgumentError
        If a channel does not exist, or they are not one or two different ones.
    """
    if channels is None:
        return list(range(min(CHANNELS, source.n_channels)))
    for channel in channels:
        source.leading(channel)  # raises if there is no such channel
    if not 1 <= len(channels) <= CHANNELS or len(set(channels)) < len(channels):
        raise ArgumentError(
            f"The channels {', '.join(map(str, channels))} cannot be drawn: one is drawn in gray, two in cyan and "
            "magenta.",
            "Choose one channel or two different ones.",
            setting="channels",
        )
    return list(channels)


def channel_name(source: Image, channel: int) -> str:
    """Return the name of a channel, or its number if the file does not store a name."""
    return source.channel_names[channel] if channel < len(source.channel_names) else f"channel {channel}"


def check_grid(result: Image, source: Image, acquisition: Acquisition) -> None:
    """Raise MismatchError unless ``result`` is on the SR grid of ``source`` and has its channels and time points."""
    shape = int_triple(result.data.shape[-3:])
    expected = acquisition.sr_shape(source.data.shape[-3:])
    remedy = f"Choose the volume from which {result.name} was computed, or the result of {source.name}."
    if shape != expected:
        raise MismatchError(
            f"The result has {_times(shape)} voxels, but the SR grid of {source.name} has {_times(expected)}.", remedy
        )
    size = _in_unit(result, acquisition.unit)
    if size is not None and any(
        abs(a - b) > LATERAL_TOLERANCE * b for a, b in zip(size, acquisition.sr_voxel_size, strict=True)
    ):
        own, expected_size = (" x ".join(f"{v:.4g}" for v in s) for s in (size, acquisition.sr_voxel_size))
        raise MismatchError(
            f"The voxels of the result are {own} {acquisition.unit}, but those of the SR grid of {source.name} are "
            f"{expected_size}.",
            remedy,
        )
    for what, own_count, count in (
        ("channels", result.n_channels, source.n_channels),
        ("time points", result.n_times, source.n_times),
    ):
        if own_count != count:
            raise MismatchError(
                f"The number of {what} is {own_count} in the result and {count} in {source.name}.", remedy
            )


def _in_unit(result: Image, unit: str) -> tuple[float, ...] | None:
    """Return the voxel size (z, y, x) in ``unit``, None if it is unknown or has another kind of unit."""
    if result.voxel_size is None:
        return None
    converted = in_one_unit((*result.voxel_size, 1.0), (*(result.unit,) * 3, unit))
    return None if converted is None else converted[0][:3]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def check_voxels(volume: ArrayLike, what: str, constant: bool = True) -> npt.NDArray[Any]:
    """Return a bounded sample of a volume (z, y, x), after a check that it is intensities without NaN.

    Parameters
    ----------
    volume : dask array (z, y, x)
        The volume to project.
    what : str
        Its name in messages.
    constant : bool
        Whether it may be constant.

    Raises
    ------
    ImageError
        If it cannot be projected.
    """
    check_dtype(volume.dtype)
    voxels = sample(ChunkCache(volume))
    check_finite(voxels, what)
    if not constant and voxels.min() == voxels.max():
        raise ImageError(
            f"The source is constant ({what}): every voxel is {voxels.flat[0]:g}.", "Choose another channel or volume."
        )
    return voxels


def open_complete(path: str | Path, allow_missing: float | None = None, scene: str | int | None = None) -> Image:
    """Open an image that is not an unfinished output; the arguments are those of :func:`~.open.open_image`.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    ImageError
        If it is unfinished, or as :func:`napari_cropeq.formats.open.open_image`.
    """
    if is_url(path):
        return open_image(path, allow_missing, scene)
    path = Path(path).expanduser()
    started = path if path.exists() else partial_of(path)
    if started.is_dir() and Journal(started).exists:
        raise ImageError(f"{started.name} is an unfinished output.", "Resume its export first.")
    return open_image(path, allow_missing, scene)
