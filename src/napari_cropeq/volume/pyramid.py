"""Coarser levels and the OME metadata of a finished store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr

from napari_cropeq.volume.superres import SuperResolution

__all__ = ["block_means", "build_pyramid", "write_metadata"]

SMALLEST = 256  # levels are added until no side is longer, voxels
AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def level_shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of the coarser levels: z, y and x longer than one voxel are halved."""
    while max(shape[-3:]) > SMALLEST:
        shape = (*shape[:-3], *(max(1, n // 2) for n in shape[-3:]))
        yield shape


def build_pyramid(folder: Path) -> Iterator[int]:
    """Write coarser levels (means of 2 x 2 x 2 voxels) beside level 0, yielding each level's number."""
    group = zarr.open_group(folder, mode="r+")
    fine: Any = group["0"]
    for level, shape in enumerate(level_shapes(fine.shape), 1):
        coarse = group.create_array(
            str(level),
            shape=shape,
            dtype=fine.dtype,
            chunks=fine.chunks,
            shards=fine.shards or fine.chunks,
            dimension_names=fine.metadata.dimension_names,
        )
        factors = [1 if m == n else 2 for n, m in zip(fine.shape, shape, strict=True)]
        shard = fine.shards or fine.chunks
        source: Any = da.from_array(fine, chunks=tuple(s * f for s, f in zip(shard, factors, strict=True)))
        source = source[tuple(slice(0, m * f) for m, f in zip(shape, factors, strict=True))]
        means: Any = source.map_blocks(
            block_means,
            tuple(factors),
            dtype=fine.dtype,
            chunks=tuple(tuple(c // f for c in cs) for cs, f in zip(source.chunks, factors, strict=True)),
        )
        da.store(means, coarse, lock=False, scheduler="synchronous")  # type: ignore[arg-type]
        fine = coarse
        yield level


def block_means(block: npt.NDArray[Any], factors: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return means over ``factors`` voxels along each axis, in the dtype of ``block``."""
    split = [n for size, f in zip(block.shape, factors, strict=True) for n in (size // f, f)]
    kind = np.float64 if block.dtype.kind != "f" else block.dtype
    means = block.reshape(split).mean(axis=tuple(range(1, len(split), 2)), dtype=kind)
    out: npt.NDArray[Any] = (np.rint(means) if block.dtype.kind != "f" else means).astype(block.dtype)
    return out


def write_metadata(folder: Path, result: SuperResolution) -> None:
    """Write OME-Zarr 0.5 metadata: axes, units, scale and translation of every level, channels, provenance."""
    group = zarr.open_group(folder, mode="r+")
    axes = result.source.axes
    levels = sorted((key for key in group.array_keys()), key=int)
    shapes = [np.array(_array(group, key).shape) for key in levels]
    lead = len(axes) - 3
    scale = np.array([1.0] * lead + list(result.acquisition.sr_voxel_size))
    translation = np.array([0.0] * lead + list(result.sr_translate))
    datasets = []
    for number, (key, shape) in enumerate(zip(levels, shapes, strict=True)):
        if number:
            factors = np.where(shape == shapes[number - 1], 1, 2)
            translation = translation + (factors - 1) / 2 * scale
            scale = scale * factors
        datasets.append(
            {
                "path": key,
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale.tolist()},
                    {"type": "translation", "translation": translation.tolist()},
                ],
            }
        )
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {"name": result.source.name, "axes": _axes(axes, result.acquisition.unit), "datasets": datasets}
        ],
        **_omero(group, result),
    }
    group.attrs["ome"] = ome
    group.attrs["napari-cropeq"] = result.describe()


def _axes(axes: str, unit: str) -> list[dict[str, str]]:
    out = []
    for axis in axes:
        entry = {"name": axis, "type": AXIS_TYPES[axis]}
        if entry["type"] == "space" and unit != "pixel":
            entry["unit"] = unit
        out.append(entry)
    return out


def _omero(group: zarr.Group, result: SuperResolution) -> dict[str, Any]:
    """Return names, colours and display windows of the channels, where the source has such an axis."""
    if "c" not in result.source.axes:
        return {}
    coarsest = _array(group, max(group.array_keys(), key=int))
    channel_axis = result.source.axes.index("c")
    channels = []
    for number in range(coarsest.shape[channel_axis]):
        index = tuple(
            number if a == channel_axis else 0 if a < len(coarsest.shape) - 3 else slice(None)
            for a in range(len(coarsest.shape))
        )
        low, high = (float(v) for v in np.percentile(np.asarray(coarsest[index]), (0.1, 99.9)))
        names, colors = result.source.channel_names, result.source.channel_colors
        limits = np.iinfo(coarsest.dtype) if coarsest.dtype.kind in "ui" else None
        color = colors[number] if number < len(colors) else None
        channels.append(
            {
                "label": names[number] if number < len(names) else f"channel {number}",
                "color": (color or "#ffffff").lstrip("#").upper(),
                "active": True,
                "window": {
                    "start": low,
                    "end": high,
                    "min": float(limits.min) if limits else low,
                    "max": float(limits.max) if limits else high,
                },
            }
        )
    return {"omero": {"channels": channels}}


def _array(group: zarr.Group, key: str) -> Any:
    return group[key]
