"""Reader for OME-TIFF, ImageJ TIFF, OME-Zarr, NIfTI and what bioio reads: lazy, with scale, units and channels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from napari import current_viewer
from napari.utils.notifications import show_error
from npe2 import PluginManager

from napari_cropeq.errors import MissingPackageError
from napari_cropeq.formats.bioio import PLUGINS, has_plugin
from napari_cropeq.formats.find import is_zarr
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import SUFFIXES
from napari_cropeq.formats.paths import is_url, place_of
from napari_cropeq.formats.provenance import read_provenance
from napari_cropeq.gui.layers.address import render_asynchronously
from napari_cropeq.gui.layers.questions import open_or_ask
from napari_cropeq.gui.layers.source import WATCH
from napari_cropeq.gui.layers.unfinished_layer import UNFINISHED
from napari_cropeq.store.unfinished import Unfinished

__all__ = ["get_reader", "layer_data"]

PEEK = 2048  # largest side of the part that is read to choose contrast limits, voxels
LayerData = tuple[Any, ...]  # data, options and type of a layer


COLORS = (("magenta", "green"), ("cyan", "yellow", "magenta", "red", "green", "blue"))
"""Colormaps of two channels, and of more, as napari has them for an array with a channel axis."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return a reader if every path is an address, or has a suffix that it can read."""
    paths = [path] if isinstance(path, str) else path
    return read if all(map(_takes, paths)) else None


def _takes(path: str) -> bool:
    """Return whether to open a file.

    If what bioio needs for a file is not installed, and no other plugin of napari can open the file, it is opened all
    the same, with an error that says what to install.
    """
    if is_url(path) or path.rstrip("/\\").lower().endswith(SUFFIXES) or is_zarr(Path(path)):
        return True
    if Path(path).suffix.lower() not in PLUGINS:
        return False
    readers = PluginManager.instance().iter_compatible_readers(path)
    return has_plugin(path) or all(reader.plugin_name == "napari-cropeq" for reader in readers)


def read(path: str | list[str]) -> list[LayerData]:
    """Return one layer for each channel of each file; voxels are read when they are shown.

    Without any, as when the user cancels, this is what napari takes for no layer.
    """
    paths = [path] if isinstance(path, str) else path
    return [data for p in paths for data in _opened_or_said(place_of(p))] or [(None,)]


def _opened_or_said(path: Path | str) -> list[LayerData]:
    """Return the layers of a file; if a package is missing, say so: napari hides the text of an error."""
    try:
        return _opened(path)
    except MissingPackageError as error:
        if current_viewer() is None:
            raise
        show_error(str(error))
        return []


def _opened(path: Path | str) -> list[LayerData]:
    """Return the layers of a file; those of an unfinished result are named so, and the result can be resumed."""
    source = open_or_ask(path)
    if source is None:
        return []
    if isinstance(path, Path) and source.path is not None:
        path = Path(source.path)  # of the image in a plate or collection
    if source.remote:
        render_asynchronously(source.name)
    layers = layer_data(source)
    made = read_provenance(path) or {}
    if "quantity" in made:  # of a result, so not something to super-resolve
        for _, options, _ in layers:
            options["metadata"] |= {"napari-cropeq": made}
            options["colormap"] = "inferno"
    unfinished = Unfinished.open(path) if isinstance(path, Path) and path.is_dir() else None
    if unfinished is not None:
        for _, options, _ in layers:
            options["name"] += f" (unfinished, {unfinished.fraction:.0%})"
            options["metadata"] |= {"napari-cropeq": unfinished.source, UNFINISHED: str(path)}
    return layers


def layer_data(source: Image) -> list[LayerData]:
    """Return napari layers of a source: channels split, (t, z, y, x) or (z, y, x) each.

    A volume without a voxel size is shown in pixels. Levels that are coarser than memory requires are left out,
    because a 3D display shows only the last level.
    """
    image, leading = source.image, source.axes[:-3]
    scale = [image.time_step if letter == "t" else 1.0 for letter in leading] + list(image.voxel_size)
    translate = [0.0] * len(leading) + list(image.translate)
    units = [image.time_unit if letter == "t" else "pixel" for letter in leading] + [image.unit] * 3
    keep = [a for a, letter in enumerate(source.axes) if letter != "c"]
    levels = list(takewhile(lambda level: prod(level.shape[-3:]) > source.coarse_voxels, source.levels))
    levels = list(source.levels[: len(levels) + 1])
    layers = []
    for number in range(source.n_channels):
        index = tuple(number if letter == "c" else slice(None) for letter in source.axes)
        known = number < len(source.channel_names) and source.channel_names[number] != source.name
        name = f"{source.name} {source.channel_names[number]}" if known else source.name
        if source.n_channels > 1 and not known:
            name = f"{source.name} channel {number}"
        options: dict[str, Any] = {
            "name": name,
            "scale": [scale[a] for a in keep],
            "translate": [translate[a] for a in keep],
            "units": [units[a] for a in keep],
            "axis_labels": [source.axes[a] for a in keep],
            "metadata": {"source": source.describe(), WATCH: source.watch},
        }
        if source.n_channels > 1:
            options |= {"blending": "additive"}
        options |= _colormap(source, number)
        data = [level[index] for level in levels]
        if len(data) > 1:
            options["multiscale"] = True
        limits = _limits(levels[-1][index]) if any(translate) else None
        if limits is not None:
            options["contrast_limits"] = limits
        layers.append((data if len(data) > 1 else data[0], options, "image"))
    return layers


def _colormap(source: Image, channel: int) -> dict[str, Any]:
    """Return the colours of a channel: those of the file, or, where channels would look alike, different ones."""
    colors = source.channel_colors[: source.n_channels]
    if source.n_channels > 1 and len(set(colors)) < source.n_channels:
        several = COLORS[source.n_channels > 2]
        return {"colormap": several[channel % len(several)]}
    color = colors[channel] if channel < len(colors) else None
    return {"colormap": "gray" if color == "#ffffff" else color} if color else {}


def _limits(level: Any) -> tuple[float, float] | None:
    """Return smallest and largest intensity of the middle plane; None if it is constant or unreadable.

    The axes of ``level`` are ((t,) z, y, x).
    """
    middle = level[(*(0,) * (level.ndim - 3), level.shape[-3] // 2)]
    first = [max(0, (n - PEEK) // 2) for n in middle.shape]
    try:
        plane = np.asarray(middle[tuple(slice(a, a + PEEK) for a in first)])
    except (OSError, ValueError):  # the error is shown when the plane is displayed
        return None
    known = plane[np.isfinite(plane)]
    if not known.size or known.min() == known.max():
        return None
    return float(known.min()), float(known.max())
