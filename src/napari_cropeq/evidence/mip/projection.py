"""Maximum intensity projections of a result and of its source's cubic interpolation (paper, Figure 6), in blocks."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import AXIS_NAMES, Box, IntTriple, int_triple
from napari_cropeq.core.normalisation import check_finite
from napari_cropeq.evidence.evaluate.upscaling import cubic_box
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.evidence.mip.inputs import channel_name, check_grid, check_voxels, chosen_channels
from napari_cropeq.formats.chunk_cache import CAP, ChunkCache
from napari_cropeq.formats.image import Source, acquisition_of

__all__ = ["Projection", "Zoom"]

FORMAT = "napari-cropeq projection 1"
VOXELS = 2**23
"""Of a block that is read or interpolated at once."""

PERCENTILES = (0.5, 99.8)
"""Of the cubic projection: what is drawn black, and what white."""

STRONG = 4
"""Times the mean gradient of a projection: above it all edges count alike."""

Image = npt.NDArray[Any]
"""A projection (lateral, axial) in the intensities of its volume."""


@dataclass(frozen=True)
class Zoom:
    """A square of a projection, SR voxels.

    Parameters
    ----------
    axial, lateral : int
        Its first voxel.
    size : int
        Its side.
    """

    axial: int
    lateral: int
    size: int

    def of(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what the square shows of an ``image`` (lateral, axial, ...)."""
        return image[self.lateral : self.lateral + self.size, self.axial : self.axial + self.size]


