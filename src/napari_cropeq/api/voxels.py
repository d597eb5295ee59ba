"""Super-resolve a volume to an array, in memory or lazily."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_cropeq.api.arguments import check_callback
from napari_cropeq.api.progress import Callback, reporting
from napari_cropeq.api.result import result_of
from napari_cropeq.compute.fill import Done, Failed, TileFiller
from napari_cropeq.compute.fingerprint import fingerprint_of
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import never
from napari_cropeq.core.tiles import TileGrid, divide
from napari_cropeq.errors import MismatchError, StoppedError
from napari_cropeq.run.export import ExportProgress
from napari_cropeq.store.journal import differences
from napari_cropeq.store.protocol import Tile

__all__ = ["super_resolve", "super_resolve_lazy"]

logger = logging.getLogger(__name__)

CHUNK: IntTriple = (128, 256, 256)
"""Approximate chunk of the lazy array, SR voxels; it is rounded to a multiple of the box computed at once."""


@overload
def super_resolve(
    data: Any,
    model: Model | str | Path,
    voxel_size: Sequence[float] | None = ...,
    *,
    planes: str | None = ...,
    dtype: str = ...,
    device: str = ...,
    return_error: Literal[False] = ...,
    callback: Callback[ExportProgress] | None = ...,
) -> npt.NDArray[Any]: ...


@overload
def super_resolve(
    data: Any,
    model: Model | str | Path,
    voxel_size: Sequence[float] | None = ...,
    *,
    planes: str | None = ...,
    dtype: str = ...,
    device: str = ...,
    return_error: Literal[True],
    callback: Callback[ExportProgress] | None = ...,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]: ...


def super_resolve(
    data: Any,
    model: Model | str | Path,
    voxel_size: Sequence[float] | None = None,
    *,
    planes: str | None = None,
    dtype: str = "source",
    device: str = "auto",
    return_error: bool = False,
    callback: Callback[ExportProgress] | None = None,
) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Super-resolve a volume in memory.

    Parameters
    ----------
    data : array, Image, xarray.DataArray or path
        An array is (z, y, x), (c, z, y, x) or (t, c, z, y, x).
    model : Model or path
        Trained on these data, or on similar data of the same factor.
    voxel_size : (z, y, x), optional
        Steps between voxels; by default the data's own or, if they have none, those the model was trained with.
    planes : {'z', 'y', 'x', 'both'}, optional
        The lateral axis that shares planes with the axial one, or the mean of both, which is the default: it is closer
        to the truth, and takes twice the time of one.
    dtype : {'source', 'float32'}
        The voxel type of the data, rounded and clipped, or float32.
    device : {'auto', 'cpu', 'cuda', 'mps', 'xpu'}
        Where to compute.
    return_error : bool
        Whether to return the expected absolute error of every voxel as well. Half of the errors are expected within
        ``model.error_tail.intervals[0.5]`` times this, and so on for 0.8 and 0.9.
    callback : callable, optional
        Called with the progress (``done``, ``total``, ``seconds_left``, ...) after every tile. The work stops if it
        returns False. By default, terminals and notebooks show a progress bar.

    Returns
    -------
    numpy.ndarray
        With the leading axes of the data, then (z, y, x) on the isotropic grid. With ``return_error`` a tuple of this
        and the expected errors, float32.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or data and model do not match.
    ArgumentError
        If the model has no expected error: it was made by version 0.1.0, or trained on fewer than 512 patches.
    OSError
        If the data cannot be read.
    StoppedError
        If the callback returned False.
    """
    check_callback(callback)
    result = result_of(data, model, voxel_size, planes, dtype, device)
    store = _ArrayStore(result, with_error(result) if return_error else result.dtype)
    source = TileSource(result, dtype=store.voxels.dtype)
    with reporting(callback, "super-resolving") as continues, closing(_filled(store, source, result)) as steps:
        for progress in steps:
            if not continues(progress):
                raise StoppedError(f"The callback stopped the work after {progress.done} of {progress.total} tiles.")
    return (store.voxels["voxels"].copy(), store.voxels["error"].copy()) if return_error else store.voxels


def super_resolve_lazy(
    data: Any,
    model: Model | str | Path,
    voxel_size: Sequence[float] | None = None,
    *,
    planes: str | None = None,
    dtype: str = "source",
    device: str = "auto",
) -> da.Array:
    """Super-resolve a volume lazily: only requested boxes are computed, with the same bits as the whole.

    Parameters
    ----------
    data, model, voxel_size, planes, dtype, device
        As in :func:`super_resolve`.

    Returns
    -------
    dask.array.Array
        With the leading axes of the data, then (z, y, x) on the isotropic grid. A process computes one box at a time,
        with all threads of torch; on a cluster all workers need access to the data.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or data and model do not match.
    OSError
        If the data cannot be read.
    """
    result = result_of(data, model, voxel_size, planes, dtype, device)
    chunks = (*(1,) * len(result.leading_shape), *_chunk(result.shapes.bulk))
    meta = np.empty((0,) * (len(chunks)), result.dtype)
    lazy: da.Array = da.from_array(_LazyVoxels(result), chunks=chunks, name=False, asarray=True, meta=meta)
    return lazy


