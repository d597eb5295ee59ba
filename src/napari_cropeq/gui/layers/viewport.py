"""The part of a layer that is in view: a pure function of camera, canvas, dims and layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_cropeq.core.geometry import Box, int_triple
from napari_cropeq.view.view import View

__all__ = ["box_view", "canvas_size", "corners_of", "view_of", "view_signals"]


def view_of(viewer: Any, layer: Layer) -> View | None:
    """Return the part of ``layer`` that the canvas shows in 2D, or None.

    This uses the public camera and canvas, because ``corner_pixels`` of multiscale layers are extended to whole chunks.
    If several voxels fall on a screen pixel, the view has only as many voxels as pixels, around the centre.
    """
    scene = scene_of(viewer)
    camera, dims = scene.camera, viewer.dims
    if dims.ndisplay != 2:
        return None
    size = canvas_size(viewer)
    displayed = list(dims.displayed)
    corners = []
    for down, right in itertools.product((-0.5, 0.5), repeat=2):
        world = np.array(dims.point, float)
        world[displayed] = np.array(camera.center[-2:]) + np.array([down, right]) * size / camera.zoom
        corners.append(layer.world_to_data(in_units_of(layer, viewer, world)))
    own = [axis - (dims.ndim - layer.ndim) for axis in displayed]
    return box_of_corners(np.array(corners), finest_shape(layer), own, size)


def box_view(viewer: Any, layer: Layer, size: int, region: np.ndarray | None = None) -> View | None:
    """Return a box of ``layer`` around the camera's centre in 3D, or None if the layer is not there.

    Parameters
    ----------
    viewer : napari viewer
        In a 3D display.
    layer : Layer
        The SR layer.
    size : int
        Side of the box, voxels; less along an axis where the volume is thinner.
    region : array (n, ndim), optional
        World coordinates of the corners of a rectangle that the box covers instead. Along an axis where it has no
        extent, the box has the side ``size``.
    """
    dims = viewer.dims
    if dims.ndisplay != 3:
        return None
    shape = finest_shape(layer)
    world = np.array(dims.point, float)
    world[list(dims.displayed)] = scene_of(viewer).camera.center
    world = in_units_of(layer, viewer, world)
    middle = np.array(layer.world_to_data(world))
    low = high = middle[-3:]
    if region is not None:
        padded = np.tile(world, (len(region), 1))
        shared = min(layer.ndim, region.shape[1])
        padded[:, -shared:] = in_units_of(layer, viewer, region)[:, -shared:]
        corners = np.array([layer.world_to_data(corner) for corner in padded])[:, -3:]
        low, high = corners.min(axis=0), corners.max(axis=0)
    start, stop = [], []
    for first, last, n in zip(low, high, shape[-3:], strict=True):
        extent = min(n, round(last - first) + 1 if last - first >= 1 else size)
        begin = int(np.clip(np.floor((first + last + 1 - extent) / 2 + 1e-6), 0, n - extent))
        start.append(begin)
        stop.append(begin + extent)
    if any(c < -0.5 or c > n - 0.5 for c, n in zip((low + high) / 2, shape[-3:], strict=True)):
        return None
    leading = tuple(int(np.clip(round(c), 0, n - 1)) for c, n in zip(middle[:-3], shape[:-3], strict=True))
    box = Box(int_triple(start), int_triple(stop))
    z, y, x = ((a + b - 1) / 2 for a, b in zip(start, stop, strict=True))
    return View(leading, box, (z, y, x))


def view_signals(viewer: Any) -> list[Any]:
    """Return the events that may change the view."""
    camera, dims = scene_of(viewer).camera.events, viewer.dims.events
    signals = [camera.center, camera.zoom, dims.point, dims.order, dims.ndisplay]
    canvas = getattr(viewer, "canvas", None)
    size = getattr(getattr(canvas, "events", None), "size", None)
    return signals if size is None else [*signals, size]


def in_units_of(layer: Layer, viewer: Any, world: np.ndarray) -> np.ndarray:
    """Return world coordinates (..., ndim) in the units of ``layer``, only for the axes that it has.

    World coordinates are in units that fit all layers; a layer converts only to and from its own units.
    """
    world = world[..., -layer.ndim :]
    return world * units_in_world(layer, viewer)[-world.shape[-1] :]


def corners_of(viewer: Any, shape: np.ndarray, layer: Layer) -> np.ndarray:
    """Return the world coordinates (n, ndim) of the corners of a ``shape`` (n, ndim) in the data of ``layer``."""
    return np.array([layer.data_to_world(corner) for corner in shape]) / units_in_world(layer, viewer)


def units_in_world(layer: Layer, viewer: Any) -> np.ndarray:
    """Return the size of one world unit in the layer's units, for each axis of the layer."""
    units = getattr(viewer.layers, "units", None)
    if units is None or len(units) < layer.ndim:
        return np.ones(layer.ndim)
    pairs = zip(units[-layer.ndim :], layer.units, strict=True)
    return np.array([1.0 if a == b else (1 * a).to(b).magnitude for a, b in pairs])


def scene_of(viewer: Any) -> Any:
    """Return the object with the camera: ``viewer.scene`` since napari 0.9."""
    return getattr(viewer, "scene", viewer)


def finest_shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of the layer's finest level."""
    data: Any = layer.data
    return tuple(data[0].shape if getattr(layer, "multiscale", False) else data.shape)


def canvas_size(viewer: Any) -> tuple[int, int]:
    """Return height and width of the canvas in screen pixels."""
    height, width = viewer.canvas.size
    return int(height), int(width)


def box_of_corners(
    corners: np.ndarray, shape: tuple[int, ...], displayed: Sequence[int], size: tuple[int, int]
) -> View | None:
    """Return the box of voxels that touch the bounding box of ``corners`` (n, ndim; data coordinates).

    Parameters
    ----------
    corners : array (n, ndim)
        Of the canvas, in data coordinates.
    shape : tuple of int
        Of the layer.
    displayed : (vertical, horizontal)
        The layer's axes along the canvas; negative if it has none.
    size : (height, width)
        Of the canvas, in pixels: the most voxels along the displayed axes.
    """
    low, high = corners.min(axis=0), corners.max(axis=0)
    start = np.clip(np.floor(low + 0.5), 0, shape).astype(int)
    stop = np.clip(np.floor(high + 0.5) + 1, 0, shape).astype(int)
    if (start >= stop).any():
        return None
    limited = False
    for axis, pixels in zip(displayed, size, strict=True):
        # One more voxel on either side is only touched.
        if axis >= 0 and high[axis] - low[axis] > pixels + 1 and stop[axis] - start[axis] > pixels:
            limited, middle = True, (low[axis] + high[axis]) / 2
            start[axis] = np.clip(round(middle - pixels / 2), start[axis], stop[axis] - pixels)
            stop[axis] = start[axis] + pixels
    leading = len(shape) - 3
    centre = np.clip(corners.mean(axis=0), start, stop - 1)
    z, y, x = (float(c) for c in centre[leading:])
    hidden = [axis for axis in range(3) if axis + leading not in displayed]
    return View(
        tuple(int(np.clip(round(float(c)), 0, n - 1)) for c, n in zip(centre[:leading], shape, strict=False)),
        Box(int_triple(list(start[leading:])), int_triple(list(stop[leading:]))),
        (z, y, x),
        hidden[0] if hidden else None,
        limited,
    )