class Projection:
    """A super-resolved volume and its source, interpolated, both looked at along one lateral axis.

    Parameters
    ----------
    result : Source
        The super-resolved volume.
    source : Source
        What it was made from.
    voxel_size : (z, y, x), optional
        Of the source, in its unit, where its file does not say.
    along : int, optional
        Axis to project along, an index into z, y, x; the last lateral axis by default.
    channels : sequence of int, optional
        One or two; all where there are no more, else the first two.
    slab : (int, int), optional
        First voxel along the projected axis, and the one after the last; all by default.
    zoom : Zoom, optional
        Where the projection of the result is richest in edges, by default.
    time : int
        Number of the time point.

    Attributes
    ----------
    acquisition : Acquisition
        Grid of the source.
    sr_shape : (z, y, x)
        The SR grid.
    along, lateral : int
        The projected axis, and the vertical one of the pictures.
    result, cubic : list of (lateral, axial) arrays
        The projections of each channel, complete once :meth:`run` has ended.
    seconds : float
        What they took.

    Raises
    ------
    ValueError
        If result and source do not belong together, something asked for lies outside of them, or the source is
        constant or holds NaN.
    """

    def __init__(
        self,
        result: Source,
        source: Source,
        voxel_size: tuple[float, float, float] | None = None,
        along: int | None = None,
        channels: Sequence[int] | None = None,
        slab: tuple[int, int] | None = None,
        zoom: Zoom | None = None,
        time: int = 0,
    ) -> None:
        self.names, self.time = (result.name, source.name), time
        self.acquisition = acquisition_of(source, voxel_size)
        self.sr_shape: IntTriple = self.acquisition.sr_shape(source.data.shape[-3:])
        check_grid(result, source, self.acquisition)
        self.along = self.acquisition.lateral[1] if along is None else along
        if self.along not in self.acquisition.lateral:
            first, second = (AXIS_NAMES[axis] for axis in self.acquisition.lateral)
            raise ValueError(
                f"Got {AXIS_NAMES[self.along]} to project along, which is the axial axis, expected {first} or "
                f"{second}: a projection along these shows the axial direction (--along {second})."
            )
        self.lateral = 3 - self.acquisition.axial - self.along
        self.channels = chosen_channels(source, channels)
        self.channel_names = [channel_name(source, channel) for channel in self.channels]
        self.slab = self._checked_slab(slab)
        self._asked = None if zoom is None else self._checked_zoom(zoom)
        self._pairs = [(result.volume(c, time), source.volume(c, time)) for c in self.channels]
        for channel, (result_volume, source_volume) in zip(self.channels, self._pairs, strict=True):
            check_voxels(result_volume, f"{result.name}, channel {channel}")
            check_voxels(source_volume, f"{source.name}, channel {channel}", constant=False)
        self.result: list[Image] = []
        self.cubic: list[Image] = []
        self.seconds = 0.0

    @property
    def axial(self) -> int:
        """The horizontal axis of the pictures."""
        return self.acquisition.axial

    @property
    def shape(self) -> tuple[int, int]:
        """Of a picture (lateral, axial), SR voxels."""
        return self.sr_shape[self.lateral], self.sr_shape[self.axial]

    @property
    def region(self) -> Box:
        """What is projected: the slab, SR voxels (z, y, x)."""
        start, stop = [0, 0, 0], list(self.sr_shape)
        start[self.along], stop[self.along] = self.slab
        return Box(int_triple(start), int_triple(stop))

    def run(self) -> Iterator[float]:
        """Fill :attr:`result` and :attr:`cubic`, yielding the share that is done.

        Raises
        ------
        ValueError
            If there are NaN or infinite voxels.
        OSError
            If voxels cannot be read.
        """
        started, done, total = time.perf_counter(), 0, 2 * len(self._pairs) * self.region.size
        for result, source in self._pairs:
            for volume, into, interpolated in ((result, self.result, False), (source, self.cubic, True)):
                # An axial block is made of slices that its neighbour needs as well: more of them are kept.
                bricks = ChunkCache(volume, 2 * CAP if interpolated else CAP)
                image = self._empty(np.dtype(np.float32) if interpolated else bricks.dtype)
                for box in self._blocks(bricks):
                    self._add(image, self._voxels(bricks, box, interpolated), box)
                    done += box.size
                    yield done / total
                into.append(image)
        self.seconds = time.perf_counter() - started

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Contrast limits of each channel, those of the cubic projection for both pictures."""
        return [limits_of(image) for image in self.cubic]

    @property
    def zoom(self) -> Zoom:
        """The square that is asked for, else where the result's projection is richest in edges.

        Its side is then a third of the shorter one of the projection. Strong edges count alike, so that many of them
        outdo a few: debris outshines all else.
        """
        if self._asked is not None:
            return self._asked
        size = max(1, min(self.shape) // 3)
        change = np.zeros(self.shape)
        for image, (low, high) in zip(self.result, self.limits, strict=True):
            scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
            down, across = (np.gradient(scaled, axis=a) if n > 1 else np.zeros(1) for a, n in enumerate(scaled.shape))
            gradient = np.hypot(down, across)
            change += np.minimum(gradient, STRONG * gradient.mean())
        sums = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of everything above and to the left
        inside = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
        lateral, axial = np.unravel_index(int(inside.argmax()), inside.shape)
        return Zoom(int(axial), int(lateral), size)

    def report(self) -> dict[str, Any]:
        """Return everything but the pictures, as JSON values."""
        acquisition = self.acquisition
        return {
            "format": FORMAT,
            "result": self.names[0],
            "source": self.names[1],
            "sr_shape": list(self.sr_shape),
            "shape": list(self.shape),
            "axes": {
                "horizontal": AXIS_NAMES[self.axial],
                "vertical": AXIS_NAMES[self.lateral],
                "along": AXIS_NAMES[self.along],
            },
            "factor": acquisition.factor,
            "voxel_size": list(acquisition.sr_voxel_size),
            "unit": acquisition.unit,
            "slab": list(self.slab),
            "time": self.time,
            "channels": [
                {"channel": channel, "name": name, "limits": list(limits)}
                for channel, name, limits in zip(self.channels, self.channel_names, self.limits, strict=True)
            ],
            "percentiles": list(PERCENTILES),
            "zoom": asdict(self.zoom),
            "seconds": round(self.seconds, 3),
            "machine": describe_machine(),
        }

    def _voxels(self, bricks: ChunkCache, box: Box, interpolated: bool) -> npt.NDArray[Any]:
        if interpolated:
            return cubic_box(bricks, self.acquisition, box)
        voxels = bricks[box.slices]
        check_finite(voxels, self.names[0])
        return voxels

    def _empty(self, dtype: np.dtype[Any]) -> Image:
        """Return a projection of nothing: every intensity is larger."""
        return np.full(self.shape, -np.inf if dtype.kind == "f" else np.iinfo(dtype).min, dtype)

    def _add(self, image: Image, voxels: npt.NDArray[Any], box: Box) -> None:
        part = voxels.max(axis=self.along)
        rows, columns = box.slices[self.lateral], box.slices[self.axial]
        into = image[rows, columns]
        np.maximum(into, part if self.lateral < self.axial else part.T, out=into)

    def _blocks(self, bricks: ChunkCache) -> Iterator[Box]:
        """Yield the blocks of a volume that are read at once; axially neighbours follow each other."""
        scale = self.sr_shape[self.axial] / bricks.shape[self.axial]  # 1 for the result
        stored = [max(sizes) for sizes in bricks.chunks]
        stored[self.axial] = math.ceil(stored[self.axial] * scale)
        order = (self.axial, self.lateral, self.along)
        size = block_size(self.region.shape, int_triple(stored), order)
        spans = [range(self.region.start[a], self.region.stop[a], size[a]) for a in reversed(order)]
        for corner in itertools.product(*spans):
            start = dict(zip(reversed(order), corner, strict=True))
            stop = [min(start[a] + size[a], self.region.stop[a]) for a in range(3)]
            yield Box(int_triple([start[a] for a in range(3)]), int_triple(stop))

    def _checked_slab(self, slab: tuple[int, int] | None) -> tuple[int, int]:
        length = self.sr_shape[self.along]
        start, stop = slab or (0, length)
        if not 0 <= start < stop <= length:
            raise ValueError(
                f"Got the slab {start} to {stop}, expected a start below its stop, within 0 to {length} SR voxels "
                f"along {AXIS_NAMES[self.along]}: correct it (--slab 0 {length})."
            )
        return start, stop

    def _checked_zoom(self, zoom: Zoom) -> Zoom:
        high, wide = self.shape
        largest = min(high, wide)
        if not 1 <= zoom.size <= largest:
            raise ValueError(
                f"Got a zoom of {zoom.size} SR voxels a side, expected 1 to {largest}, the shorter side of the "
                f"projection: correct it (--zoom {zoom.axial} {zoom.lateral} {max(1, largest // 4)})."
            )
        if not (0 <= zoom.axial <= wide - zoom.size and 0 <= zoom.lateral <= high - zoom.size):
            raise ValueError(
                f"Got a zoom of {zoom.size} SR voxels from {zoom.axial} along {AXIS_NAMES[self.axial]} and "
                f"{zoom.lateral} along {AXIS_NAMES[self.lateral]}, expected it to begin at 0 to {wide - zoom.size} and "
                f"0 to {high - zoom.size}: move it, or make it smaller."
            )
        return zoom


def block_size(region: IntTriple, chunk: IntTriple, order: Sequence[int]) -> IntTriple:
    """Return the shape (z, y, x) of blocks of at most :data:`VOXELS`, of whole chunks where these are no larger.

    Parameters
    ----------
    region, chunk : (z, y, x)
        What is divided, and what is stored together, voxels.
    order : axes
        The axis along which blocks grow first, to the one along which they grow last.
    """
    size = [min(c, n) for c, n in zip(chunk, region, strict=True)]
    for axis in reversed(order):  # one chunk may be too large already
        size[axis] = max(1, min(size[axis], VOXELS * size[axis] // math.prod(size)))
    for axis in order:
        size[axis] = min(region[axis], size[axis] * max(1, VOXELS // math.prod(size)))
    return int_triple(size)


def limits_of(image: Image) -> tuple[float, float]:
    """Return what of a projection is drawn black and what is drawn fully bright: percentiles, the first below."""
    low, high = (float(p) for p in np.percentile(image, PERCENTILES))
    if low == high:
        low, high = float(image.min()), float(image.max())
    return (low, high) if low < high else (low, low + 1.0)
