"""Maximum intensity projections of a result and of its interpolated source (paper, Figure 6), block by block."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import AXIS_NAMES, Box, IntTriple, int_triple
from napari_cropeq.core.normalisation import check_finite
from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.evaluate.upscaling import cubic_box
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.evidence.mip.inputs import channel_name, check_grid, check_voxels, chosen_channels
from napari_cropeq.evidence.mip.regions import Zoom, chosen_slab, given_slab
from napari_cropeq.formats.chunk_cache import CAP, ChunkCache
from napari_cropeq.formats.image import Image, acquisition_of

__all__ = ["Projection"]

logger = logging.getLogger(__name__)

FORMAT = "napari-cropeq projection 1"
VOXELS = 2**23
"""Most voxels of a block that is read or interpolated at once."""

PERCENTILES = (0.5, 99.8)
"""Percentiles of the cubic projection that are drawn black and white."""

STRONG = 4
"""Multiple of the mean gradient of a projection; all stronger edges count alike."""

LONG = 2
"""Ratio of the sides of a projection from which its longer side is horizontal."""

ProjectedImage = npt.NDArray[Any]
"""A projection (lateral, axial) in the intensities of its volume."""


class Projection:
    """Projections of a super-resolved volume and of its interpolated source, along a lateral axis.

    Parameters
    ----------
    result : Image
        The super-resolved volume.
    source : Image
        The volume from which it was computed.
    voxel_size : (z, y, x), optional
        Voxel size of the source, in its unit, if its file does not store one.
    along : int, optional
        Axis to project along, an index into z, y, x; the last lateral axis by default.
    channels : sequence of int, optional
        One or two; the first two by default.
    slab : (int, int), optional
        First voxel along the projected axis, and the one after the last. By default all, or the middle if there are so
        many bright voxels that structures would hide each other.
    whole : bool
        Without a ``slab``: all voxels in any case.
    zoom : Zoom, optional
        By default, the region with most edges in the projection of the result.
    time : int
        Number of the time point.

    Attributes
    ----------
    acquisition : Acquisition
        Grid of the source.
    sr_shape : (z, y, x)
        The SR grid.
    along, lateral : int
        The projected axis, and the lateral axis of the pictures.
    slab : Slab
        The projected voxels.
    result, cubic : list of (lateral, axial) arrays
        The projections of each channel, complete after :meth:`run`.
    seconds : float
        Time of :meth:`run`.

    Raises
    ------
    MismatchError
        If result and source do not belong together.
    ArgumentError
        If channels, slab or zoom are outside the volumes, or ``along`` is the axial axis.
    ImageError
        If the source is constant, or a volume contains NaN.
    """

    def __init__(
        self,
        result: Image,
        source: Image,
        voxel_size: tuple[float, float, float] | None = None,
        along: int | None = None,
        channels: Sequence[int] | None = None,
        slab: tuple[int, int] | None = None,
        zoom: Zoom | None = None,
        time: int = 0,
        whole: bool = False,
    ) -> None:
        self.names, self.time = (result.name, source.name), time
        self.acquisition = acquisition_of(source, voxel_size)
        self.sr_shape: IntTriple = self.acquisition.sr_shape(source.data.shape[-3:])
        check_grid(result, source, self.acquisition)
        self.along = self.acquisition.lateral[1] if along is None else along
        if self.along not in self.acquisition.lateral:
            first, second = (AXIS_NAMES[axis] for axis in self.acquisition.lateral)
            raise ArgumentError(
                f"{AXIS_NAMES[self.along]} is the axial axis; a projection along it does not show the axial direction.",
                f"Choose {first} or {second}.",
                setting="along",
            )
        self.lateral = 3 - self.acquisition.axial - self.along
        self.channels = chosen_channels(source, channels)
        self.channel_names = [channel_name(source, channel) for channel in self.channels]
        if zoom is not None:
            zoom.check(self.shape, (AXIS_NAMES[self.lateral], AXIS_NAMES[self.axial]))
        self._given_zoom, samples = zoom, []
        length = self.sr_shape[self.along]
        given = (0, length) if slab is None and whole else slab
        fixed = None if given is None else given_slab(*given, length, AXIS_NAMES[self.along])
        self._pairs = [(result.volume(c, time), source.volume(c, time)) for c in self.channels]
        for channel, (result_volume, source_volume) in zip(self.channels, self._pairs, strict=True):
            check_voxels(result_volume, f"{result.name}, channel {channel}")
            samples.append(check_voxels(source_volume, f"{source.name}, channel {channel}", constant=False))
        self.slab = fixed or chosen_slab(samples, PERCENTILES, length)
        self.result: list[ProjectedImage] = []
        self.cubic: list[ProjectedImage] = []
        self.seconds = 0.0

    @property
    def axial(self) -> int:
        """The axial axis."""
        return self.acquisition.axial

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a projection (lateral, axial), SR voxels."""
        return self.sr_shape[self.lateral], self.sr_shape[self.axial]

    @property
    def is_upright(self) -> bool:
        """Whether the axial axis is vertical in the pictures, as that of a stack that is much wider than deep."""
        return self.shape[0] >= LONG * self.shape[1]

    @property
    def picture_shape(self) -> tuple[int, int]:
        """Shape of a picture (vertical, horizontal), SR voxels."""
        lateral, axial = self.shape
        return (axial, lateral) if self.is_upright else (lateral, axial)

    @property
    def region(self) -> Box:
        """The projected slab, SR voxels (z, y, x)."""
        start, stop = [0, 0, 0], list(self.sr_shape)
        start[self.along], stop[self.along] = self.slab.start, self.slab.stop
        return Box(int_triple(start), int_triple(stop))

    def run(self) -> Iterator[float]:
        """Fill :attr:`result` and :attr:`cubic`, yielding the share that is done.

        Raises
        ------
        ImageError
            If there are NaN or infinite voxels.
        OSError
            If voxels cannot be read.
        """
        slab, axis = self.slab, AXIS_NAMES[self.along]
        logger.info("Projecting %s along %s, slab %d to %d", self.names[0], axis, slab.start, slab.stop)
        started, done, total = time.perf_counter(), 0, 2 * len(self._pairs) * self.region.size
        for result, source in self._pairs:
            for volume, into, interpolated in ((result, self.result, False), (source, self.cubic, True)):
                # Axial neighbours need some of the same slices, so that more of them are kept in memory.
                cached = ChunkCache(volume, 2 * CAP if interpolated else CAP)
                image = self._empty(np.dtype(np.float32) if interpolated else cached.dtype)
                for box in self._blocks(cached):
                    self._add(image, self._voxels(cached, box, interpolated), box)
                    done += box.size
                    yield done / total
                into.append(image)
        self.seconds = time.perf_counter() - started
        logger.info("Projected in %.1f s", self.seconds)

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Contrast limits of each channel, from the cubic projection, for both pictures."""
        return [limits_of(image) for image in self.cubic]

    @property
    def zoom(self) -> Zoom:
        """The given square, else the one with most edges in the projection of the result.

        All strong edges count alike, so that a few very bright structures, such as debris, do not decide.
        """
        if self._given_zoom is not None:
            return self._given_zoom
        change = np.zeros(self.shape)
        for image, (low, high) in zip(self.result, self.limits, strict=True):
            scaled = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
            down, across = (np.gradient(scaled, axis=a) if n > 1 else np.zeros(1) for a, n in enumerate(scaled.shape))
            gradient = np.hypot(down, across)
            change += np.minimum(gradient, STRONG * gradient.mean())
        return Zoom.on_most(change)

    def report(self) -> dict[str, Any]:
        """Return everything except the pictures, as JSON values."""
        acquisition, slab = self.acquisition, self.slab
        horizontal, vertical = (AXIS_NAMES[a] for a in (self.axial, self.lateral)[:: -1 if self.is_upright else 1])
        return {
            "format": FORMAT,
            "result": self.names[0],
            "source": self.names[1],
            "sr_shape": list(self.sr_shape),
            "shape": list(self.picture_shape),
            "axes": {
                "horizontal": horizontal,
                "vertical": vertical,
                "along": AXIS_NAMES[self.along],
            },
            "factor": acquisition.factor,
            "voxel_size": list(acquisition.sr_voxel_size),
            "unit": acquisition.unit,
            "slab": [slab.start, slab.stop],
            "slab_chosen": slab.crossed is not None,
            "bright_voxels_crossed": None if slab.crossed is None else round(slab.crossed, 1),
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

    def _voxels(self, cached: ChunkCache, box: Box, interpolated: bool) -> npt.NDArray[Any]:
        if interpolated:
            return cubic_box(cached, self.acquisition, box)
        voxels = cached[box.slices]
        check_finite(voxels, self.names[0])
        return voxels

    def _empty(self, dtype: np.dtype[Any]) -> ProjectedImage:
        """Return a projection with the lowest value of ``dtype``, to which maxima are added."""
        return np.full(self.shape, -np.inf if dtype.kind == "f" else np.iinfo(dtype).min, dtype)

    def _add(self, image: ProjectedImage, voxels: npt.NDArray[Any], box: Box) -> None:
        part = voxels.max(axis=self.along)
        rows, columns = box.slices[self.lateral], box.slices[self.axial]
        into = image[rows, columns]
        np.maximum(into, part if self.lateral < self.axial else part.T, out=into)

    def _blocks(self, cached: ChunkCache) -> Iterator[Box]:
        """Yield the blocks of a volume, each read at once, axial neighbours one after another."""
        scale = self.sr_shape[self.axial] / cached.shape[self.axial]  # 1 for the result
        stored = [max(sizes) for sizes in cached.chunks]
        stored[self.axial] = math.ceil(stored[self.axial] * scale)
        order = (self.axial, self.lateral, self.along)
        size = block_size(self.region.shape, int_triple(stored), order)
        spans = [range(self.region.start[a], self.region.stop[a], size[a]) for a in reversed(order)]
        for corner in itertools.product(*spans):
            start = dict(zip(reversed(order), corner, strict=True))
            stop = [min(start[a] + size[a], self.region.stop[a]) for a in range(3)]
            yield Box(int_triple([start[a] for a in range(3)]), int_triple(stop))


def block_size(region: IntTriple, chunk: IntTriple, order: Sequence[int]) -> IntTriple:
    """Return the shape (z, y, x) of blocks of at most :data:`VOXELS`, in whole chunks unless a chunk is larger.

    Parameters
    ----------
    region, chunk : (z, y, x)
        Shape of the region to divide, and of a stored chunk, voxels.
    order : axes
        Axes in the order in which blocks grow along them.
    """
    size = [min(c, n) for c, n in zip(chunk, region, strict=True)]
    for axis in reversed(order):  # a single chunk may be too large
        size[axis] = max(1, min(size[axis], VOXELS * size[axis] // math.prod(size)))
    for axis in order:
        size[axis] = min(region[axis], size[axis] * max(1, VOXELS // math.prod(size)))
    return int_triple(size)


def limits_of(image: ProjectedImage) -> tuple[float, float]:
    """Return the intensities that are drawn black and fully bright: percentiles, the first below the second."""
    low, high = (float(p) for p in np.percentile(image, PERCENTILES))
    if low == high:
        low, high = float(image.min()), float(image.max())
    return (low, high) if low < high else (low, low + 1.0)
