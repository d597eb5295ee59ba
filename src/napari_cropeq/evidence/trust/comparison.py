"""The comparison of a whole result with the acquired slices, part by part."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.imaging.agreement import Agreement
from napari_cropeq.core.imaging.consistency import Consistency
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.tiles import TileGrid, pick
from napari_cropeq.errors import StoppedError

__all__ = ["Comparison", "compare"]

ROWS, SIDE = 64, 256  # of a part: about as many SR rows, and lateral voxels
MOST = 2**32  # SR voxels that are compared
SQUARE = 8  # side of the squares whose mean difference is looked at, px


@dataclass(frozen=True)
class Comparison:
    """A result and the acquired slices.

    Parameters
    ----------
    agreement : Agreement
        The distribution of the differences.
    worst : float
        Largest root mean square of a square of 8 x 8 px in a slice, in the unit of the differences.
    place : (z, y, x)
        Middle of that square, acquired voxels.
    saturated : float
        Share of the compared voxels that have the highest intensity.
    highest : float
        That intensity.
    part : float
        Share of the voxels of these slices that was compared.
    """

    agreement: Agreement
    worst: float
    place: IntTriple
    saturated: float
    highest: float
    part: float


def compare(
    consistency: Consistency, result: ArrayLike, source: ArrayLike, stop: Callable[[], bool]
) -> Generator[float, None, Comparison]:
    """Compare a result (z, y, x) with its source (z, y, x), yielding the share that is done; return what was found.

    Slices that also show what lies beyond the volume are left out. A very large volume is compared in parts that are
    spread over it.

    Raises
    ------
    StoppedError
        If ``stop`` returned True.
    """
    acquisition, axial = consistency.forward.acquisition, consistency.forward.acquisition.axial
    first, last = consistency.forward.covered
    start = pick([axial], first, 0)
    shape = int_triple([last - first if axis == axial else n for axis, n in enumerate(source.shape)])
    tile = pick([axial], max(2, round(ROWS / acquisition.factor)), SIDE)
    grid = TileGrid(shape, int_triple([min(t, n) for t, n in zip(tile, shape, strict=True)]))
    total = Box.whole(acquisition.sr_shape(shape)).size
    numbers = np.unique(np.linspace(0, grid.count - 1, max(1, min(grid.count, grid.count * MOST // total))).astype(int))
    agreement, worst, place, compared = Agreement(consistency.noise), -1.0, (0, 0, 0), 0
    highest, count = -np.inf, 0
    for done, number in enumerate(numbers, 1):
        if stop():
            raise StoppedError
        box = grid.box(int_triple(np.unravel_index(number, grid.counts))).relative_to([-n for n in start])
        needed = consistency.forward.sr_box(box)
        acquired = np.asarray(source[box.slices])
        found = consistency.differences(np.asarray(result[needed.slices]), needed, acquired, box)
        agreement, compared = agreement.adding(found), compared + found.size
        size, there = _worst(np.moveaxis(found, axial, 0))
        if size > worst:
            worst, place = size, _at(there, box, axial)
        top = float(acquired.max())
        if top >= highest:
            count = int((acquired == acquired.max()).sum()) + (count if top == highest else 0)
            highest = top
        yield done / len(numbers)
    return Comparison(agreement, worst, place, count / compared, highest, compared / Box.whole(shape).size)


def _worst(differences: npt.NDArray[Any]) -> tuple[float, IntTriple]:
    """Return the largest root mean square of a square, and its middle (slice, row, column)."""
    high, wide = (max(1, n // SQUARE) for n in differences.shape[1:])
    side = [min(SQUARE, n) for n in differences.shape[1:]]
    whole = differences[:, : high * side[0], : wide * side[1]].astype(np.float64) ** 2
    means = whole.reshape(len(whole), high, side[0], wide, side[1]).mean(axis=(2, 4))
    slice_, row, column = np.unravel_index(int(means.argmax()), means.shape)
    return float(means.max() ** 0.5), (
        int(slice_),
        int(row) * side[0] + side[0] // 2,
        int(column) * side[1] + side[1] // 2,
    )


def _at(place: IntTriple, box: Box, axial: int) -> IntTriple:
    """Return a place (slice, row, column) of a box as (z, y, x) of the volume."""
    order = [axial, *(axis for axis in range(3) if axis != axial)]
    inside = dict(zip(order, place, strict=True))
    return int_triple([box.start[axis] + inside[axis] for axis in range(3)])
