"""The layers of the maps of a result: expected error and consistency, on its grid, following the view like it."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QObject

from napari_cropeq.gui.layers.source import result_transform
from napari_cropeq.gui.layers.sr_layer import levels_of
from napari_cropeq.gui.result import Result
from napari_cropeq.view.maps import CONSISTENCY, ERROR

__all__ = ["MapLayers"]

LOOKS: dict[str, dict[str, Any]] = {
    ERROR: {"colormap": "inferno", "contrast_limits": (0.0, 1.0)},
    CONSISTENCY: {"colormap": "RdBu_r", "contrast_limits": (-5.0, 5.0)},  # red where more was acquired,
}
UNITS = {ERROR: "intensity", CONSISTENCY: "× noise"}
BRIGHTEST = 0.995  # quantile of the expected errors in view that gets the last colour


class MapLayers(QObject):
    """Adds a layer for each map, and refreshes them as their tiles arrive.

    Parameters
    ----------
    viewer : napari viewer
        Where they appear.
    result : Result
        What is mapped; its worker computes the tiles.

    Attributes
    ----------
    images : dict of Image
        By the kind of the map.
    """

    def __init__(self, viewer: Any, result: Result) -> None:
        super().__init__(result)
        self._viewer, self.result = viewer, result
        self._shown, self._fitted = ERROR, False
        self.images: dict[str, Image] = {}

    def show(self, kind: str) -> None:
        """Show this map, and hide the other; both are computed, because each says something about the view."""
        self._shown = kind
        for own, image in self.images.items():
            image.visible = own == kind
        self.result.worker.in_view.maps.wanted = frozenset(LOOKS)  # from the next view on

    def refresh(self) -> None:
        """Add the layers once the result has one, and show the tiles that have arrived."""
        result, layers = self.result.result, self._viewer.layers
        if result is None or self.result.layer not in layers:
            return
        for kind in LOOKS:
            if kind == ERROR and result.model.error_tail is None:
                continue
            image = self.images.get(kind)
            if image is None or image not in layers:
                image = self.images[kind] = self._made(kind)
                selected = set(layers.selection)
                layers.append(image)
                layers.selection = selected
            elif image.visible:
                image.refresh(extent=False, thumbnail=False, highlight=False)
        self._fit()

    def stop(self) -> None:
        """Compute no more tiles of maps, also if the view is followed for the result itself."""
        self.result.worker.in_view.maps.wanted = frozenset()

    def remove(self) -> None:
        """Compute no more of them, and remove the layers: they are of another result, or their dock is closed."""
        self.stop()
        for image in self.images.values():
            if image in self._viewer.layers:
                self._viewer.layers.remove(image)
        self.images.clear()

    def under(self, position: Any) -> tuple[float, float] | None:
        """Return the result and its expected error at a position in the world; None where they are not computed."""
        image, lazy, maps = self.result.layer, self.result.worker.in_view.lazy, self.result.worker.in_view.maps
        if image is None or lazy is None or ERROR not in self.images:
            return None
        index = np.rint(image.world_to_data(position)).astype(int)
        shape = (*lazy.result.leading_shape, *lazy.result.sr_shape)
        if not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
            return None
        leading, (z, y, x) = tuple(map(int, index[:-3])), ([int(i)] for i in index[-3:])
        where = tuple(np.array(i, np.int64) for i in (z, y, x))
        value, error = (view.read(leading, where).item() for view in (lazy, maps.lazy(ERROR)))
        return None if np.isnan(error) else (float(value), float(error))

    def _made(self, kind: str) -> Image:
        result, layer = self.result.result, self.result.layer
        assert result is not None and layer is not None
        levels = levels_of(self.result.worker.in_view.maps.lazy(kind))
        image = Image(
            levels,
            multiscale=isinstance(levels, list),
            name=f"{layer.name}: {kind} ({UNITS[kind]})",
            cache=False,
            blending="translucent",
            metadata={"napari-cropeq": {"map": kind, **result.describe()}},
            **LOOKS[kind],
            **result_transform(self.result.source_layer, result.acquisition),
            visible=kind == self._shown,
        )
        image.colorbar.visible = True
        return image

    def _fit(self) -> None:
        """Fit the colours of the expected error to the first view that is complete."""
        image, view = self.images.get(ERROR), self.result.follower.view
        if self._fitted or image is None or view is None or self.result.looking:
            return
        values = self.result.worker.in_view.maps.values(ERROR, view)
        if values is not None and (most := float(np.quantile(values, BRIGHTEST))) > 0:
            image.contrast_limits_range = (0.0, 4 * most)
            image.contrast_limits, self._fitted = (0.0, most), True
