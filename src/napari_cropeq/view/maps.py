"""Maps of what is in view: the expected error of every voxel, and its consistency with the acquired slices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.consistency import consistency_of
from napari_cropeq.compute.scheduler import Compute, TileRequest
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.core.imaging.agreement import Agreement
from napari_cropeq.core.imaging.consistency import Consistency
from napari_cropeq.store.memory import MemoryStore, TileCache
from napari_cropeq.store.protocol import Indices, TileStore
from napari_cropeq.view.lazy import LazyView
from napari_cropeq.view.view import View

__all__ = ["CONSISTENCY", "ERROR", "Maps"]

ERROR, CONSISTENCY = "expected error", "consistency"
ACROSS = (0, 1, 2)  # lines of sight; there are no maps in a 3D display


class Maps:
    """Chooses and holds the tiles of maps in view; a map has a store for each line of sight, as the result has.

    The expected error comes from the same pass of the network as the result, so both get their tiles at once. The
    consistency is computed from finished tiles of the result; at the border of the view a few voxels more are needed.

    Parameters
    ----------
    cache : TileCache
        Cache of all tiles.
    finished : callable
        Returns the stores with tiles of the result.

    Attributes
    ----------
    wanted : frozenset of str
        Which maps are computed: :data:`ERROR`, :data:`CONSISTENCY`.
    """

    def __init__(self, cache: TileCache, finished: Callable[[], Iterable[TileStore]]) -> None:
        self._cache, self._finished = cache, finished
        self._result: SuperResolution | None = None
        self._stores: dict[tuple[str, int | None], MemoryStore] = {}
        self.wanted: frozenset[str] = frozenset()

    def use(self, result: SuperResolution, key: Hashable) -> None:
        """Map a result from now on; ``key`` identifies everything that decides its bits."""
        kinds = (CONSISTENCY,) if result.model.error_tail is None else (ERROR, CONSISTENCY)
        self._result = result
        self._source = TileSource(result, self._finished)
        self._judge = lru_cache(maxsize=8)(lambda leading: consistency_of(result, leading))
        self._stores = {
            (kind, across): MemoryStore(
                result.sr_shape, result.shapes.for_view(across), self._cache, (key, kind, across)
            )
            for kind in kinds
            for across in ACROSS
        }

    def __contains__(self, store: TileStore) -> bool:
        return store in self._stores.values()

    def lazy(self, kind: str) -> LazyView:
        """Return the lazy levels of a map, NaN where it is not computed."""
        assert self._result is not None
        stores = [self._stores[kind, across] for across in ACROSS if (kind, across) in self._stores]
        return MapView(self._result, stores)

    def requests(
        self, view: View, store: MemoryStore, numbers: Sequence[IntTriple], own: Sequence[TileRequest]
    ) -> list[TileRequest]:
        """Return what must be computed for a view.

        Parameters
        ----------
        view : View
            What is in view.
        store : MemoryStore
            The tiles of the result in this view.
        numbers : sequence of (z, y, x)
            Its tiles, in the order of their computation.
        own : sequence of TileRequest
            Requests for tiles of the result alone.
        """
        errors, differences = (
            self._stores.get((kind, view.across)) if kind in self.wanted else None for kind in (ERROR, CONSISTENCY)
        )
        tiles, requests = [(view.leading, index) for index in numbers], list(own)
        if errors is not None:
            both = [TileRequest(errors, t, self._with_result(store)) for t in tiles if t not in errors]
            with_result = {request.tile for request in both}
            requests = [*both, *(request for request in own if request.tile not in with_result)]
        if differences is not None:
            requests += [TileRequest(differences, t, self._differences) for t in tiles if t not in differences]
        return requests

    def values(self, kind: str, view: View) -> npt.NDArray[np.float32] | None:
        """Return the map of a view (z, y, x); None if a tile of it is missing."""
        z, y, x = (np.arange(a, b) for a, b in zip(view.box.start, view.box.stop, strict=True))
        found = self.lazy(kind).read(view.leading, (z, y, x))
        return None if np.isnan(found).any() else found

    def agreement(self, view: View) -> Agreement | None:
        """Return how far the result agrees with what was acquired, in a view; None if a tile is missing."""
        found = self.values(CONSISTENCY, view)
        if found is None:
            return None
        judge = self._judge(view.leading)
        first, last = judge.forward.covered  # the other slices also show what lies beyond the volume
        nearest = judge.nearest(view.box)
        inside = (nearest >= first) & (nearest < last)
        return Agreement(judge.noise).adding(np.compress(inside, found, judge.forward.acquisition.axial))

    def _with_result(self, store: MemoryStore) -> Compute:
        """Return what computes a tile of the expected error, and puts that of the result into ``store``."""

        def compute(leading: LeadingIndex, box: Box, stop: Callable[[], bool]) -> npt.NDArray[Any]:
            assert self._result is not None
            both = self._result.compute(leading, box, stop, None, with_error(self._result))
            (index,) = store.grid.indices(box)
            store.put((leading, index), both["voxels"])
            return np.ascontiguousarray(both["error"])

        return compute

    def _differences(self, leading: LeadingIndex, box: Box, stop: Callable[[], bool]) -> npt.NDArray[Any]:
        assert self._result is not None
        judge: Consistency = self._judge(leading)
        wide = judge.sr_box(box)
        voxels = self._source(leading, wide, stop)
        acquired = np.asarray(self._result.volume(leading)[judge.samples(box).slices])
        return judge.map(voxels, wide, acquired, box)


class MapView(LazyView):
    """Dask levels of a map, NaN where it is not computed."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return np.dtype(np.float32)

    def behind(self, leading: LeadingIndex, indices: tuple[Indices, Indices, Indices]) -> npt.NDArray[Any]:
        """Return NaN."""
        return np.full([len(i) for i in indices], np.nan, self.dtype)
