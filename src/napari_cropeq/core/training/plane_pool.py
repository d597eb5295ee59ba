"""Lateral planes of a source, rotated at random and degraded like the axial direction; patches are cut from them."""

from __future__ import annotations

import functools
import math
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, mirror, source_range, sr_length
from napari_cropeq.core.normalisation import Normalisation, check_finite
from napari_cropeq.core.spline import ArrayLike, degradation, interpolation_weights

__all__ = ["HELD_OUT", "LEAST_WEIGHT", "Orientation", "Plane", "PlanePool", "PlaneReader", "Volume"]

WINDOW = 1024
"""Largest side of a plane, px: only windows of wider slices are read."""

BLOCK_SLICES = 8
POOL_BYTES = 2**27
MOST_PLANES = 32
LEAST_WEIGHT = 1e-3  # of the slice profile, for a row to belong to a sample
GRADIENT_BLOCK = 16  # patches are drawn by the mean gradient of squares with this side, px
# Share of white noise that remains along one axis after cubic interpolation at random offsets (the mean of its squared
# weights); along the other axis the subsequent blur leaves little of it anyway.
INTERPOLATED_NOISE = 0.874


@dataclass(frozen=True, slots=True)
class Volume:
    """A source volume (z, y, x), with the scale and number of its channel."""

    voxels: ArrayLike
    normalisation: Normalisation
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Orientation:
    """Orientation of a plane: flipped first, then rotated by ``angle`` degrees."""

    angle: float
    flip: bool

    @property
    def right(self) -> bool:
        """Whether the angle is a multiple of 90 degrees, which needs no interpolation."""
        return self.angle % 90 == 0

    def apply(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the rotated plane; for an oblique angle, the largest upright rectangle inside it, without borders."""
        plane = plane[:, ::-1] if self.flip else plane
        if self.right:
            return np.rot90(plane, round(self.angle / 90))
        radians = math.radians(self.angle)
        cos, sin = math.cos(radians), math.sin(radians)
        shape = inscribed(plane.shape, self.angle)
        matrix = np.array([[cos, sin], [-sin, cos]])
        centre, middle = (np.array(plane.shape) - 1) / 2, (np.array(shape) - 1) / 2
        rotated: npt.NDArray[Any] = ndimage.affine_transform(
            plane, matrix, centre - matrix @ middle, output_shape=shape, order=3, mode="mirror"
        )
        return rotated


HELD_OUT = Orientation(180.0, False)
"""The orientation of validation patches; training angles differ from it by more than ``HELD_OUT_MARGIN`` degrees."""

HELD_OUT_MARGIN = 7.5


def inscribed(shape: Sequence[int], angle: float) -> tuple[int, int]:
    """Return the largest upright rectangle (rows, columns) in one of ``shape`` that is rotated by ``angle`` degrees.

    It is two px away from the border, so interpolation needs nothing beyond it.
    """
    height, width = (float(n - 4) for n in shape)
    sin, cos = (abs(f(math.radians(angle))) for f in (math.sin, math.cos))
    short, long = min(height, width), max(height, width)
    if short <= 2 * sin * cos * long or abs(sin - cos) < 1e-9:  # two corners touch the longer sides
        half = short / 2
        inside = (half / sin, half / cos) if height > width else (half / cos, half / sin)
    else:
        double = cos * cos - sin * sin
        inside = ((height * cos - width * sin) / double, (width * cos - height * sin) / double)
    # Few different sizes, since the matrices that degrade a plane are cached for each size.
    rows, columns = (max(0, int(n)) // 16 * 16 for n in inside)
    return rows, columns


@dataclass(frozen=True, slots=True)
class Plane:
    """A lateral plane for training: axis 0 is degraded like the axial axis, axis 1 is lateral."""

    sharp: npt.NDArray[np.float32]  # (rows, columns), SR px, normalised: the target
    coarse: npt.NDArray[np.float32]  # (samples, columns): the samples of a stack along axis 0
    down: npt.NDArray[np.float32]  # (samples, rows): the weights that blur and sample a line; shared by equal planes
    kept: npt.NDArray[np.float32]  # (samples,) share of a voxel's noise variance that remains
    channel: int
    structure: npt.NDArray[np.float64]  # cumulative mean gradient of squares, row by row
    squares: int  # along a row

    @property
    def nbytes(self) -> int:
        """Memory of its arrays."""
        return self.sharp.nbytes + self.coarse.nbytes + self.structure.nbytes

    @classmethod
    def make(
        cls, sharp: npt.NDArray[np.float32], factor: float, sigma: float, noise_left: float = 1.0, channel: int = 0
    ) -> Plane:
        """Degrade ``sharp`` (rows, columns) along axis 0 by the slice profile (``sigma`` px) and the step.

        ``noise_left`` is the share of its noise variance that earlier processing has left.
        """
        samples = math.floor((sharp.shape[0] + 1e-6) / factor)
        sharp = np.ascontiguousarray(sharp[: sr_length(samples, factor)], np.float32)
        down, kept = downwards(samples, factor, sigma)
        smooth = ndimage.gaussian_filter(sharp, 1.0)
        high, wide = (n // GRADIENT_BLOCK for n in sharp.shape)
        gradient = np.hypot(*np.gradient(smooth))[: high * GRADIENT_BLOCK, : wide * GRADIENT_BLOCK]
        weight = gradient.reshape(high, GRADIENT_BLOCK, wide, GRADIENT_BLOCK).mean(axis=(1, 3)).ravel() + 1e-12
        structure = np.cumsum(weight / weight.sum())
        return cls(sharp, down @ sharp, down, kept * np.float32(noise_left), channel, structure, wide)

    def rows(self, low: int, high: int, start: int, stop: int) -> slice:
        """Return the rows that samples ``low`` to ``high`` are made from, and at least rows ``start`` to ``stop``."""
        used = np.flatnonzero(np.abs(self.down[low:high]).max(axis=0) > LEAST_WEIGHT)
        return slice(min(int(used[0]), start), max(int(used[-1]) + 1, stop))

    def place(self, rng: np.random.Generator, share: float) -> tuple[float, float]:
        """Return a random centre (row, column), SR px; a ``share`` of them lies where the gradient is high."""
        if rng.random() < share:
            square = min(int(np.searchsorted(self.structure, rng.random())), len(self.structure) - 1)
            row, column = divmod(square, self.squares)
            centre = [(n + 0.5) * GRADIENT_BLOCK + rng.uniform(-GRADIENT_BLOCK, GRADIENT_BLOCK) for n in (row, column)]
        else:
            centre = [rng.uniform(0, n) for n in self.sharp.shape]
        return centre[0], centre[1]


@functools.lru_cache(maxsize=64)
def downwards(samples: int, factor: float, sigma: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the matrix (samples, rows) that blurs and samples a line of SR px, and the noise left in each sample.

    Beyond its ends the line is mirrored.
    """
    rows = sr_length(samples, factor)
    _, down, first = degradation(0, rows, factor, sigma)
    before = -source_range(0, rows, factor)[0]  # degradation starts with samples before the line
    inside = down[before : before + samples]
    columns = mirror(np.arange(first, first + down.shape[1], dtype=np.int64), rows)
    matrix = np.zeros((samples, rows))
    np.add.at(matrix.T, columns, inside.T)
    return matrix.astype(np.float32), (inside**2).sum(axis=1).astype(np.float32)


@functools.lru_cache(maxsize=64)
def upwards(samples: int, halo: int, factor: float) -> npt.NDArray[np.float32]:
    """Return the matrix that interpolates a line of ``samples``, and ``halo`` mirrored SR px beyond its ends.

    Row ``halo + j`` gives SR px j.
    """
    first, weights = interpolation_weights(-halo, sr_length(samples, factor) + halo, factor)
    matrix = np.zeros((len(first), samples))
    for row, tap, values in zip(matrix, first, weights, strict=True):
        np.add.at(row, mirror(np.arange(tap, tap + len(values), dtype=np.int64), samples), values)
    return matrix.astype(np.float32)


@dataclass
class PlaneReader:
    """Reads lateral slices, neighbouring ones as one box, and makes planes from them, without end.

    Parameters
    ----------
    volumes : sequence of Volume
        Channels and time points, drawn with equal probability.
    acquisition : Acquisition
        The axial axis, its step and its slice profile.
    oblique : bool
        Rotate by any angle if the rotated plane still has ``room``, or by right angles.
    room : (rows, columns)
        Size of a plane that a patch needs, SR px.
    seed : sequence of int
        Determines every draw.
    """

    volumes: Sequence[Volume]
    acquisition: Acquisition
    oblique: bool
    room: tuple[int, int]
    seed: Sequence[int]
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.sigma = self.acquisition.blur_px / FWHM_PER_SIGMA

    def oriented(self, sharp: npt.NDArray[np.float32], channel: int, orientation: Orientation) -> Plane:
        """Return a plane from normalised voxels (rows, columns)."""
        plane = orientation.apply(sharp)
        offset = int(self.rng.integers(math.ceil(self.acquisition.factor)))  # start of the first slice
        if plane.shape[0] - offset >= min(plane.shape[0], self.room[0]):
            plane = plane[offset:]
        left = 1.0 if orientation.right else INTERPOLATED_NOISE
        return Plane.make(plane, self.acquisition.factor, self.sigma, left, channel)

    def draw_orientation(self, shape: Sequence[int]) -> Orientation:
        """Return a random orientation for a plane of ``shape``, never the held-out one."""
        rng = self.rng
        while True:
            flip = bool(rng.random() < 0.5)
            angle = float(rng.uniform(0, 360))
            fits = all(n >= room for n, room in zip(inscribed(shape, angle), self.room, strict=True))
            if not (self.oblique and fits):
                angle = float(angle // 90 * 90)
            if flip != HELD_OUT.flip or abs(angle - HELD_OUT.angle) > HELD_OUT_MARGIN:
                return Orientation(angle, flip)

    def planes(self) -> Iterator[Plane]:
        """Yield training planes endlessly; neighbouring slices are read as one box.

        Raises
        ------
        ImageError
            If a voxel is NaN or infinite.
        """
        while True:
            volume = self.volumes[int(self.rng.integers(len(self.volumes)))]
            for sharp in self._read(volume, self._slices(volume.voxels)):
                yield self.oriented(sharp, volume.channel, self.draw_orientation(sharp.shape))

    def spread(self, channel: int, count: int) -> list[npt.NDArray[np.float32]]:
        """Return normalised slices of a channel, spread over its time points and its depth, each read separately."""
        volumes = [volume for volume in self.volumes if volume.channel == channel]
        found = []
        for number in range(count):
            volume = volumes[number * len(volumes) // count]
            index = int((number + 0.5) / count * volume.voxels.shape[self.acquisition.axial])
            found += self._read(volume, slice(index, index + 1))
        return found

    def _read(self, volume: Volume, slices: slice) -> list[npt.NDArray[np.float32]]:
        """Return ``slices`` along the axial axis, normalised, in random order; only windows of wide ones."""
        axial, box = self.acquisition.axial, []
        for axis, length in enumerate(volume.voxels.shape):
            start = 0 if axis == axial else int(self.rng.integers(max(length - WINDOW, 0) + 1))
            box.append(slices if axis == axial else slice(start, min(start + WINDOW, length)))
        raw = np.moveaxis(np.asarray(volume.voxels[tuple(box)]), axial, 0)
        for number, plane in enumerate(raw, slices.start):
            check_finite(plane, f"slice {number}")
        return [volume.normalisation.apply(raw[n]) for n in self.rng.permutation(len(raw))]

    def _slices(self, voxels: ArrayLike) -> slice:
        """Return random neighbouring slices from one stored chunk, at most ``BLOCK_SLICES``."""
        axial = self.acquisition.axial
        start, stop = chunk_around(voxels, axial, int(self.rng.integers(voxels.shape[axial])))
        if stop - start > BLOCK_SLICES:
            start = int(self.rng.integers(start, stop - BLOCK_SLICES + 1))
            stop = start + BLOCK_SLICES
        return slice(start, stop)


def chunk_around(voxels: ArrayLike, axis: int, index: int) -> tuple[int, int]:
    """Return the range of the stored chunk that contains ``index``; the index alone if chunks are not known."""
    chunks = getattr(voxels, "chunks", None)
    if chunks is None:
        return index, index + 1
    sizes = chunks[axis]
    if isinstance(sizes, int):
        start = index // sizes * sizes
        return start, min(start + sizes, voxels.shape[axis])
    edges = np.cumsum((0, *sizes))
    number = int(np.searchsorted(edges, index, side="right")) - 1
    return int(edges[number]), int(edges[number + 1])


class PlanePool:
    """A bounded pool of planes that a thread renews in advance.

    Parameters
    ----------
    reader : PlaneReader
        Source of the planes; from now on only the thread uses it.
    wait : bool
        Wait for the thread when a new plane is due: then draws depend on seeds alone, not on timing.
    """

    def __init__(self, reader: PlaneReader, wait: bool) -> None:
        self._wait, self._pool = wait, list[Plane]()
        self._queue: queue.Queue[Plane | BaseException] = queue.Queue(maxsize=2)
        self._closed = threading.Event()
        self._calls = 0
        self._full = False
        self._thread = threading.Thread(target=self._read, args=(reader,), name="cropeq-planes", daemon=True)
        self._thread.start()

    def draw(self, rng: np.random.Generator) -> Plane:
        """Return a random plane of the pool."""
        if not self._pool:
            self._take()
        return self._pool[int(rng.integers(len(self._pool)))]

    def renew(self, rng: np.random.Generator) -> None:
        """Add a new plane: at every call until the pool is full, then at every fourth call.

        Raises
        ------
        ImageError
            If the reader has found voxels that are NaN or infinite.
        OSError
            If the source cannot be read.
        """
        self._calls += 1
        if self._full and self._calls % 4:
            return
        if not self._wait and self._queue.empty():
            return
        if self._full:
            del self._pool[int(rng.integers(len(self._pool)))]
        self._take()
        used = sum(plane.nbytes for plane in self._pool)
        self._full = self._full or len(self._pool) >= MOST_PLANES or used * (1 + 1 / len(self._pool)) > POOL_BYTES

    def close(self) -> None:
        """End the thread after its current read, and release the planes."""
        self._closed.set()
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        self._thread.join(20.0)
        self._pool.clear()

    def _take(self) -> None:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        self._pool.append(item)

    def _read(self, reader: PlaneReader) -> None:
        try:
            for plane in reader.planes():
                self._put(plane)
                if self._closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that draws)
            self._put(error)

    def _put(self, item: Plane | BaseException) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
