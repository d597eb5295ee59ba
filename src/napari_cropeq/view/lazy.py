"""The lazy multiscale view of SR tiles over an interpolated overview.

Reading never computes, interpolates or reads the source: a voxel comes from an SR tile or, if there is none, from the
overview that a worker has built. So the view is complete from the start, only gets better, and never blocks the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex, int_triple
from napari_cropeq.formats.pyramid import level_shapes
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.protocol import Indices, Tiles, TileStore, covers, finished, take
from napari_cropeq.view.overview import Overview

__all__ = ["LazyView"]

PLANE = 1024  # levels are added until a plane fits a canvas of this side, px
DASK_CHUNK = 512  # what napari reads at once; not a storage tile


class LazyView:
    """Dask levels on top of tile stores and an overview, for napari to slice.

    Parameters
    ----------
    result : SuperResolution
        Defines shapes and dtype.
    stores : sequence of TileStore
        The first store that has a tile is used; may be replaced at any time.
    overview : Overview, optional
        Shown where no store has a tile; by default a new one, which is empty.
    """

    def __init__(self, result: SuperResolution, stores: Sequence[TileStore], overview: Overview | None = None) -> None:
        self.result, self.stores = result, tuple(stores)
        self.overview = overview or Overview(result)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.result.dtype

    @property
    def levels(self) -> list[da.Array]:
        """Dask arrays (t, c, z, y, x; leading axes as in the source), finest first, like the levels of a store on disk.

        From memory, coarser levels take the voxels at k * shape0 / shape_k, because napari ignores half-voxel offsets.
        """
        leading = self.result.leading_shape
        out = []
        for number, shape in enumerate(level_shapes(self.result.sr_shape)):
            block = _Block(self, tuple(range(n) for n in (*leading, *shape)), shape, number)
            out.append(self._dask(block, (*(1,) * len(leading), *(min(n, DASK_CHUNK) for n in shape))))
            if sorted(shape)[-2] <= PLANE:
                break
        return out

    @staticmethod
    def _dask(block: _Block, chunks: tuple[int, ...]) -> da.Array:
        meta = np.zeros((0,) * block.ndim, block.dtype)
        out: da.Array = da.from_array(block, chunks=chunks, asarray=False, name=False, meta=meta)
        return out

    def read(
        self,
        leading: LeadingIndex,
        indices: tuple[Indices, Indices, Indices],
        level: int = 0,
        own: tuple[Indices, ...] = (),
    ) -> npt.NDArray[Any]:
        """Return the best voxels available now.

        Parameters
        ----------
        leading : tuple of int
            Channel and time point.
        indices : (z, y, x)
            Ascending SR indices.
        level : int
            The level that is read; a store on disk has its own.
        own : (z, y, x)
            Indices in that level.
        """
        out = self.behind(leading, indices)
        if out.size == 0:
            return out
        for store in reversed(self.stores):
            if level and isinstance(store, DiskStore):
                _overlay_low_res(out, store, leading, indices, level)
                _overlay_finished(out, store.levels[level], leading, own)
            else:
                _overlay_finished(out, store, leading, indices)
        return out

    def behind(self, leading: LeadingIndex, indices: tuple[Indices, Indices, Indices]) -> npt.NDArray[Any]:
        """Return what is shown at SR ``indices`` (z, y, x) where there is no tile: the overview."""
        return self.overview.sample(leading, indices)

    def part(self, leading: LeadingIndex, box: Box) -> da.Array:
        """Return ``box`` (SR voxels) of the finest level as a Dask array (z, y, x) of one chunk."""
        ranges: tuple[range | int, ...] = (*leading, *(range(a, b) for a, b in zip(box.start, box.stop, strict=True)))
        return self._dask(_Block(self, ranges, self.result.sr_shape, 0), box.shape)


def _hull(indices: Sequence[Indices]) -> Box:
    """Return the smallest box around ascending ``indices`` (z, y, x)."""
    return Box(int_triple([int(i[0]) for i in indices]), int_triple([int(i[-1]) + 1 for i in indices]))


def _within(box: Box, indices: tuple[Indices, ...]) -> tuple[tuple[slice, ...], list[Indices]]:
    """Return the slices of ``indices`` (z, y, x) that lie in ``box``, and these indices."""
    spans = [np.searchsorted(i, (a, b)) for i, a, b in zip(indices, box.start, box.stop, strict=True)]
    wanted = [i[low:high] for i, (low, high) in zip(indices, spans, strict=True)]
    return tuple(slice(int(low), int(high)) for low, high in spans), wanted


def _overlay_finished(out: npt.NDArray[Any], store: Tiles, leading: LeadingIndex, indices: tuple[Indices, ...]) -> None:
    """Copy the voxels at ``indices`` from finished tiles into ``out``."""
    for index in finished(store, leading, _hull(indices)):
        into, wanted = _within(store.grid.box(index), indices)
        if not all(map(len, wanted)):
            continue
        part = _hull(wanted)
        voxels = store.read((leading, index), part)
        if voxels is not None:
            z, y, x = (w - s for w, s in zip(wanted, part.start, strict=True))
            out[into] = take(voxels, (z, y, x))


def _overlay_low_res(
    out: npt.NDArray[Any], store: DiskStore, leading: LeadingIndex, indices: tuple[Indices, ...], level: int
) -> None:
    """Copy coarse samples of finished tiles whose shard in the level is not finished yet."""
    fine, coarse = store.levels[0], store.levels[level]
    for index in finished(fine, leading, _hull(indices)):
        box = fine.grid.box(index)
        above = Box(int_triple([a >> level for a in box.start]), int_triple([(b - 1 >> level) + 1 for b in box.stop]))
        if not covers(coarse, leading, above):
            into, wanted = _within(box, indices)
            voxels = (
                store.low_res.sample(leading, box, (wanted[0], wanted[1], wanted[2])) if all(map(len, wanted)) else None
            )
            if voxels is not None:
                out[into] = voxels


class _Block:
    """A box of one level. A slice gives a smaller box, an integer drops the axis; only ``__array__`` reads."""

    def __init__(self, view: LazyView, ranges: tuple[range | int, ...], level_shape: IntTriple, level: int) -> None:
        self._view, self._ranges, self._level_shape, self._level = view, ranges, level_shape, level
        self.shape = tuple(len(r) for r in ranges if isinstance(r, range))
        self.ndim = len(self.shape)
        self.dtype = view.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> _Block:
        key = key if isinstance(key, tuple) else (key,)
        cuts = iter((*key, *(slice(None),) * (self.ndim - len(key))))
        ranges = tuple(r[next(cuts)] if isinstance(r, range) else r for r in self._ranges)
        return _Block(self._view, ranges, self._level_shape, self._level)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        ranges = [r if isinstance(r, range) else range(r, r + 1) for r in self._ranges]
        leading, spatial = ranges[:-3], ranges[-3:]
        full = self._view.result.sr_shape
        own = tuple(np.asarray(r, np.int64) for r in spatial)
        z, y, x = (i * n // m for i, n, m in zip(own, full, self._level_shape, strict=True))
        out = np.empty([len(r) for r in ranges], dtype or self.dtype)
        for position in np.ndindex(*map(len, leading)):
            number = tuple(r[p] for r, p in zip(leading, position, strict=True))
            out[position] = self._view.read(number, (z, y, x), self._level, own)
        return out.reshape(self.shape)
