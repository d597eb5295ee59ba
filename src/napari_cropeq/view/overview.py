"""An image of the whole volume in memory, of limited size, shown where there is no tile."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex, int_triple, source_positions
from napari_cropeq.formats.chunk_cache import ChunkCache, computed
from napari_cropeq.store.protocol import Indices, take

__all__ = ["Overview"]

VOXELS = 2**24
SLICES = 128
BYTES, REMOTE_BYTES = 2**32, 2**26  # of the source that are read, in a file and at an address
KEPT = 4


class Overview:
    """An interpolated image of the whole SR grid, of limited size, one array per channel and time point.

    Up to 16 million voxels it is the full interpolation. Above that, it takes every few voxels laterally and the
    nearest of at most 128 slices axially, or of a coarser level if the source has one. Slices that have not been read
    yet are replaced by the nearest that has. At most 4 GB of the source are read, or 64 MB at an address. The overviews
    of the last few channels and time points are kept.

    Parameters
    ----------
    result : SuperResolution
        Interpolates and reads the source.
    """

    def __init__(self, result: SuperResolution) -> None:
        self._result = result
        self._arrays: dict[LeadingIndex, npt.NDArray[Any]] = {}
        self._slices: dict[LeadingIndex, Indices] = {}  # the filled slice that is shown for each slice
        self._started: OrderedDict[LeadingIndex, None] = OrderedDict()
        self._full: set[LeadingIndex] = set()
        shape, axial = result.sr_shape, result.acquisition.axial
        self.step: IntTriple = (1, 1, 1)
        if np.prod(shape, dtype=np.float64) > VOXELS:
            slices = max(1, -(-shape[axial] // SLICES))
            area = np.prod([n for a, n in enumerate(shape) if a != axial], dtype=np.float64)
            lateral = max(1, int(np.ceil((area * min(shape[axial], SLICES) / VOXELS) ** 0.5)))
            self.step = int_triple([slices if a == axial else lateral for a in range(3)])

    @property
    def whole(self) -> bool:
        """Whether it has the interpolation of every voxel."""
        return self.step == (1, 1, 1)

    @property
    def quick(self) -> bool:
        """Whether it is filled in one short step."""
        return self.whole or self._result.source.coarse is not None

    @property
    def any(self) -> bool:
        """Whether there is something for any channel and time point."""
        return bool(self._arrays)

    def __contains__(self, leading: LeadingIndex) -> bool:
        """Return whether there is something to show (then everywhere) at these leading indices."""
        return leading in self._arrays

    def begin(self, leading: LeadingIndex, near: int = 0) -> Iterator[None] | None:
        """Return the steps of :meth:`fill`, or None if they have started; the oldest of many overviews is dropped."""
        known = leading in self._started
        self._started[leading] = None
        self._started.move_to_end(leading)
        while len(self._started) > KEPT:
            old, _ = self._started.popitem(last=False)
            self._full.discard(old)
            self._arrays.pop(old, None)
            self._slices.pop(old, None)
        return None if known else self.fill(leading, near)

    def restart(self) -> None:
        """Let overviews that are not full start again, because their steps were dropped."""
        for leading in [leading for leading in self._started if leading not in self._full]:
            del self._started[leading]

    def fill(self, leading: LeadingIndex, near: int = 0) -> Iterator[None]:
        """Fill the overview of a volume in steps; for a worker, which can do other work between them.

        Parameters
        ----------
        leading : tuple of int
            Channel and time point.
        near : int
            SR slice to fill first.
        """
        if leading in self._full:
            return
        coarse = self._result.source.coarse
        if self.whole:
            self._arrays[leading] = self._result.interpolated(leading, Box.whole(self._result.sr_shape))
        elif coarse is not None:
            self._arrays[leading] = self._from_level(computed(coarse[leading], threads=self._result.source.threads)[0])
        else:
            yield from self._from_slices(leading, near)
        self._full.add(leading)

    def sample(self, leading: LeadingIndex, indices: tuple[Indices, Indices, Indices]) -> npt.NDArray[Any]:
        """Return voxels at SR ``indices`` (z, y, x); zeros where nothing has been read yet."""
        array = self._arrays.get(leading)
        if array is None:
            return np.zeros([len(i) for i in indices], self._result.dtype)
        at = [np.minimum((i + s // 2) // s, n - 1) for i, s, n in zip(indices, self.step, array.shape, strict=True)]
        shown = self._slices.get(leading)
        if shown is not None:
            axial = self._result.acquisition.axial
            at[axial] = shown[at[axial]]
        return take(array, tuple(at))

    @property
    def _places(self) -> list[Indices]:
        """The sampled SR indices along z, y, x."""
        return [np.arange(0, n, s) for n, s in zip(self._result.sr_shape, self.step, strict=True)]

    def _from_level(self, level: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the nearest voxels of a coarser level (z, y, x), which covers the same extent."""
        shapes = zip(self._places, level.shape, self._result.sr_shape, strict=True)
        nearest = [np.minimum(((place + 0.5) * m / n).astype(int), m - 1) for place, m, n in shapes]
        return take(level, tuple(nearest)).astype(self._result.dtype)

    def _from_slices(self, leading: LeadingIndex, near: int) -> Iterator[None]:
        """Fill slices, chunk by chunk of the source: first ``near``, then ever finer over the volume."""
        # A separate cache, so that the chunks read for tiles stay cached.
        source = self._result.source
        volume = ChunkCache(source.data[leading], cap=0, threads=source.threads)
        most = REMOTE_BYTES if source.remote else BYTES
        acquisition, places = self._result.acquisition, self._places
        axial, (row, column) = acquisition.axial, acquisition.lateral
        positions = source_positions(0, self._result.sr_shape[axial], acquisition.factor)[places[axial]]
        numbers = np.clip(np.rint(positions), 0, volume.shape[axial] - 1).astype(int)
        edges = [np.cumsum((0, *sizes)) for sizes in volume.chunks]
        chunk_of = np.searchsorted(edges[axial], numbers, side="right") - 1
        array = np.zeros([len(p) for p in places], self._result.dtype)
        filled = np.zeros(len(numbers), bool)
        plane = int(np.prod([n for a, n in enumerate(volume.shape) if a != axial])) * volume.dtype.itemsize
        spent = 0
        for chunk in _ever_finer(np.unique(chunk_of), chunk_of[min(near // self.step[axial], len(chunk_of) - 1)]):
            spent += plane * int(np.diff(edges[axial])[chunk])
            if spent > most and filled.any():
                return
            own = np.flatnonzero(chunk_of == chunk)
            wanted = numbers[own]
            if leading not in self._started and self._started:  # dropped meanwhile
                return
            for rows, columns in itertools.product(*(_runs(places[a], edges[a]) for a in (row, column))):
                key: list[slice] = [slice(0)] * 3
                key[axial] = slice(int(wanted[0]), int(wanted[-1]) + 1)
                key[row], key[column] = (_over(places[a][run]) for a, run in ((row, rows), (column, columns)))
                read = np.moveaxis(volume[tuple(key)], axial, 0)[wanted - wanted[0]]
                view = np.moveaxis(array, axial, 0)
                view[own[0] : own[-1] + 1, rows, columns] = read.astype(array.dtype)
                yield
            filled[own] = True
            self._show(leading, array, filled)
            yield

    def _show(self, leading: LeadingIndex, array: npt.NDArray[Any], filled: npt.NDArray[np.bool_]) -> None:
        """Show the nearest filled slice in place of each slice that is not filled."""
        known = np.flatnonzero(filled)
        every = np.arange(len(filled))
        right = np.clip(np.searchsorted(known, every), 0, len(known) - 1)
        left = np.maximum(right - 1, 0)
        nearer_left = np.abs(known[left] - every) <= np.abs(known[right] - every)
        self._slices[leading] = np.where(nearer_left, known[left], known[right])
        self._arrays[leading] = array


def _runs(places: Indices, edges: Indices) -> list[slice]:
    """Return the runs of ascending ``places`` that lie in the same chunk."""
    bounds = np.searchsorted(places, edges)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds) if a < b]


def _over(places: Indices) -> slice:
    """Return evenly spaced ``places`` as a slice."""
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    return slice(int(places[0]), int(places[-1]) + 1, step)


def _ever_finer(numbers: Indices, first: int) -> list[int]:
    """Return ``numbers``, ``first`` in front, the others so that any first few are spread over the range."""
    bits = len(numbers).bit_length()
    spread = sorted(range(len(numbers)), key=lambda n: format(n, f"0{bits}b")[::-1])
    others = [int(numbers[n]) for n in spread if numbers[n] != first]
    return [int(first), *others]
