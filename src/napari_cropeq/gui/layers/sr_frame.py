"""The SR grid of a layer, before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image

from napari_cropeq.core.geometry import Acquisition, Box, int_triple
from napari_cropeq.gui.layers.source import finest, linear_map, result_transform
from napari_cropeq.gui.layers.viewport import box_view, view_of
from napari_cropeq.view.view import View

__all__ = ["SRFrame"]

BOX = 128  # side of the box in a 3D display, SR voxels
DEPTH = 32  # SR voxels on either side of a lateral plane


class SRFrame:
    """The position of the SR voxels of a layer in the viewer.

    Parameters
    ----------
    layer : Image
        The source.
    acquisition : Acquisition
        Its grid.
    """

    def __init__(self, layer: Image, acquisition: Acquisition) -> None:
        shape = finest(layer).shape
        self.shape = acquisition.sr_shape(shape[-3:])
        self._axial = acquisition.axial
        # Only the geometry of this image is used.
        empty = np.broadcast_to(np.uint8(0), (*shape[:-3], *self.shape))
        self._image = Image(empty, contrast_limits=(0, 1), **result_transform(layer, acquisition))

    def view(self, viewer: Any) -> View | None:
        """Return the part of the SR grid that is in view, or None."""
        if viewer.dims.ndisplay == 3:
            return box_view(viewer, self._image, BOX)
        return view_of(viewer, self._image)

    def visible_box(self, view: View, most: int) -> Box:
        """Return a box of at most ``most`` SR voxels of a view, around its centre.

        A lateral plane contains only one line of each plane that the network processes, so the box gets some depth.
        """
        start, stop = list(view.box.start), list(view.box.stop)
        if view.across == self._axial:
            middle = start[self._axial]
            start[self._axial] = max(0, middle - DEPTH)
            stop[self._axial] = min(self.shape[self._axial], middle + DEPTH)
        sizes = [b - a for a, b in zip(start, stop, strict=True)]
        while np.prod(sizes, dtype=np.float64) > most:
            widest = int(np.argmax(sizes))
            sizes[widest] = -(-sizes[widest] // 2)
        for axis, (size, centre) in enumerate(zip(sizes, view.centre, strict=True)):
            if size < stop[axis] - start[axis]:
                start[axis] = int(np.clip(round(centre - (size - 1) / 2), start[axis], stop[axis] - size))
                stop[axis] = start[axis] + size
        return Box(int_triple(start), int_triple(stop))

    def placed(self, box: Box) -> dict[str, Any]:
        """Return affine, units and axis labels of a layer (z, y, x) with the voxels of ``box``."""
        affine = np.eye(4)
        affine[:3, :3] = linear_map(self._image)
        leading = (0,) * (self._image.ndim - 3)
        affine[:3, 3] = np.asarray(self._image.data_to_world((*leading, *box.start)))[-3:]
        return {"affine": affine, "units": self._image.units[-3:], "axis_labels": self._image.axis_labels[-3:]}
