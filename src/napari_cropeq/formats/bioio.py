"""Files that bioio reads, such as CZI, LIF, ND2 and IMS, as lazy arrays."""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask.array as da
from dask.base import normalize_token

from napari_cropeq.errors import CropeqError, ImageError, MissingPackageError
from napari_cropeq.formats.chunk_cache import ExclusiveArray
from napari_cropeq.formats.metadata import (
    PIXEL,
    Metadata,
    Stored,
    calibrated,
    filled_names,
    full_unit,
    reason,
    scene_number,
    timing,
)
from napari_cropeq.formats.watch.files import Watch, identity

__all__ = ["PLUGINS", "has_plugin", "read_with_bioio"]

logger = logging.getLogger(__name__)

_OPEN, _JAVA = "bioio-openreadout", "bioio-bioformats"
PLUGINS: dict[str, tuple[str, ...]] = {
    ".czi": ("bioio-czi", _OPEN),
    ".dm3": (_JAVA,),
    ".dm4": (_JAVA,),
    ".dv": ("bioio-dv",),
    ".flex": (_JAVA,),
    ".ics": (_JAVA,),
    ".ids": (_JAVA,),
    ".ims": (_OPEN, _JAVA),
    ".lei": (_JAVA,),
    ".lif": ("bioio-lif", _OPEN),
    ".lsm": ("bioio-tifffile",),
    ".mrc": (_JAVA,),
    ".mvd2": (_JAVA,),
    ".nd2": ("bioio-nd2", _OPEN),
    ".oib": (_OPEN, _JAVA),
    ".oif": (_OPEN, _JAVA),
    ".oir": (_OPEN, _JAVA),
    ".r3d": ("bioio-dv",),
    ".sld": (_JAVA,),
    ".sldy": ("bioio-sldy",),
    ".stk": (_JAVA,),
    ".vsi": (_OPEN, _JAVA),
    ".zvi": (_OPEN, _JAVA),
}
"""Packages that teach bioio to read files of a suffix; each of them does."""

_NOTES = {
    "bioio-czi": "licence: GPL",
    _JAVA: "runs Bio-Formats, licence: GPL, in Java",
    "bioio-sldy": "needs Python 3.13 or newer",  # before that it asks for numpy 1
}
PLANES = 2**13
"""Most planes of an image that are read one by one: a plugin lists them all when it opens the file."""

_NUMBERED = re.compile(r"Channel:\d+(:\d+)*")  # an identifier of OME, not a name


def _name_dv_files() -> None:
    """Let Dask name the arrays of a DeltaVision file by its path; by default it would read the whole file for that."""
    from mrc import DVFile  # of bioio-dv

    normalize_token.register(DVFile, lambda file: (DVFile.__name__, file.path, identity(file.path)))


normalize_token.register_lazy("mrc", _name_dv_files)


class PluginArray(ExclusiveArray):
    """One level of an image, read by a plugin of bioio; another process opens the file again.

    Parameters
    ----------
    path
        The file.
    scene
        Number of the image in the file.
    level
        From 0, the finest.
    array
        The Dask array of the plugin.
    lock
        Of all levels.
    """

    def __init__(self, path: Path, scene: int, level: int, array: Any, lock: threading.Lock) -> None:
        super().__init__(array, lock)
        self._arguments = path, scene, level

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, self._arguments


def has_plugin(name: str) -> bool:
    """Return whether bioio, and a plugin of it that takes files of such a name, are installed."""
    return importlib.util.find_spec("bioio") is not None and bool(_plugins(name))


def read_with_bioio(path: Path, watch: Watch, scene: str | int | None = None) -> Stored | None:
    """Open a file with a plugin of bioio without reading a voxel.

    Parameters
    ----------
    path
        The file.
    watch
        Watches the file.
    scene
        Name or number of the image in the file, by default the first.

    Returns
    -------
    Stored or None
        None if there is no plugin, installed or not, that is known to read files of this suffix.

    Raises
    ------
    MissingPackageError
        If bioio or its plugin is not installed.
    ImageError
        If no plugin can read the file.
    ArgumentError
        If there is no such image in the file.
    """
    wanted = PLUGINS.get(path.suffix.lower(), ())
    if not has_plugin(path.name):
        if not wanted:
            return None
        raise _missing(path.name, wanted)
    if path.stat().st_size == 0:
        raise ImageError(f"{path.name} is empty (0 bytes).", "Copy or save it again.")
    reader = _reader(path)
    try:
        scenes = _scenes(reader)
        number = scene_number(scene, scenes, path.name)
        (finest, axes), *others = _levels(path, reader, number)
        chosen = scenes[number] if scenes else ""
        stored = Stored(finest, axes, finest.chunks, _metadata(reader, number), scene=chosen, scenes=scenes)
    except CropeqError:
        raise
    except Exception as error:  # each plugin raises its own
        raise _unreadable(path.name, reason(error)) from error
    coarser = (replace(stored, array=level, chunks=level.chunks) for level, letters in others if letters == axes)
    return replace(stored, coarser=tuple(coarser))


