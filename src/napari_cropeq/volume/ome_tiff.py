"""A finished store as one OME-TIFF: BigTIFF, tiled, compressed, with its pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

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


def write_ome_tiff(folder: Path, path: Path, result: SuperResolution) -> None:
    """Write the levels of the OME-Zarr ``folder`` to ``path``.

    Voxel sizes, unit, channel names and the position of the first voxel (as plane positions) are kept.
    """
    group = zarr.open_group(folder, mode="r")
    levels: list[Any] = [group[key] for key in sorted(group.array_keys(), key=int)]
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        for number, level in enumerate(levels):
            extra: dict[str, Any] = {"subfiletype": 1}
            if number == 0:
                extra = {"subifds": len(levels) - 1, "metadata": _metadata(result, level.shape)}
            tif.write(_tiles(level), shape=level.shape, dtype=level.dtype, **extra, **options)


def _tiles(level: Any) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of every plane in order; a slab as deep as a chunk is read at once."""
    depth = level.chunks[-3]
    for lead in np.ndindex(*level.shape[:-3]):
        for start in range(0, level.shape[-3], depth):
            for plane in np.asarray(level[(*lead, slice(start, start + depth))]):
                for y in range(0, plane.shape[0], TILE):
                    for x in range(0, plane.shape[1], TILE):
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
