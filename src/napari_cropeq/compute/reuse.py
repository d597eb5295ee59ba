"""Boxes made of what is finished already, and of the network's work for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.fill import Compute
from napari_cropeq.core.geometry import Box, Lead, int_triple
from napari_cropeq.core.predict import never
from napari_cropeq.store.protocol import TileStore, finished

__all__ = ["Reuse"]


class Reuse:
    """Takes from finished tiles what they hold of a box and computes the smallest box around the rest.

    The bits of a voxel do not depend on the box it is computed in, so that the two fit together.

    Parameters
    ----------
    stores : callable
        Gives the stores that are asked, anew for every box.
    compute : Compute
        Gives the voxels that are in none of them.
    """

    def __init__(self, stores: Callable[[], Iterable[TileStore]], compute: Compute) -> None:
        self._stores, self._compute = stores, compute

    def __call__(self, lead: Lead, box: Box, stop: Callable[[], bool] = never) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) at the leading indices ``lead``.

        Raises
        ------
        StoppedError
            If ``stop`` returned True before the end.
        """
        voxels: npt.NDArray[Any] | None = None
        missing = np.ones(box.shape, bool)
        for store in self._stores():
            for index in finished(store, lead, box):
                part = store.grid.box(index).intersect(box)
                held = None if part is None else store.read((lead, index), part)
                if part is not None and held is not None:
                    voxels = np.empty(box.shape, held.dtype) if voxels is None else voxels
                    inside = part.relative_to(box.start).slices
                    voxels[inside], missing[inside] = held, False
        if voxels is None:
            return self._compute(lead, box, stop)
        if missing.any():
            rest = bounding_box(missing)
            voxels[rest.slices] = self._compute(lead, rest.relative_to([-s for s in box.start]), stop)
        return voxels


def bounding_box(mask: npt.NDArray[np.bool_]) -> Box:
    """Return the smallest box that holds every true voxel of ``mask`` (z, y, x); there must be one."""
    along = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return Box(int_triple([int(i[0]) for i in along]), int_triple([int(i[-1]) + 1 for i in along]))
