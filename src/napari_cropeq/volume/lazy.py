"""The lazy multiscale view of SR tiles over an interpolated overview.

Reading never computes, interpolates or touches the source: a voxel comes from an SR tile if there is
one, else from the overview that a worker has built. So the view is complete from the first moment,
only gets better, and never blocks the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.volume.overview import Indices, Overview
from napari_cropeq.volume.store import TileStore, finished
from napari_cropeq.volume.superres import Lead, SuperResolution

__all__ = ["LazyView"]

PLANE = 1024  # levels are added until a plane fits a canvas of this side, px
DASK_CHUNK = 512  # what napari reads at once; no storage tile


class LazyView:
    """What napari slices: Dask levels over tile stores and an overview.

    Parameters
    ----------
    result : SuperResolution
        Gives shapes and dtype.
    stores : sequence of TileStore
        Asked in this order; may be replaced at any time.
    """

    def __init__(self, result: SuperResolution, stores: Sequence[TileStore]) -> None:
        self.result, self.stores = result, tuple(stores)
        self.overview = Overview(result)

    @property
    def levels(self) -> list[da.Array]:
        """Dask arrays (t, c, z, y, x; leading axes as in the source), finest first.

        Coarser levels take the voxels at k * shape0 / shape_k, as napari reckons without half-voxel offsets.
        """
        lead, shape = self.result.lead_shape, self.result.sr_shape
        out = []
        while True:
            block = _Block(self, tuple(range(n) for n in (*lead, *shape)), shape)
            out.append(self._dask(block, (*(1,) * len(lead), *(min(n, DASK_CHUNK) for n in shape))))
            if sorted(shape)[-2] <= PLANE:
                return out
            shape = int_triple([-(-n // 2) if n > PLANE // 2 else n for n in shape])

    @staticmethod
    def _dask(block: _Block, chunks: tuple[int, ...]) -> da.Array:
        meta = np.zeros((0,) * block.ndim, block.dtype)
        out: da.Array = da.from_array(block, chunks=chunks, asarray=False, name=False, meta=meta)
        return out

    def read(self, lead: Lead, indices: tuple[Indices, Indices, Indices]) -> npt.NDArray[Any]:
        """Return the best voxels there are now at ascending SR ``indices`` (z, y, x)."""
        out = self.overview.sample(lead, indices)
        if out.size == 0:
            return out
        hull = Box(int_triple([int(i[0]) for i in indices]), int_triple([int(i[-1]) + 1 for i in indices]))
        for store in reversed(self.stores):
            for index in finished(store, lead, hull):
                _overlay(out, store, (lead, index), indices)
        return out

    def part(self, lead: Lead, box: Box) -> da.Array:
        """Return ``box`` (SR voxels) of the finest level at ``lead`` as a Dask array (z, y, x) of one chunk."""
        ranges: tuple[range | int, ...] = (*lead, *(range(a, b) for a, b in zip(box.start, box.stop, strict=True)))
        return self._dask(_Block(self, ranges, self.result.sr_shape), box.shape)


def _overlay(
    out: npt.NDArray[Any], store: TileStore, tile: tuple[Lead, IntTriple], indices: tuple[Indices, ...]
) -> None:
    """Copy what a finished tile has of ``indices`` into ``out``."""
    box = store.grid.box(tile[1])
    spans = [np.searchsorted(i, (a, b)) for i, a, b in zip(indices, box.start, box.stop, strict=True)]
    if any(low == high for low, high in spans):
        return
    wanted = [i[low:high] for i, (low, high) in zip(indices, spans, strict=True)]
    part = Box(int_triple([int(w[0]) for w in wanted]), int_triple([int(w[-1]) + 1 for w in wanted]))
    voxels = store.read(tile, part)
    if voxels is not None:
        z, y, x = (w - s for w, s in zip(wanted, part.start, strict=True))
        out[tuple(slice(low, high) for low, high in spans)] = voxels[np.ix_(z, y, x)]


class _Block:
    """A box of one level. Slicing gives a smaller box, an integer drops its axis; only ``__array__`` reads."""

    def __init__(self, view: LazyView, ranges: tuple[range | int, ...], level_shape: IntTriple) -> None:
        self._view, self._ranges, self._level = view, ranges, level_shape
        self.shape = tuple(len(r) for r in ranges if isinstance(r, range))
        self.ndim = len(self.shape)
        self.dtype = view.result.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> _Block:
        key = key if isinstance(key, tuple) else (key,)
        cuts = iter((*key, *(slice(None),) * (self.ndim - len(key))))
        ranges = tuple(r[next(cuts)] if isinstance(r, range) else r for r in self._ranges)
        return _Block(self._view, ranges, self._level)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        ranges = [r if isinstance(r, range) else range(r, r + 1) for r in self._ranges]
        lead, spatial = ranges[:-3], ranges[-3:]
        full = self._view.result.sr_shape
        indices = tuple(np.asarray(r, np.int64) * n // m for r, n, m in zip(spatial, full, self._level, strict=True))
        out = np.empty([len(r) for r in ranges], dtype or self.dtype)
        for position in np.ndindex(*map(len, lead)):
            number = tuple(r[p] for r, p in zip(lead, position, strict=True))
            out[position] = self._view.read(number, (indices[0], indices[1], indices[2]))
        return out.reshape(self.shape)
