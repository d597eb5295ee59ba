"""The SR grid over a layer, before anything has been computed on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image

from napari_cropeq.core.geometry import Acquisition, Box, int_triple
from napari_cropeq.gui.layers.source import finest, linear_map, result_transform
from napari_cropeq.gui.layers.viewport import box_view, view_of
from napari_cropeq.view.view import View

__all__ = ["SRFrame"]

BOX = 128  # side of what is taken in a 3D display, SR voxels
DEEP = 32  # SR voxels on either side of a lateral plane: slices are seen across it


class SRFrame:
    """Where the SR voxels of a layer lie in the window.

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
        # Nothing but its geometry is used.
        nothing = np.broadcast_to(np.uint8(0), (*shape[:-3], *self.shape))
        self._image = Image(nothing, contrast_limits=(0, 1), **result_transform(layer, acquisition))

    def view(self, viewer: Any) -> View | None:
        """Return what of the SR grid is in view, None where nothing is."""
        if viewer.dims.ndisplay == 3:
            return box_view(viewer, self._image, BOX)
        return view_of(viewer, self._image)

    def seen(self, view: View, most: int) -> Box:
        """Return the SR voxels of a view, at most so many, around its centre.

        A plane across the axial axis is one line of each plane that goes through the network: it gets some depth.
        """
        start, stop = list(view.box.start), list(view.box.stop)
        if view.across == self._axial:
            middle = start[self._axial]
            start[self._axial] = max(0, middle - DEEP)
            stop[self._axial] = min(self.shape[self._axial], middle + DEEP)
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
        """Return where a layer (z, y, x) of the voxels of ``box`` lies: affine, units and axis labels."""
        affine = np.eye(4)
        affine[:3, :3] = linear_map(self._image)
        leading = (0,) * (self._image.ndim - 3)
        affine[:3, 3] = np.asarray(self._image.data_to_world((*leading, *box.start)))[-3:]
        return {"affine": affine, "units": self._image.units[-3:], "axis_labels": self._image.axis_labels[-3:]}
