"""OME-Zarr 0.4 and 0.5 images as lazy arrays."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from napari_cropeq.errors import ArgumentError, CropeqError, ImageError
from napari_cropeq.formats.metadata import (
    Metadata,
    Stored,
    calibrated,
    filled_names,
    full_unit,
    hex_color,
    in_one_unit,
    named,
    reason,
    scene_number,
    timing,
)
from napari_cropeq.formats.ome_zarr.collection import fields_of, images_in, ome_attributes, wells_of
from napari_cropeq.formats.ome_zarr.remote import RemoteStore
from napari_cropeq.formats.paths import FOLDER
from napari_cropeq.formats.watch.chunks import WatchedChunks, folder_of, metadata_of
from napari_cropeq.formats.watch.files import Watch

logger = logging.getLogger(__name__)


def read_ome_zarr(place: Path | RemoteStore, watch: Watch, scene: str | int | None = None) -> Stored:
    """Open an OME-Zarr image without reading a voxel.

    Parameters
    ----------
    place
        The folder of the image, or of a plate or a bioformats2raw collection, or the objects at an address. If there
        are several multiscales, the first is read.
    watch
        The metadata of a folder, the image and its levels are added, unless it is a result that is being computed.
    scene
        Path or number of the image in a collection, by default the first; path of the field in a plate.

    Returns
    -------
    Stored

    Raises
    ------
    ImageError
        If it is not an OME-Zarr image, its metadata are damaged, or it is a plate and no field is chosen.
    ArgumentError
        If there is no such scene.
    """
    name = watch.name
    opened, watch = _watched(place, watch)
    try:
        group, attributes, chosen, scenes = _image_group(place, watch, scene)
        multiscale = attributes["multiscales"][0]
        axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]]
        dataset = multiscale["datasets"][0]
        array, levels = _member(group, dataset["path"], watch), list(multiscale["datasets"][1:])
        steps = [dataset.get("coordinateTransformations", []), multiscale.get("coordinateTransformations", [])]
        scale, translation = _placed(steps, len(axes))
        if not any(step["type"] == "scale" for step in itertools.chain(*steps)):
            scale = [math.nan] * len(axes)  # not known: only a scale of 1 means 1
        names = [str(axis["name"]).lower() for axis in axes]
        metadata = _metadata(names, [axis.get("unit") for axis in axes], scale, translation, attributes.get("omero"))
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
    letters = "".join(n if len(n) == 1 else "q" for n in names)
    stored = Stored(opened(array), letters, array.chunks, metadata, scene=chosen, scenes=scenes)
    arrays = [array for array in _coarser(group, levels, watch) if len(array.shape) == len(axes)]
    coarser = [replace(stored, array=opened(array), chunks=tuple(array.chunks)) for array in arrays]
    return replace(stored, coarser=tuple(coarser))


def _watched(place: Path | RemoteStore, watch: Watch) -> tuple[Callable[[zarr.Array[Any]], Any], Watch]:
    """Return what makes an array of it notice changes, and what watches its metadata."""
    if isinstance(place, RemoteStore):
        return place.checked, watch
    if (place / FOLDER).is_dir():  # a result that is being computed
        return _itself, Watch(watch.name, [])
    watch.add(metadata_of(place))
    return partial(WatchedChunks, watch=watch), watch


def _check_lengths(array: zarr.Array[Any]) -> None:
    """Raise ValueError if lengths are not possible; zarr takes ``true`` for 1."""
    name, store = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray", array.store
    key = f"{array.path}/{name}"
    text = store.read(key) if isinstance(store, RemoteStore) else (folder_of(array) / name).read_bytes()
    lengths = json.loads(text)["shape"]
    if min(array.chunks, default=1) < 1 or any(type(length) is not int for length in lengths):
        raise ValueError(f"{lengths} voxels in chunks of {array.chunks}")


def _member(group: zarr.Group, name: str, watch: Watch) -> Any:
    """Return an array or group inside a group, whose metadata are watched from before they are read."""
    if isinstance(group.store, LocalStore):  # objects at an address are watched by their store
        watch.add(metadata_of(folder_of(group) / name))
    return group[name]


def _itself(array: zarr.Array[Any]) -> zarr.Array[Any]:
    return array


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


def _image_group(
    place: Path | RemoteStore, watch: Watch, scene: str | int | None
) -> tuple[zarr.Group, Mapping[str, Any], str, tuple[str, ...]]:
    """Find the group of an image; return it with its OME attributes, its path, and those of all images beside it."""
    name = watch.name
    try:
        group = zarr.open_group(place, mode="r")
        attributes = ome_attributes(group)
    except CropeqError:
        raise
    except Exception as error:  # as above
        if isinstance(place, RemoteStore):
            raise ImageError(
                f"There is no OME-Zarr image at {place.url}.",
                "Check the address. Files of other formats are not read from addresses: download them first.",
            ) from error
        raise ImageError(
            f"The folder {name} is not an OME-Zarr image.",
            "Open the folder whose zarr.json (0.5) or .zattrs (0.4) names 'multiscales'.",
        ) from error
    plate, scenes, chosen = wells_of(group), images_in(group), ""
    if plate or scenes:
        chosen = _field(group, name, plate, scene) if plate else scenes[scene_number(scene, scenes, name)]
        member = _member(group, chosen, watch)
        if isinstance(member, zarr.Group):
            group, attributes = member, ome_attributes(member)
    elif scene is not None:
        scene_number(scene, (), name)
    if not attributes.get("multiscales"):
        raise _not_an_image(name, attributes)
    return group, attributes, chosen, scenes


def _field(group: zarr.Group, name: str, wells: tuple[str, ...], scene: str | int | None) -> str:
    """Return the path of the field of a plate that is chosen.

    Raises
    ------
    ImageError
        If none is chosen.
    ArgumentError
        If there is no such field.
    """
    if scene is None:
        raise ImageError(
            f"{name} is a plate of {len(wells)} wells ({wells[0]} to {wells[-1]}), not one image.",
            f"Choose a field of a well by its path, the scene, such as {wells[0]}/0.",
            setting="scene",
        )
    asked = str(scene).strip("/")
    well = next((well for well in wells if asked.startswith(f"{well}/")), None)
    known = () if well is None else fields_of(group, well)
    if asked not in known:
        of = (
            f"The well {well} has the fields {', '.join(known) or 'none'}."
            if well
            else f"Its wells are {named(wells)}."
        )
        raise ArgumentError(f"The plate {name} has no field {asked}.", of, setting="scene")
    return asked


def _not_an_image(name: str, attributes: Mapping[str, Any]) -> ImageError:
    """Return the error for a group without an image."""
    if "plate" in attributes:
        return ImageError(f"{name} is a plate without wells.", "Write it again.")
    if "well" in attributes:
        return ImageError(f"{name} is a well of a plate, not one image.", f"Open one of its fields, such as {name}/0.")
    if "labels" in attributes:
        return ImageError(f"{name} holds the labels of an image.", "Open the image itself, the folder above it.")
    return ImageError(
        f"{name} is Zarr without 'multiscales', not an OME-Zarr image.", "Open the folder that names them."
    )


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
