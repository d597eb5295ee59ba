"""OME-Zarr 0.4 and 0.5 images as lazy arrays."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import zarr

from napari_cropeq.errors import CropeqError, ImageError
from napari_cropeq.formats.metadata import (
    Metadata,
    Stored,
    calibrated,
    filled_names,
    full_unit,
    hex_color,
    in_one_unit,
    reason,
    timing,
)
from napari_cropeq.formats.paths import FOLDER
from napari_cropeq.formats.watch.chunks import WatchedChunks, folder_of, metadata_of
from napari_cropeq.formats.watch.files import Watch

logger = logging.getLogger(__name__)


def read_ome_zarr(path: Path, watch: Watch) -> Stored:
    """Open an OME-Zarr image without reading a pixel.

    Parameters
    ----------
    path
        The folder of the image, or of a bioformats2raw collection, from which the first image is read. If there are
        several multiscales, the first is read.
    watch
        The metadata of the folder, the image and its levels are added, unless it is a result that is being computed.

    Returns
    -------
    Stored

    Raises
    ------
    ImageError
        If the folder is not an OME-Zarr image, or its metadata are damaged.
    """
    name, changing = path.name, (path / FOLDER).is_dir()
    opened = (lambda array: array) if changing else partial(WatchedChunks, watch=watch)
    watch = Watch(name, []) if changing else watch
    watch.add(metadata_of(path))
    try:
        group, attributes = _image_group(path, watch)
        multiscale = attributes["multiscales"][0]
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]]
        dataset = multiscale["datasets"][0]
        array = _member(group, dataset["path"], watch)
        steps = [dataset.get("coordinateTransformations", []), multiscale.get("coordinateTransformations", [])]
        scale, translation = _placed(steps, len(axes))
        if not any(step["type"] == "scale" for step in itertools.chain(*steps)):
            scale = [math.nan] * len(axes)  # not known: only a scale of 1 means 1
        names = [str(axis["name"]).lower() for axis in axes]
        metadata = _metadata(names, [axis.get("unit") for axis in axes], scale, translation, attributes.get("omero"))
        levels = list(multiscale["datasets"][1:])
        if isinstance(array, zarr.Array):
            _check_lengths(array)
    except CropeqError:
        raise
    except Exception as error:  # the metadata may have any values of JSON
        raise ImageError(
            f"{name} has damaged OME-Zarr metadata ({reason(error)}). Axes, datasets and their scales are needed.",
            "Write it again.",
        ) from error
    if not isinstance(array, zarr.Array) or len(array.shape) != len(axes):
        raise ImageError(
            f"The metadata of {name} name {len(axes)} axes, but {dataset['path']} is not an array with that many axes.",
            "Write it again.",
        )
    stored = Stored(opened(array), "".join(n if len(n) == 1 else "q" for n in names), tuple(array.chunks), metadata)
    arrays = [array for array in _coarser(group, levels, watch) if len(array.shape) == len(axes)]
    coarser = [replace(stored, array=opened(array), chunks=tuple(array.chunks)) for array in arrays]
    return replace(stored, coarser=tuple(coarser))


def _check_lengths(array: zarr.Array[Any]) -> None:
    """Raise ValueError if lengths are not possible; zarr takes ``true`` for 1."""
    metadata = folder_of(array) / ("zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    lengths = json.loads(metadata.read_bytes())["shape"]
    if min(array.chunks, default=1) < 1 or any(type(length) is not int for length in lengths):
        raise ValueError(f"{lengths} voxels in chunks of {array.chunks}")


def _member(group: zarr.Group, name: str, watch: Watch) -> Any:
    """Return an array or group inside a group, whose metadata are watched from before they are read."""
    watch.add(metadata_of(folder_of(group) / name))
    return group[name]


def _coarser(group: zarr.Group, datasets: Sequence[Any], watch: Watch) -> Iterator[zarr.Array[Any]]:
    """Yield the coarser levels; a level that is missing, or unlike the finest, is skipped."""
    for dataset in datasets:
        try:
            array = _member(group, dataset["path"], watch)
            if isinstance(array, zarr.Array):
                _check_lengths(array)
        except Exception as error:  # noqa: BLE001 (as above: the finest level is enough)
            logger.warning("Skipped a coarser level that cannot be read: %s: %s", type(error).__name__, error)
            continue
        if isinstance(array, zarr.Array):
            yield array


def _image_group(path: Path, watch: Watch) -> tuple[zarr.Group, Mapping[str, Any]]:
    """Find the group of the first image, and its OME attributes."""
    try:
        group = zarr.open_group(path, mode="r")
        attributes = _ome(group)
    except Exception as error:  # as above
        raise ImageError(
            f"The folder {path.name} is not an OME-Zarr image.",
            "Open the folder whose zarr.json (0.5) or .zattrs (0.4) names 'multiscales'.",
        ) from error
    if not attributes.get("multiscales") and "plate" not in attributes and "0" in group:
        first = _member(group, "0", watch)  # bioformats2raw puts the images of a file into 0, 1, ...
        if isinstance(first, zarr.Group):
            group, attributes = first, _ome(first)
    if not attributes.get("multiscales"):
        if "plate" in attributes:
            raise ImageError(
                f"{path.name} is a plate, not an OME-Zarr image.",
                f"Open one of its fields, such as {path.name}/A/1/0.",
            )
        raise ImageError(
            f"{path.name} is Zarr without 'multiscales', not an OME-Zarr image.", "Open the folder that names them."
        )
    return group, attributes


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    """Return the OME attributes: under 'ome' since 0.5, at the root before that."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    nested = attributes.get("ome")
    return nested if isinstance(nested, Mapping) else attributes


def _placed(transformations: Sequence[Sequence[Mapping[str, Any]]], ndim: int) -> tuple[list[float], list[float]]:
    """Combine the scales and translations of the dataset and of the multiscale: world = scale * index + shift."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
    for step in (step for steps in transformations for step in steps):
        values = [float(value) for value in step.get(str(step["type"]), [])]
        if step["type"] == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        elif step["type"] == "translation":
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    if not all(math.isfinite(value) for value in (*scale, *shift)):
        raise ValueError(f"scale {scale} and translation {shift} are not all finite")
    return scale, shift


def _metadata(
    names: list[str], units: list[Any], scale: list[float], shift: list[float], omero: Mapping[str, Any] | None
) -> Metadata:
    voxel_size, unit, translate = None, "pixel", (0.0, 0.0, 0.0)
    if all(axis in names for axis in "zyx"):
        spatial = [names.index(axis) for axis in "zyx"]
        spatial_units = [full_unit(units[i]) for i in spatial]
        voxel_size, unit = calibrated([scale[i] for i in spatial], spatial_units)
        shifts = in_one_unit([shift[i] for i in spatial], spatial_units)
        if shifts is not None:
            z, y, x = shifts[0]
            translate = (z, y, x)
    time = names.index("t") if "t" in names else None
    time_step, time_unit = timing(None, None) if time is None else timing(scale[time], units[time])
    channels = (omero or {}).get("channels") or []
    colors = tuple(hex_color(channel.get("color")) for channel in channels)
    return Metadata(
        voxel_size=voxel_size,
        unit=unit,
        translate=translate,
        channel_names=filled_names([channel.get("label") for channel in channels]),
        channel_colors=colors if any(colors) else (),
        time_step=time_step,
        time_unit=time_unit,
    )
