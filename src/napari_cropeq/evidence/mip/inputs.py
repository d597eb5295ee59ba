"""A result and the volume it was made from: whether the two belong together and can be shown side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_cropeq.core.geometry import LATERAL_TOLERANCE, Acquisition, int_triple
from napari_cropeq.core.normalisation import check_dtype, check_finite, sample
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Source, open_source
from napari_cropeq.formats.metadata import in_one_unit
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.store.journal import Journal

__all__ = ["channel_name", "check_grid", "check_voxels", "chosen_channels", "open_complete"]

CHANNELS = 2
"""Of which a picture can show at most, each in a colour of its own."""


def chosen_channels(source: Source, channels: Sequence[int] | None) -> list[int]:
    """Return the channels to show: those asked for, else the first two.

    Raises
    ------
    ValueError
        If there is no such channel, or they are not one or two different ones.
    """
    count = source.n_channels
    if channels is None:
        return list(range(min(CHANNELS, count)))
    missing = [channel for channel in channels if not 0 <= channel < count]
    if missing:
        raise ValueError(
            f"Got channel {missing[0]} of {source.name}, which has {count}, expected 0 to {count - 1}: name others "
            "(--channels 0)."
        )
    if not 1 <= len(channels) <= CHANNELS or len(set(channels)) < len(channels):
        raise ValueError(
            f"Got the channels {', '.join(map(str, channels))}, expected one or two different ones: one is drawn in "
            "gray, two in cyan and magenta (--channels 0,1)."
        )
    return list(channels)


def channel_name(source: Source, channel: int) -> str:
    """Return what a channel is called, by its number where its file does not say."""
    return source.channel_names[channel] if channel < len(source.channel_names) else f"channel {channel}"


def check_grid(result: Source, source: Source, acquisition: Acquisition) -> None:
    """Raise ValueError unless ``result`` lies on the SR grid of ``source``, with its channels and time points."""
    shape = int_triple(result.data.shape[-3:])
    expected = acquisition.sr_shape(source.data.shape[-3:])
    advice = f"name the volume that {result.name} was made from, or the result of {source.name}."
    if shape != expected:
        raise ValueError(
            f"Got a result of {_times(shape)} voxels, expected {_times(expected)}, the SR grid of {source.name}: "
            f"{advice}"
        )
    size = _in_unit(result, acquisition.unit)
    if size is not None and any(
        abs(a - b) > LATERAL_TOLERANCE * b for a, b in zip(size, acquisition.sr_voxel_size, strict=True)
    ):
        got, wanted = (" x ".join(f"{v:.4g}" for v in s) for s in (size, acquisition.sr_voxel_size))
        raise ValueError(
            f"Got a result with voxels of {got} {acquisition.unit}, expected {wanted}, those of the SR grid of "
            f"{source.name}: {advice}"
        )
    for word, got_count, count in (
        ("channels", result.n_channels, source.n_channels),
        ("time points", result.n_times, source.n_times),
    ):
        if got_count != count:
            raise ValueError(
                f"Got a result with {got_count} {word}, expected {count}, as many as {source.name} has: {advice}"
            )


def _in_unit(result: Source, unit: str) -> tuple[float, ...] | None:
    """Return the voxel size (z, y, x) in ``unit``, None where nothing is known to compare."""
    if result.voxel_size is None:
        return None
    converted = in_one_unit((*result.voxel_size, 1.0), (*(result.unit,) * 3, unit))
    return None if converted is None else converted[0][:3]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def check_voxels(volume: ArrayLike, what: str, constant: bool = True) -> None:
    """Raise ValueError if a bounded sample of a volume (z, y, x) holds no intensities, or NaN.

    Parameters
    ----------
    volume : dask array (z, y, x)
        What is to be projected.
    what : str
        What to call it.
    constant : bool
        Whether it may be the same everywhere.
    """
    check_dtype(volume.dtype)
    voxels = sample(ChunkCache(volume))
    check_finite(voxels, what)
    if not constant and voxels.min() == voxels.max():
        raise ValueError(
            f"Got a constant source ({what}: every voxel is {voxels.flat[0]:g}), expected one with structure: "
            "choose another channel or volume."
        )


def open_complete(path: str | Path) -> Source:
    """Open an image file, unless it is a store that is not finished yet.

    Raises
    ------
    FileNotFoundError
        If there is none of that name.
    ValueError
        If it is unfinished, or as :func:`napari_cropeq.formats.image.open_source`.
    """
    path = Path(path).expanduser()
    started = path if path.exists() else partial_of(path)
    if started.is_dir() and Journal(started).exists:
        raise ValueError(
            f"Got {started.name}, a store that is not finished, expected a complete one: go on with it first "
            "(cropeq export with --resume)."
        )
    return open_source(path)