def _chunk(part: IntTriple) -> IntTriple:
    """Return a shape of whole parts, so that the parts of a chunk are parts of the volume."""
    return int_triple([max(1, size // n) * n for size, n in zip(CHUNK, part, strict=True)])


def _filled(store: _ArrayStore, source: TileSource, result: SuperResolution) -> Generator[ExportProgress, None, None]:
    """Compute all tiles of a store, yielding after each part of one."""
    total = TileGrid(result.sr_shape, result.shapes.bulk).count * len(result.leading_indices)
    started = time.monotonic()
    if result.rounding:
        logger.warning("%s", result.rounding)
    yield ExportProgress("tiles", 0, total, 0.0)
    with closing(TileFiller(store, source).events(never, lambda: 0)) as events:
        done = itertools.count(1)
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                yield ExportProgress("tiles", next(done), total, time.monotonic() - started)


class _ArrayStore:
    """A tile store in one array, which is filled once."""

    def __init__(self, result: SuperResolution, dtype: np.dtype[Any]) -> None:
        self.grid = TileGrid(result.sr_shape, _chunk(result.shapes.bulk))
        self.voxels = np.empty((*result.leading_shape, *result.sr_shape), dtype)
        self._done: set[Tile] = set()

    def __contains__(self, tile: Tile) -> bool:
        return tile in self._done

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self._done)

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        return self.voxels[tile[0]][part.slices] if tile in self._done else None

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        self.voxels[tile[0]][self.grid.box(tile[1]).slices] = voxels
        self._done.add(tile)

    def flush(self) -> None:
        pass


class _LazyVoxels:
    """An array for Dask, which computes each requested box.

    It is pickled as data and model. Another process makes its own super-resolution when it computes its first box, and
    raises an error if it would compute other bits.
    """

    def __init__(self, result: SuperResolution) -> None:
        self.shape, self.dtype = (*result.leading_shape, *result.sr_shape), result.dtype
        self.ndim = len(self.shape)
        planes = "both" if len(result.planes) > 1 else "zyx"[result.planes[0]]
        dtype = "source" if result.dtype == result.source.data.dtype else "float32"
        model = replace(result.model, state=None)
        self._make = functools.partial(
            SuperResolution, result.source, model, result.acquisition, planes, result.exactness.device, dtype
        )
        self._fingerprint = json.dumps(fingerprint_of(result))
        self._result: SuperResolution | None = result
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_result": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Return the voxels of slices, integers and, along one axis, a list; only their bounding box is computed."""
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        indices = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        leading_indices, spatial = indices[:-3], indices[-3:]
        out = np.empty([len(along) for along in indices], self.dtype)
        if out.size:
            box = Box(int_triple([i.min() for i in spatial]), int_triple([i.max() + 1 for i in spatial]))
            inside = np.ix_(*(along - start for along, start in zip(spatial, box.start, strict=True)))
            with self._lock:  # a box takes all threads of torch: two at a time would be slower
                for place in np.ndindex(*map(len, leading_indices)):
                    leading = tuple(int(along[number]) for along, number in zip(leading_indices, place, strict=True))
                    out[place] = self._computed(leading, box)[inside]
        return out[tuple(0 if isinstance(k, (int, np.integer)) else slice(None) for k in key)]

    def _computed(self, leading: tuple[int, ...], box: Box) -> npt.NDArray[Any]:
        """Return the voxels of a box (z, y, x), whose source is read once."""
        if self._result is None:
            self._result = self._made_again()
        result = self._result
        voxels: npt.NDArray[Any] = np.empty(box.shape, self.dtype)
        region = result.prefetch(leading, box)
        for part in divide(box, result.shapes.bulk):
            voxels[part.relative_to(box.start).slices] = result.compute(leading, part, region=region)
        return voxels

    def _made_again(self) -> SuperResolution:
        result = self._make()
        now = json.loads(json.dumps(fingerprint_of(result)))
        found = list(differences(json.loads(self._fingerprint), now))
        if found:
            raise MismatchError(
                f"This process would not compute the same bits: it differs in {'; in '.join(found)}.",
                "Use the same versions and the same kind of processor in all processes.",
            )
        return result
