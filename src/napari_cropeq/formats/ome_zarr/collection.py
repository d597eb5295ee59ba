"""The images of an OME-Zarr that holds several: a plate, or what bioformats2raw makes of a file with several images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store

from napari_cropeq.formats.metadata import reason

__all__ = ["every_image", "fields_of", "images_in", "ome_attributes", "wells_of"]

logger = logging.getLogger(__name__)


def ome_attributes(group: zarr.Group) -> Mapping[str, Any]:
    """Return the OME attributes of a group: under ``ome`` since OME-Zarr 0.5, at the root before that."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    nested = attributes.get("ome")
    return nested if isinstance(nested, Mapping) else attributes


def every_image(place: Path | Store) -> tuple[str, ...]:
    """Return the paths of all images of a collection, or of all fields of a plate; none if it is neither."""
    group = zarr.open_group(place, mode="r")
    wells = wells_of(group)
    return tuple(field for well in wells for field in fields_of(group, well)) if wells else images_in(group)


def images_in(group: zarr.Group) -> tuple[str, ...]:
    """Return the paths of the images of a collection in its group; none if it is a plate, an image, or neither."""
    attributes = ome_attributes(group)
    if attributes.get("multiscales") or "plate" in attributes:
        return ()
    listed = _listed(group)
    return tuple(name for name in listed if _is_image(group, name))


def wells_of(group: zarr.Group) -> tuple[str, ...]:
    """Return the paths of the wells of a plate, such as ``B/3``, in its order; none if it is not a plate."""
    plate = ome_attributes(group).get("plate")
    wells = plate.get("wells") if isinstance(plate, Mapping) else None
    if not isinstance(wells, list):
        return ()
    return tuple(str(well["path"]) for well in wells if isinstance(well, Mapping) and well.get("path"))


def fields_of(group: zarr.Group, well: str) -> tuple[str, ...]:
    """Return the paths of the fields of a well in the group of its plate, such as ``B/3/0``.

    A well that cannot be read has none: plates name wells that were never imaged.
    """
    try:
        images = ome_attributes(_group(group, well))["well"]["images"]
        return tuple(f"{well}/{image['path']}" for image in images)
    except Exception as error:  # noqa: BLE001 (the metadata may have any values of JSON)
        logger.info("Skipped the well %s, which has no fields: %s", well, reason(error))
        return ()


def _listed(group: zarr.Group) -> Iterator[str]:
    """Yield names of images: those that the collection lists, or else 0, 1, ... as long as they exist."""
    try:
        series = ome_attributes(_group(group, "OME")).get("series")
    except Exception:  # noqa: BLE001 (as above; the list is optional)
        series = None
    if isinstance(series, list) and series:
        yield from map(str, series)
        return
    number = 0
    while str(number) in group:
        yield str(number)
        number += 1


def _group(group: zarr.Group, path: str) -> zarr.Group:
    member = group[path]
    if not isinstance(member, zarr.Group):
        raise KeyError(path)
    return member


def _is_image(group: zarr.Group, name: str) -> bool:
    try:
        return bool(ome_attributes(_group(group, name)).get("multiscales"))
    except Exception:  # noqa: BLE001 (as above)
        return False
