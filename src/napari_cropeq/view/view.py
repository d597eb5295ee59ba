"""The visible part of a volume, and the tiles in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.tiles import TileGrid

__all__ = ["View", "nearest_first"]


@dataclass(frozen=True, slots=True)
class View:
    """The visible part of a volume, in its own voxels.

    Attributes
    ----------
    leading : tuple of int
        Channel and time point.
    box : Box
        The visible box (z, y, x); one voxel deep in a plane.
    centre : (z, y, x)
        Tiles are computed from here outwards.
    across : int or None
        Line of sight, an index into z, y, x; None in a 3D display.
    limited : bool
        Whether there is more than one voxel per screen pixel, so that ``box`` is only the part around the centre.
    """

    leading: tuple[int, ...]
    box: Box
    centre: tuple[float, float, float]
    across: int | None = None
    limited: bool = False


def nearest_first(grid: TileGrid, view: View) -> list[IntTriple]:
    """Return the numbers of the tiles in view, sorted by distance from the centre of the view in voxels."""
    indices = list(grid.indices(view.box))
    if not indices:
        return []
    middles = (np.array(indices) + 0.5) * grid.tile - 0.5
    distance = np.square(middles - np.array(view.centre)).sum(axis=1)
    return [indices[n] for n in np.argsort(distance, kind="stable")]
