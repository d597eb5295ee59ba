"""Write OME-Zarr 0.5: the arrays of an image's levels, and their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec

from napari_cropeq.core.geometry import IntTriple, LeadingIndex, int_triple
from napari_cropeq.formats.metadata import PIXEL, ImageInfo

__all__ = ["Level", "create_array", "fitted", "write_metadata"]

AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True)
class Level:
    """One array of a pyramid, and its position in the finest one."""

    path: str  # in the image's group
    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)  # (z, y, x), its step in voxels of the finest level
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (z, y, x) of its first voxel's centre, in these voxels


def write_metadata(folder: Path | Store, image: ImageInfo, levels: Sequence[Level]) -> None:
    """Write axes, units, scale and translation of every level, channels and provenance.

    Parameters
    ----------
    folder : path or zarr store
        The group of the image, with an array for each level.
    image : ImageInfo
        Axes and position of the finest level.
    levels : sequence of Level
        Finest first.
    """
    group = zarr.open_group(folder, mode="r+")
    leading = len(image.axes) - 3
    size, origin = np.array(image.voxel_size), np.array(image.translate)
    datasets = []
    for level in levels:
        scale = [image.time_step if axis == "t" else 1.0 for axis in image.axes[:leading]] + (
            size * level.factor
        ).tolist()
        translation = [0.0] * leading + (origin + size * level.shift).tolist()
        transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
        datasets.append({"path": level.path, "coordinateTransformations": transformations})
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": image.name, "axes": _axes(image), "datasets": datasets}],
    }
    channels = _channels(group[levels[-1].path], image)
    if channels:
        ome["omero"] = {"channels": channels}
    if image.labels:
        ome["image-label"] = {"version": "0.5"}
    group.attrs["ome"] = ome
    if image.provenance:
        group.attrs["napari-cropeq"] = dict(image.provenance)


def _axes(image: ImageInfo) -> list[dict[str, str]]:
    out = []
    for axis in image.axes:
        unit = {"t": image.time_unit, "c": PIXEL}.get(axis, image.unit)
        out.append({"name": axis, "type": AXIS_TYPES[axis]} | ({} if unit == PIXEL else {"unit": unit}))
    return out


def _channels(coarsest: Any, image: ImageInfo) -> list[dict[str, Any]]:
    """Return names, colours and display windows of the channels; missing windows come from a coarse level."""
    limits = np.iinfo(coarsest.dtype) if coarsest.dtype.kind in "ui" else None
    out = []
    for number, (name, color) in enumerate(image.channels(coarsest.shape)):
        if number < len(image.windows):
            low, high = image.windows[number]
        else:  # from the first time point only: the user can change a window
            index = tuple(number if axis == "c" else 0 if axis == "t" else slice(None) for axis in image.axes)
            low, high = (float(v) for v in np.percentile(np.asarray(coarsest[index]), (0.1, 99.9)))
        bounds = (float(limits.min), float(limits.max)) if limits else (low, high)
        out.append(
            {
                "label": name,
                "color": (color or "#ffffff").lstrip("#").upper(),
                "active": True,
                "window": {"start": low, "end": high, "min": bounds[0], "max": bounds[1]},
            }
        )
    return out


CHUNK = 64


# Blosc with one thread writes the same bytes each time; every reader checks the checksum of each chunk.
COMPRESSION = (BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec())


def fitted(shard: IntTriple, shape: IntTriple) -> tuple[IntTriple, IntTriple]:
    """Return the sizes (z, y, x) of shard and chunk for a level: whole chunks, and no larger than the level needs."""
    chunk = [min(CHUNK, s) if s % min(CHUNK, s) == 0 else s for s in shard]
    sides = [min(s, -(-n // c) * c) for s, n, c in zip(shard, shape, chunk, strict=True)]
    return int_triple(sides), int_triple(chunk)


def create_array(
    group: zarr.Group,
    name: str,
    leading_shape: LeadingIndex,
    shape: IntTriple,
    dtype: np.dtype[Any],
    sizes: tuple[IntTriple, IntTriple],
    axes: str,
) -> None:
    """Create the empty array of a level, sharded, compressed and with checksums."""
    shard, chunk = sizes
    ones = (1,) * len(leading_shape)
    group.create_array(
        name,
        shape=(*leading_shape, *shape),
        dtype=dtype,
        chunks=(*ones, *chunk),
        shards=(*ones, *shard),
        compressors=list(COMPRESSION),
        dimension_names=list(axes),
    )
