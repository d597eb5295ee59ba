"""What of a layer is in view: a pure function of camera, canvas, dims and layer."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.tiles import TileGrid

__all__ = ["View", "nearest_first", "view_of"]


@dataclass(frozen=True)
class View:
    """The visible part of a layer, in its own voxels."""

    lead: tuple[int, ...]  # indices along leading axes
    box: Box  # z, y, x
    centre: tuple[float, float, float]  # z, y, x


def view_of(viewer: Any, layer: Layer) -> View | None:
    """Return what of ``layer`` the canvas shows in 2D, or None where it shows nothing of it.

    The public camera and canvas are used: corner pixels of multiscale layers are widened to whole chunks.
    """
    scene = getattr(viewer, "scene", viewer)  # named so since napari 0.9
    camera, dims = scene.camera, viewer.dims
    if dims.ndisplay != 2:
        return None
    height, width = canvas_size(viewer)
    displayed = list(dims.displayed)
    corners = []
    for down, right in itertools.product((-0.5, 0.5), repeat=2):
        world = np.array(dims.point, float)
        world[displayed] = np.array(camera.center[-2:]) + np.array([down * height, right * width]) / camera.zoom
        corners.append(layer.world_to_data(world[-layer.ndim :]))
    return box_of_corners(np.array(corners), finest_shape(layer))


def finest_shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of the layer's finest level."""
    data: Any = layer.data
    return tuple(data[0].shape if getattr(layer, "multiscale", False) else data.shape)


def canvas_size(viewer: Any) -> tuple[int, int]:
    """Return height and width of the canvas in screen pixels."""
    canvas = getattr(viewer, "canvas", None)
    size = canvas.size if canvas is not None and hasattr(canvas, "size") else viewer._canvas_size
    return int(size[0]), int(size[1])


def box_of_corners(corners: np.ndarray, shape: tuple[int, ...]) -> View | None:
    """Return the box of voxels whose centres' cells touch the hull of ``corners`` (n, ndim; data coordinates)."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    start = np.clip(np.floor(low + 0.5), 0, shape).astype(int)
    stop = np.clip(np.floor(high + 0.5) + 1, 0, shape).astype(int)
    lead = len(shape) - 3
    if (start >= stop).any():
        return None
    centre = np.clip(corners.mean(axis=0), 0, np.array(shape) - 1)
    z, y, x = (float(c) for c in centre[lead:])
    return View(
        tuple(round(float(c)) for c in centre[:lead]),
        Box(int_triple(list(start[lead:])), int_triple(list(stop[lead:]))),
        (z, y, x),
    )


def nearest_first(grid: TileGrid, view: View) -> list[IntTriple]:
    """Return the numbers of the tiles in view, by distance of their centre from the view's, in tiles."""
    centre, tile = np.array(view.centre), np.array(grid.tile)

    def distance(index: IntTriple) -> float:
        return float(np.square((np.array(index) + 0.5) * tile - centre).sum())

    return sorted(grid.indices(view.box), key=distance)