def _plugins(name: str) -> list[Any]:
    """Return the plugins for a file name, the most specific first; those that are installed meanwhile count too."""
    from bioio.plugins import get_plugins

    try:
        known = get_plugins(use_cache=False)
    except Exception as error:  # a plugin may fail in any way when it is imported
        raise ImageError(
            f"{name} cannot be read by bioio, because one of its plugins fails ({reason(error)}).",
            "Update the plugin, or uninstall it.",
        ) from error
    found = [plugin for suffix, plugins in known.items() if name.lower().endswith(suffix) for plugin in plugins]
    return list(dict.fromkeys(found))


def _missing(name: str, wanted: Sequence[str]) -> MissingPackageError:
    """Return the error for a file whose plugin is not installed."""
    notes = {package: f" ({_NOTES[package]})" if package in _NOTES else "" for package in wanted}
    if importlib.util.find_spec("bioio") is None:
        problem, first = "is read by bioio, which is not installed.", 'pip install "napari-cropeq[bioio]"'
    else:
        problem, first = f"is read by bioio with {' or '.join(wanted)}, which is not installed.", "pip install"
    commands = ", or: ".join(f"{first} {package}{note}" for package, note in notes.items())
    return MissingPackageError(f"{name} {problem}", f"Install it with: {commands}")


def _unreadable(name: str, why: str) -> ImageError:
    return ImageError(
        f"{name} cannot be read by bioio ({why}): it is damaged or of another format.", "Copy or export it again."
    )


def _reader(path: Path) -> Any:
    """Open a file with the first plugin that can read it."""
    failures = []
    for plugin in _plugins(path.name):
        try:
            return _opened(plugin.metadata.get_reader(), path)
        except Exception as error:  # noqa: BLE001 (each plugin raises its own)
            why = getattr(error, "msg_extra", None)  # of bioio's error, without the path
            failures.append(f"{plugin.entrypoint.name}: {' '.join(str(why).split())[:200] if why else reason(error)}")
    raise _unreadable(path.name, "; ".join(failures))


def _opened(reader: Any, path: Path) -> Any:
    """Open a file; it stays open where a plugin offers that, because each read would parse its index again."""
    try:
        return reader(str(path), keep_open=True)
    except TypeError:
        return reader(str(path))


def _in_planes(path: Path, reader: Any) -> Any:
    """Return a reader that reads planes, where this one would read a volume for each plane, or itself."""
    data = reader.xarray_dask_data
    count = math.prod(size for axis, size in data.sizes.items() if axis not in ("Y", "X", "S"))
    chunks = dict(zip(data.dims, data.data.chunksize, strict=True))
    if chunks.get("Z", 1) == 1 or count > PLANES:
        return reader
    try:
        finer = type(reader)(str(path), chunk_dims=["Y", "X"])
    except TypeError:  # this plugin has no choice
        return reader
    finer.set_scene(reader.current_scene_index)
    return finer


def _scenes(reader: Any) -> tuple[str, ...]:
    """Return the names of the images of a file, or their numbers where names are not unique; none for a single one."""
    names = tuple(map(str, reader.scenes))
    if len(names) < 2:
        return ()
    return names if all(names) and len(set(names)) == len(names) else tuple(map(str, range(len(names))))


