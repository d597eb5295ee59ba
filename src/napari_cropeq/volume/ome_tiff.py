"""A finished store as one OME-TIFF: BigTIFF, tiled, compressed, with its pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_cropeq.volume.pyramid import block_means
from napari_cropeq.volume.superres import SuperResolution

__all__ = ["write_ome_tiff"]

TILE = 256
# As OME-XML abbreviates them.
UNITS = {
    "micrometer": "µm",
    "nanometer": "nm",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "angstrom": "Å",
    "picometer": "pm",
    "pixel": "pixel",
}


def write_ome_tiff(volume: Any, path: Path, result: SuperResolution) -> None:
    """Write a zarr array of SR voxels (axes as in the source) to ``path``.

    Voxel sizes, unit, channel names and the position of the first voxel (as plane positions) are kept.
    The pyramid halves y and x alone: in an OME-TIFF all levels have the same planes.
    """
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "zlib"}
    levels = _level_count(volume.shape)
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        for level in range(levels):
            extra: dict[str, Any] = {"subfiletype": 1, "metadata": None}
            if level == 0:
                extra = {"subifds": levels - 1, "metadata": _metadata(result, volume.shape)}
            shape = (*volume.shape[:-2], *(n >> level for n in volume.shape[-2:]))
            tif.write(_tiles(volume, 2**level), shape=shape, dtype=volume.dtype, **extra, **options)


def _level_count(shape: tuple[int, ...]) -> int:
    """Return how many levels it takes until a plane fits a tile."""
    count = 1
    while max(shape[-2:]) >> (count - 1) > TILE and min(shape[-2:]) >> count > 0:
        count += 1
    return count


def _tiles(volume: Any, reduction: int) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of every plane in order; a slab as deep as a chunk is read at once."""
    depth = volume.chunks[-3]
    for lead in np.ndindex(*volume.shape[:-3]):
        for start in range(0, volume.shape[-3], depth):
            slab = np.asarray(volume[(*lead, slice(start, start + depth))])
            rows, columns = (n // reduction for n in slab.shape[1:])
            slab = block_means(slab[:, : rows * reduction, : columns * reduction], (1, reduction, reduction))
            for plane in slab:
                for y in range(0, rows, TILE):
                    for x in range(0, columns, TILE):
                        tile = np.zeros((TILE, TILE), plane.dtype)
                        part = plane[y : y + TILE, x : x + TILE]
                        tile[: part.shape[0], : part.shape[1]] = part
                        yield tile


def _metadata(result: SuperResolution, shape: tuple[int, ...]) -> dict[str, Any]:
    source, unit = result.source, UNITS.get(result.acquisition.unit, "pixel")
    metadata: dict[str, Any] = {"axes": source.axes.upper(), "Name": source.name}
    planes = int(np.prod(shape[:-2]))
    depth, step = shape[-3], result.acquisition.sr_voxel_size[0]
    z, y, x = result.sr_translate
    # Position is given plane by plane; the planes of one stack follow each other.
    positions = {"Z": [z + step * (n % depth) for n in range(planes)], "Y": [y] * planes, "X": [x] * planes}
    metadata["Plane"] = {}
    for letter, size in zip("ZYX", result.acquisition.sr_voxel_size, strict=True):
        metadata[f"PhysicalSize{letter}"], metadata[f"PhysicalSize{letter}Unit"] = size, unit
        metadata["Plane"] |= {f"Position{letter}": positions[letter], f"Position{letter}Unit": [unit] * planes}
    if "c" in source.axes:
        count = shape[source.axes.index("c")]
        names = [*source.channel_names, *(f"channel {n}" for n in range(len(source.channel_names), count))]
        metadata["Channel"] = {"Name": names[:count]}
    return metadata
