"""Output of a network computed in tiles, and computed in one call."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.super_resolution import SuperResolution, axial_of
from napari_cropeq.core.devices.exactness import Exactness
from napari_cropeq.core.geometry import AXIS_NAMES, Box, int_triple
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import sample
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.core.tiles import divide, pick
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.image import Image

__all__ = ["ROWS", "SIDE", "Agreement", "Assembly", "Slices", "Voxels", "agreement", "middle"]

ROWS = 16
"""Number of planes that are compared by default."""

SIDE = 1024
"""Largest side of a compared plane: a whole plane goes through the network in one call."""

Voxels = npt.NDArray[np.float32]
"""Image intensities (z, y, x), before any rounding."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of tiles with the whole, in source intensities before any rounding (paper, Table 2).

    Parameters
    ----------
    voxels : int
        Number of compared voxels.
    differing : int
        Number of voxels whose bits differ.
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
    """Assembles a box from its parts.

    Parameters
    ----------
    parts : iterable of (Box, array)
        The parts cover ``box``; they are computed while they are iterated.
    box : Box
        SR voxels.

    Attributes
    ----------
    voxels : array (z, y, x)
        Complete after :meth:`run`.
    seconds : float
        Time spent on the parts; the time between them is not counted.
    """

    def __init__(self, parts: Iterable[tuple[Box, Voxels]], box: Box) -> None:
        self._parts, self._box = parts, box
        self.voxels: Voxels = np.empty(box.shape, np.float32)
        self.seconds = 0.0

    def run(self) -> Iterator[float]:
        """Compute part by part and yield the share that is done."""
        done, started = 0, time.perf_counter()
        for part, values in self._parts:
            self.voxels[part.relative_to(self._box.start).slices] = values
            self.seconds += time.perf_counter() - started
            done += part.size
            yield done / self._box.size
            started = time.perf_counter()


def agreement(tiled: Voxels, whole: Voxels) -> Agreement:
    """Compare two arrays of the same shape bit by bit: NaN equals NaN, and 0 differs from -0."""
    differing = int(np.count_nonzero(tiled.view(np.int32) != whole.view(np.int32)))
    difference = tiled.astype(np.float64) - whole
    return Agreement(whole.size, differing, float(np.mean(difference**2)), float(np.abs(difference).max()))


def middle(shape: Sequence[int], in_plane: Sequence[int], rows: int | None = ROWS, side: int = SIDE) -> Box:
    """Return the middle (z, y, x) of a volume: a number of planes, cropped to ``side`` if they are larger.

    Parameters
    ----------
    shape : (z, y, x)
        The SR volume.
    in_plane : axes
        Axes of the planes that go through the network.
    rows : int, optional
        Number of planes; None for all.
    side : int
        Largest side of a plane.

    Raises
    ------
    ArgumentError
        If ``rows`` or ``side`` is less than 1.
    """
    for setting, what, number in (("rows", "number of planes", rows), ("side", "side of a plane", side)):
        if number is not None and number < 1:
            raise ArgumentError(f"The {what} ({number}) is less than 1.", "Choose 1 or more.", setting=setting)
    size = [min(n, side) if axis in in_plane else min(n, rows or n) for axis, n in enumerate(shape)]
    start = [(n - s) // 2 for n, s in zip(shape, size, strict=True)]
    return Box(int_triple(start), int_triple([a + s for a, s in zip(start, size, strict=True)]))


class Slices:
    """Applies one network to one volume, in whole planes or in tiles.

    Parameters
    ----------
    model : Model
        Valid or zero-padded.
    source : Image
        The volume.
    channel, time : int
        Channel and time point of the volume.
    planes, device : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`; planes of one lateral axis only.

    Raises
    ------
    ArgumentError
        If the planes are ``both``.
    MismatchError
        If the model does not fit the source.
    """

    def __init__(
        self,
        model: Model,
        source: Image,
        channel: int = 0,
        time: int = 0,
        planes: str | None = None,
        device: str = "auto",
    ) -> None:
        if planes == "both":
            raise ArgumentError(
                "Planes along both lateral axes cannot be compared: a tile lies in one plane.",
                "Choose the planes of one lateral axis.",
                setting="planes",
            )
        axial = axial_of(source, model)
        one = AXIS_NAMES[plane_axes(planes, axial)[0]]
        result, leading = SuperResolution(source, model, None, one, device), source.leading(channel, time)
        voxels = sample(result.volume(leading))
        self.digest = hashlib.blake2b(np.ascontiguousarray(voxels).data, digest_size=8).hexdigest()
        """Identifies the volume by a bounded, seeded sample."""
        self.model, self.described = model, source.describe() | {"channel": channel, "time": time}
        self.predictor = result.predictor(leading)
        self._at_once = self.predictor.at_once()
        self._in_tiles = self.predictor if model.network.shrink else self._at_once

    @property
    def kind(self) -> str:
        """Kind of the network: ``padded``, or a crop-equivariant one."""
        return self.model.network.kind

    @property
    def exactness(self) -> Exactness | None:
        """Result of the check of the device; None for a network whose tiles are not exact."""
        return self.predictor.exactness if self.model.network.shrink else None

    @property
    def promised(self) -> float:
        """Largest |tile - whole| that the check of this device allows, in source intensities; infinite if no check.

        The check measures a few tiles of noise; four times that is allowed for any image.
        """
        if self.exactness is None:
            return math.inf
        scale = self.predictor.normalisation
        return 4 * self.exactness.epsilon * (scale.high - scale.low)

    @property
    def in_plane(self) -> tuple[int, int]:
        """Axial and lateral axis of the planes."""
        return self.predictor.acquisition.axial, self.predictor.planes[0]

    def whole(self, box: Box) -> Iterator[tuple[Box, Voxels]]:
        """Yield each plane of ``box`` (SR voxels) and its output, computed in one call of the network."""
        for plane in divide(box, pick(self.in_plane, max(box.shape), 1)):
            yield plane, self._at_once(plane)

    def tiled(self, box: Box, tile: int) -> Iterator[tuple[Box, Voxels]]:
        """Yield tiles of ``box`` (SR voxels), each of ``tile`` x ``tile`` in every plane, and their output.

        A crop-equivariant network reads a halo around each tile; a zero-padded one has only zeros beyond the tile.
        """
        for part in divide(box, pick(self.in_plane, tile, box.shape[3 - sum(self.in_plane)])):
            yield part, self._in_tiles(part)

    def redundant(self, box: Box, tile: int) -> float:
        """Return the share of multiplications that tiles need beyond those for the whole; 0 if none."""
        parts = divide(box, pick(self.in_plane, tile, box.shape[3 - sum(self.in_plane)]))
        return sum(map(self._in_tiles.work, parts)) / self._at_once.work(box) - 1
