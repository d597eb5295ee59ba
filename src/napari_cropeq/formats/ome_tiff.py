"""Write an image as one OME-TIFF: BigTIFF, tiled, compressed, with a pyramid."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_cropeq.core.whole_file import sync_file
from napari_cropeq.formats.metadata import TIME_UNITS, ImageInfo

__all__ = ["write_ome_tiff"]

TILE = 256
SLAB = 2**29  # in memory at once, bytes
# Abbreviations of OME-XML.
UNITS = {
    "kilometer": "km",
    "meter": "m",
    "centimeter": "cm",
    "millimeter": "mm",
    "micrometer": "µm",
    "nanometer": "nm",
    "angstrom": "Å",
    "picometer": "pm",
    "inch": "in",
    "pixel": "pixel",
}


def write_ome_tiff(volume: Any, path: Path, image: ImageInfo) -> None:
    """Write an array to ``path`` with only a few planes in memory at a time, and sync the file to disk.

    Voxel sizes, unit, names and colours of channels, the position of the first voxel (as plane positions) and the
    provenance are stored. The pyramid halves only y and x, because all levels of an OME-TIFF have the same planes.

    Parameters
    ----------
    volume : zarr or numpy array
        In the order of ``image.axes``.
    path : path
        The file; an existing one is overwritten.
    image : ImageInfo
        Axes, position and channels.
    """
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (TILE, TILE), "compression": "zlib"}
    levels = _level_count(volume.shape)
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        for level in range(levels):
            extra: dict[str, Any] = {"subfiletype": 1, "metadata": None}
            if level == 0:
                extra = {"subifds": levels - 1, "metadata": _metadata(image, volume.shape)}
            shape = (*volume.shape[:-2], *(n >> level for n in volume.shape[-2:]))
            tif.write(_tiles(volume, 2**level, image.labels), shape=shape, dtype=volume.dtype, **extra, **options)
    sync_file(path)


def _level_count(shape: tuple[int, ...]) -> int:
    """Return the number of levels until a plane fits in a tile."""
    count = 1
    while max(shape[-2:]) >> (count - 1) > TILE and min(shape[-2:]) >> count > 0:
        count += 1
    return count


def _tiles(volume: Any, reduction: int, sampled: bool) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of every plane in order; slabs are as deep as a chunk, unless that is too large."""
    plane_bytes = int(np.prod(volume.shape[-2:])) * volume.dtype.itemsize
    depth = min(getattr(volume, "chunks", (1, 1, 1))[-3], max(1, SLAB // plane_bytes))
    for leading in np.ndindex(*volume.shape[:-3]):
        for start in range(0, volume.shape[-3], depth):
            slab = np.asarray(volume[(*leading, slice(start, start + depth))])
            rows, columns = (n // reduction for n in slab.shape[1:])
            for full in slab:
                plane = full[: rows * reduction, : columns * reduction]
                if sampled:
                    plane = plane[::reduction, ::reduction]
                elif reduction > 1:
                    plane = block_means(plane, (reduction, reduction))
                for y in range(0, rows, TILE):
                    for x in range(0, columns, TILE):
                        tile = np.zeros((TILE, TILE), plane.dtype)
                        part = plane[y : y + TILE, x : x + TILE]
                        tile[: part.shape[0], : part.shape[1]] = part
                        yield tile


def _metadata(image: ImageInfo, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the metadata from which tifffile writes the OME-XML."""
    unit = UNITS.get(image.unit, "pixel")
    metadata: dict[str, Any] = {"axes": image.axes.upper(), "Name": image.name, "UUID": str(_uuid(image, shape))}
    planes = int(np.prod(shape[:-2]))
    depth, step = shape[-3], image.voxel_size[0]
    z, y, x = image.translate
    # Positions are stored per plane; the planes of a stack are consecutive.
    positions = {"Z": [z + step * (n % depth) for n in range(planes)], "Y": [y] * planes, "X": [x] * planes}
    metadata["Plane"] = {}
    for letter, size in zip("ZYX", image.voxel_size, strict=True):
        metadata[f"PhysicalSize{letter}"], metadata[f"PhysicalSize{letter}Unit"] = size, unit
        metadata["Plane"] |= {f"Position{letter}": positions[letter], f"Position{letter}Unit": [unit] * planes}
    if "t" in image.axes and image.time_unit in TIME_UNITS:
        metadata |= {"TimeIncrement": image.time_step, "TimeIncrementUnit": TIME_UNITS[image.time_unit]}
    channels = image.channels(shape)
    if channels:
        metadata["Channel"] = {
            "Name": [name for name, _ in channels],
            "Color": [_ome_color(color) for _, color in channels],
        }
    if image.provenance:
        values = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in image.provenance.items()
        }
        metadata["MapAnnotation"] = {"Namespace": "napari-cropeq", "Value": values}
    return metadata


def _uuid(image: ImageInfo, shape: tuple[int, ...]) -> uuid.UUID:
    """Return the UUID of the file: the same for the same result, on any machine at any time."""
    if not image.provenance:
        return uuid.uuid4()
    return uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([vars(image), shape], default=str))


def _ome_color(color: str | None) -> int:
    """Return a colour, white by default, as OME stores it: red, green, blue, alpha in a signed integer."""
    rgba = int((color or "#ffffff").lstrip("#"), 16) << 8 | 0xFF
    return rgba - 2**32 if rgba >= 2**31 else rgba


def block_means(block: npt.NDArray[Any], factors: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return means over ``factors`` voxels along each axis, in the dtype of ``block``."""
    split = [n for size, f in zip(block.shape, factors, strict=True) for n in (size // f, f)]
    kind = np.float64 if block.dtype.kind != "f" else block.dtype
    means = block.reshape(split).mean(axis=tuple(range(1, len(split), 2)), dtype=kind)
    out: npt.NDArray[Any] = (np.rint(means) if block.dtype.kind != "f" else means).astype(block.dtype)
    return out
