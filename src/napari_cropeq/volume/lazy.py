"""The lazy multiscale view of SR tiles over an interpolated overview.

Reading never computes, interpolates or touches the source: a voxel comes from an SR tile if there is
one, else from the overview that a worker has built. So the view is complete from the first moment,
only gets better, and never blocks the window.
"""

from __future__ import annotations

import threading
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple, source_positions
from napari_cropeq.volume.store import TileStore
from napari_cropeq.volume.superres import Lead, SuperResolution

__all__ = ["LazyView", "Overview"]

Indices = npt.NDArray[np.int64]

PLANE = 1024  # levels are added until a plane fits a canvas of this side, px
DASK_CHUNK = 1024  # what napari reads at once; no storage tile
OVERVIEW_VOXELS = 2**24
OVERVIEW_SLICES = 128


class Overview:
    """A bounded interpolated image of the whole SR grid, one array per channel and time point.

    Up to 16 million voxels it is the full interpolation; beyond that, every few voxels are taken
    laterally and the nearest of at most 128 slices axially.
    """

    def __init__(self, result: SuperResolution) -> None:
        self._result = result
        self._arrays: dict[Lead, npt.NDArray[Any]] = {}
        self._lock = threading.Lock()
        shape, axial = result.sr_shape, result.acquisition.axial
        self.step: IntTriple = (1, 1, 1)
        if np.prod(shape, dtype=np.float64) > OVERVIEW_VOXELS:
            slices = max(1, -(-shape[axial] // OVERVIEW_SLICES))
            area = np.prod([n for a, n in enumerate(shape) if a != axial], dtype=np.float64)
            lateral = max(1, int(np.ceil((area * min(shape[axial], OVERVIEW_SLICES) / OVERVIEW_VOXELS) ** 0.5)))
            self.step = int_triple([slices if a == axial else lateral for a in range(3)])

    def __contains__(self, lead: Lead) -> bool:
        return lead in self._arrays

    def build(self, lead: Lead) -> None:
        """Read what the overview of ``lead`` needs and keep it; called by a worker, once."""
        with self._lock:
            if lead not in self._arrays:
                self._arrays[lead] = self._interpolated(lead) if self.step == (1, 1, 1) else self._sampled(lead)

    def sample(self, lead: Lead, indices: tuple[Indices, Indices, Indices]) -> npt.NDArray[Any]:
        """Return voxels at SR ``indices`` (z, y, x); zeros where the overview is not built yet."""
        array = self._arrays.get(lead)
        if array is None:
            return np.zeros([len(i) for i in indices], self._result.dtype)
        z, y, x = (
            np.minimum((i + s // 2) // s, n - 1) for i, s, n in zip(indices, self.step, array.shape, strict=True)
        )
        return array[np.ix_(z, y, x)]

    def _interpolated(self, lead: Lead) -> npt.NDArray[Any]:
        return self._result.interpolated(lead, Box.whole(self._result.sr_shape))

    def _sampled(self, lead: Lead) -> npt.NDArray[Any]:
        volume, acquisition = self._result.volume(lead), self._result.acquisition
        axial, shape = acquisition.axial, self._result.sr_shape
        positions = source_positions(0, shape[axial], acquisition.factor)[:: self.step[axial]]
        numbers = np.clip(np.rint(positions), 0, volume.shape[axial] - 1).astype(int)
        slices = []
        for number in numbers:
            key = tuple(int(number) if a == axial else slice(None, None, self.step[a]) for a in range(3))
            slices.append(volume[key])
        return np.stack(slices, axis=axial).astype(self._result.dtype)


class LazyView:
    """What napari slices: Dask levels over tile stores and an overview.

    Parameters
    ----------
    result : SuperResolution
        Gives shapes and dtype.
    stores : list of TileStore
        Asked in this order; may be added to at any time.
    """

    def __init__(self, result: SuperResolution, stores: list[TileStore]) -> None:
        self.result, self.stores = result, stores
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
            chunks = (*(1,) * len(lead), *(min(n, DASK_CHUNK) for n in shape))
            meta = np.zeros((0,) * block.ndim, block.dtype)
            out.append(da.from_array(block, chunks=chunks, asarray=False, name=False, meta=meta))
            if sorted(shape)[-2] <= PLANE:
                return out
            shape = int_triple([-(-n // 2) if n > PLANE // 2 else n for n in shape])

    def read(self, lead: Lead, indices: tuple[Indices, Indices, Indices]) -> npt.NDArray[Any]:
        """Return the best voxels there are now at ascending SR ``indices`` (z, y, x)."""
        out = self.overview.sample(lead, indices)
        if out.size == 0:
            return out
        hull = Box(int_triple([int(i[0]) for i in indices]), int_triple([int(i[-1]) + 1 for i in indices]))
        for store in reversed(self.stores):
            for index in store.grid.indices(hull):
                tile = (lead, index)
                if tile in store:
                    _overlay(out, store, tile, indices)
        return out


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
