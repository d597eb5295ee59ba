"""Tiles against the whole: what a network gives tile by tile, and what it gives when shown all at once."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.exactness import Exactness
from napari_cropeq.core.geometry import Box, int_triple
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import sample
from napari_cropeq.core.tiles import divide, pick
from napari_cropeq.formats.image import Source

__all__ = ["ROWS", "SIDE", "Agreement", "Assembly", "Slices", "Voxels", "agreement", "middle"]

ROWS = 16
"""Planes that are compared unless told otherwise."""

SIDE = 1024
"""Largest side of what is compared at once: a whole plane goes through the network in one call."""

Voxels = npt.NDArray[np.float32]
"""In source intensities (z, y, x), before any rounding."""


@dataclass(frozen=True)
class Agreement:
    """How far tiles are from the whole, in source intensities before any rounding (paper, Table 2).

    Parameters
    ----------
    voxels : int
        Compared.
    differing : int
        Voxels whose bits differ.
    mse : float
        Mean squared difference.
    largest : float
        Largest |difference|.
    """

    voxels: int
    differing: int
    mse: float
    largest: float

    @property
    def identical(self) -> float:
        """Share of voxels with the same bits."""
        return 1 - self.differing / self.voxels

    @property
    def exact(self) -> bool:
        """Whether every voxel has the same bits."""
        return self.differing == 0


class Assembly:
    """Puts the parts of a box together.

    Parameters
    ----------
    parts : iterable of (Box, array)
        That cover ``box``; computed as they are asked for.
    box : Box
        SR voxels.

    Attributes
    ----------
    voxels : array (z, y, x)
        Whole once :meth:`run` has ended.
    seconds : float
        Spent on the parts; what is done between them is not counted.
    """

    def __init__(self, parts: Iterable[tuple[Box, Voxels]], box: Box) -> None:
        self._parts, self._box = parts, box
        self.voxels: Voxels = np.empty(box.shape, np.float32)
        self.seconds = 0.0

    def run(self) -> Iterator[float]:
        """Take part by part, yielding the share that is done."""
        done, started = 0, time.perf_counter()
        for part, values in self._parts:
            self.voxels[part.relative_to(self._box.start).slices] = values
            self.seconds += time.perf_counter() - started
            done += part.size
            yield done / self._box.size
            started = time.perf_counter()


def agreement(tiled: Voxels, whole: Voxels) -> Agreement:
    """Compare two arrays of one shape; bits are compared as bits, so that NaN equals NaN and 0 is not -0."""
    differing = int(np.count_nonzero(tiled.view(np.int32) != whole.view(np.int32)))
    difference = tiled.astype(np.float64) - whole
    return Agreement(whole.size, differing, float(np.mean(difference**2)), float(np.abs(difference).max()))


def middle(shape: Sequence[int], in_plane: Sequence[int], rows: int | None = ROWS, side: int = SIDE) -> Box:
    """Return the middle (z, y, x) of a volume: so many planes, each as a whole as far as ``side`` allows.

    Parameters
    ----------
    shape : (z, y, x)
        The SR volume.
    in_plane : axes
        Of the planes that go through the network.
    rows : int, optional
        Planes; None for all.
    side : int
        Largest side of a plane.

    Raises
    ------
    ValueError
        If ``rows`` or ``side`` is less than 1.
    """
    for name, number in (("planes (--rows)", rows), ("voxels for the side of a plane (--side)", side)):
        if number is not None and number < 1:
            raise ValueError(f"Got {number} {name}, expected at least 1: give another number.")
    size = [min(n, side) if axis in in_plane else min(n, rows or n) for axis, n in enumerate(shape)]
    start = [(n - s) // 2 for n, s in zip(shape, size, strict=True)]
    return Box(int_triple(start), int_triple([a + s for a, s in zip(start, size, strict=True)]))


class Slices:
    """One network on one volume, slice by slice or tile by tile.

    Parameters
    ----------
    model : Model
        Valid or zero-padded.
    source : Source
        The volume.
    channel, time : int
        Which one of it.
    planes, device : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`; planes of one lateral axis only.

    Raises
    ------
    ValueError
        If the model does not fit the source, or the planes are ``both``.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        channel: int = 0,
        time: int = 0,
        planes: str | None = None,
        device: str = "auto",
    ) -> None:
        if planes == "both":
            raise ValueError(
                "Got planes 'both', expected those of one lateral axis: a slice is one plane; choose y or x."
            )
        result, leading = SuperResolution(source, model, None, planes, device), source.leading(channel, time)
        voxels = sample(result.volume(leading))
        self.digest = hashlib.blake2b(np.ascontiguousarray(voxels).data, digest_size=8).hexdigest()
        """Tells the volume from others, by a bounded, seeded sample."""
        self.model, self.described = model, source.describe() | {"channel": channel, "time": time}
        self.predictor = result.predictor(leading)
        self._at_once = self.predictor.at_once()
        self._in_tiles = self.predictor if model.network.shrink else self._at_once

    @property
    def kind(self) -> str:
        """The network's kind: ``padded``, or one that is crop-equivariant."""
        return self.model.network.kind

    @property
    def exactness(self) -> Exactness | None:
        """What the check of the device found; None for a network whose tiles are not exact."""
        return self.predictor.exactness if self.model.network.shrink else None

    @property
    def promised(self) -> float:
        """The largest |tile - whole|, in source intensities, that this device's check allows; infinite for no promise.

        The check's bound holds for a few tiles of noise; four times that is allowed for any image.
        """
        if self.exactness is None:
            return math.inf
        scale = self.predictor.normalisation
        return 4 * self.exactness.epsilon * (scale.high - scale.low)

    @property
    def in_plane(self) -> tuple[int, int]:
        """The axial axis and the lateral one of the planes."""
        return self.predictor.acquisition.axial, self.predictor.planes[0]

    def whole(self, box: Box) -> Iterator[tuple[Box, Voxels]]:
        """Yield each plane of ``box`` (SR voxels) and what the network gives that is shown all of it in one call."""
        for plane in divide(box, pick(self.in_plane, max(box.shape), 1)):
            yield plane, self._at_once(plane)

    def tiled(self, box: Box, tile: int) -> Iterator[tuple[Box, Voxels]]:
        """Yield tiles of ``box`` (SR voxels) that write ``tile`` x ``tile`` of each plane, and what each is given.

        A crop-equivariant network reads its halo around each; a zero-padded one knows nothing beyond.
        """
        for part in divide(box, pick(self.in_plane, tile, box.shape[3 - sum(self.in_plane)])):
            yield part, self._in_tiles(part)

    def redundant(self, box: Box, tile: int) -> float:
        """Return how much more the network multiplies in tiles than at once, as a share: 0 is nothing."""
        parts = divide(box, pick(self.in_plane, tile, box.shape[3 - sum(self.in_plane)]))
        return sum(map(self._in_tiles.work, parts)) / self._at_once.work(box) - 1