def _levels(path: Path, reader: Any, scene: int) -> list[tuple[PluginArray, str]]:
    """Return the levels of an image that can be read, each with the letters of its axes."""
    reader.set_scene(scene)
    reader = _in_planes(path, reader)
    numbers, lock = list(reader.resolution_levels), threading.Lock()
    found: list[tuple[PluginArray, str]] = []
    for number in numbers:
        try:
            reader.set_resolution_level(number)
            data = _stitched(reader, path.name)
        except Exception as error:  # the finest level is enough
            if not found:
                raise
            logger.warning("Skipped the coarser levels of %s from number %d: %s", path.name, number, error)
            break
        axes = "".join(str(axis).lower() if len(str(axis)) == 1 else "q" for axis in data.dims)
        found.append((PluginArray(path, scene, len(found), _flat(data.data), lock), axes))
    if len(numbers) > 1:
        reader.set_resolution_level(numbers[0])  # whose metadata are read, where this is the same reader
    return found


def _flat(array: Any) -> Any:
    """Return a Dask array with one layer: some plugins make two for each plane, and each read goes through them all."""
    if type(array) is not da.Array:
        return array
    return da.Array(dict(array.__dask_graph__()), array.name, array.chunks, dtype=array.dtype)


def _stitched(reader: Any, name: str) -> Any:
    """Return the image with its axes; its tiles are put together where the plugin can do that."""
    data = reader.xarray_dask_data
    if "M" not in data.dims:
        return data
    try:
        return reader.mosaic_xarray_dask_data
    except NotImplementedError:
        tiles = data.sizes["M"]
        logger.warning("%s has %d tiles that its reader does not put together; the first is read.", name, tiles)
        return data


def _reopened(path: Path, scene: int, level: int) -> PluginArray:
    return _levels(path, _reader(path), scene)[level][0]


def _metadata(reader: Any, scene: int) -> Metadata:
    """Read the metadata of an image; what the plugin does not know counts as not stored."""
    images = getattr(_property(reader, "metadata"), "images", [])  # some plugins have all metadata in OME's model
    pixels = images[scene].pixels if scene < len(images) else None
    channels = [] if pixels is None else pixels.channels
    colors = tuple(_hex(channel.color) for channel in channels)
    names = _property(reader, "channel_names") or []
    named = [name if isinstance(name, str) and not _NUMBERED.fullmatch(name) else None for name in names]
    voxel_size, unit = _voxel_size(reader, pixels)
    time_step, time_unit = _time_step(reader, pixels)
    return Metadata(
        voxel_size=voxel_size,
        unit=unit,
        channel_names=filled_names(named),
        channel_colors=colors if set(colors) - {None, "#ffffff"} else (),  # white is the default of OME
        time_step=time_step,
        time_unit=time_unit,
    )


def _voxel_size(reader: Any, pixels: Any) -> tuple[tuple[float, float, float] | None, str]:
    """Return the voxel size (z, y, x) and its unit; bioio's lengths are in micrometers where no unit is stored."""
    sizes, properties = _property(reader, "physical_pixel_sizes"), _property(reader, "dimension_properties")
    if sizes is None:
        return None, PIXEL
    units = []
    for axis in "ZYX":
        stored = getattr(getattr(properties, axis, None), "unit", None)
        if stored is None and pixels is not None:
            stored = getattr(pixels, f"physical_size_{axis.lower()}_unit", None)
            stored = getattr(stored, "value", stored)
        units.append(full_unit(stored))
    voxel_size, unit = calibrated([sizes.Z, sizes.Y, sizes.X], units)
    return voxel_size, "micrometer" if voxel_size is not None and unit == PIXEL else unit


def _time_step(reader: Any, pixels: Any) -> tuple[float, str]:
    """Return the time step and its unit."""
    step = getattr(pixels, "time_increment", None)
    if step is not None:
        unit = pixels.time_increment_unit
        return timing(float(step), getattr(unit, "value", unit))
    interval = _property(reader, "time_interval")
    return timing(interval.total_seconds() if isinstance(interval, timedelta) else None, "second")


def _property(reader: Any, name: str) -> Any:
    """Return a property of a reader; None if it fails, as for metadata that a file lacks."""
    try:
        return getattr(reader, name)
    except Exception as error:  # noqa: BLE001 (as above)
        logger.info("%s has no %s: %s", type(reader).__module__, name, reason(error))
        return None


def _hex(color: Any) -> str | None:
    """Return a colour of OME's model as '#rrggbb'."""
    try:
        red, green, blue = color.as_rgb_tuple(alpha=False)
    except (AttributeError, TypeError, ValueError):
        return None
    return f"#{red:02x}{green:02x}{blue:02x}"
