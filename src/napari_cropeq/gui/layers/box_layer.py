"""The preview in a 3D display: a box of the SR volume as a separate small layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image

from napari_cropeq.gui.layers.source import appearance, linear_map
from napari_cropeq.view.lazy import LazyView
from napari_cropeq.view.view import View

__all__ = ["BoxLayer"]


class BoxLayer:
    """A single-scale layer of a part of a lazy view, because a multiscale layer shows its coarsest level in 3D.

    The SR layer itself is hidden meanwhile.

    Parameters
    ----------
    viewer : napari viewer
        Where the layer appears.
    whole : Image
        The SR layer.
    lazy : LazyView
        The data of both.
    """

    def __init__(self, viewer: Any, whole: Image, lazy: LazyView) -> None:
        self._viewer, self._whole, self._lazy = viewer, whole, lazy
        self._view: View | None = None
        self._was_visible = True
        self.layer: Image | None = None
        self.in_region = False

    def show(self, view: View, in_region: bool = False) -> None:
        """Show the box of ``view``, which the user may have chosen as a region; an existing layer is moved."""
        self.in_region = in_region
        if self._view is not None and (view.leading, view.box) == (self._view.leading, self._view.box):
            return
        self._view = view
        data, affine = self._lazy.part(view.leading, view.box), self._affine(view)
        if self.layer is None:
            self._add(data, affine)
        else:
            self.layer.affine = affine
            self.layer.data = data

    def hide(self) -> None:
        """Remove the box; the SR layer is shown again if it was visible before."""
        layer, self.layer, self._view = self.layer, None, None
        if layer is None:
            return
        if layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self._whole.visible = self._was_visible

    def _add(self, data: Any, affine: np.ndarray) -> None:
        self._was_visible, self._whole.visible = self._whole.visible, False
        whole = self._whole
        self.layer = self._viewer.add_image(
            data,
            name=f"{whole.name} box",
            cache=False,
            metadata={"napari-cropeq": {"box_of": whole.name}},
            affine=affine,
            units=whole.units[-3:],
            axis_labels=whole.axis_labels[-3:],
            **appearance(whole),
        )

    def _affine(self, view: View) -> np.ndarray:
        """Return the matrix (4, 4) that places the voxels of the box on those of the SR layer."""
        out = np.eye(4)
        out[:3, :3] = linear_map(self._whole)
        out[:3, 3] = np.array(self._whole.data_to_world((*view.leading, *view.box.start)))[-3:]
        return out
