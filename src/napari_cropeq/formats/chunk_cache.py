"""Lazy volumes in chunks, and a cache of their decoded chunks."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_cropeq.errors import ImageError

__all__ = ["ChunkCache", "ExclusiveArray", "computed", "lazy_array", "thread_safe"]

MOST = 2**18  # chunks of a Dask array: it lists them all before the first is read
LARGEST = 2**32  # bytes of a chunk that is made of several
CAP = 2**28
AT_ONCE = 2**26  # bytes of the chunks that are read together


def lazy_array(array: Any, chunks: Sequence[int], name: str = "data") -> da.Array:
    """Wrap an array-like as a Dask array that reads only the boxes it needs.

    Parameters
    ----------
    array
        Has shape and dtype.
    chunks
        Best size of a read, per axis; where they are so many that a list of them needs seconds, several are one.
    name
        Name of the image for the message.

    Raises
    ------
    ImageError
        If even the largest chunks would be too many.
    """
    # Without `meta` Dask reads a voxel to find the type; without `fancy` it reads whole chunks and then cuts them.
    meta = np.empty((0,) * len(array.shape), array.dtype)
    shape = tuple(map(int, array.shape))
    chunks = _fewer(shape, chunks, meta.dtype.itemsize, name)
    lazy: da.Array = da.from_array(array, chunks=chunks, name=False, asarray=True, fancy=True, meta=meta)
    return lazy


def _fewer(shape: tuple[int, ...], chunks: Sequence[int], itemsize: int, name: str) -> tuple[int, ...]:
    """Return multiples of ``chunks`` that are not more than MOST; spatial axes are joined first."""
    sizes, first = [max(1, min(int(size), n)) for size, n in zip(chunks, shape, strict=True)], len(shape) - 3
    while 0 not in shape and math.prod(counts := [-(-n // size) for n, size in zip(shape, sizes, strict=True)]) > MOST:
        axis = max(range(len(shape)), key=lambda a: (a >= first and counts[a] > 1, counts[a]))
        sizes[axis] *= 2
        if math.prod(sizes) * itemsize > LARGEST:
            total = math.prod(shape) * itemsize
            raise ImageError(
                f"{name} names an image of {' × '.join(map(str, shape))} voxels ({total / 1e12:.4g} TB), which is too "
                "large to open.",
                "If it is smaller than that, its metadata are damaged: write it again.",
            )
    return tuple(sizes)


def computed(*arrays: Any, threads: int = 1) -> list[npt.NDArray[Any]]:
    """Return Dask arrays as numpy arrays, computed in the calling thread and without Dask's callbacks.

    Several ``threads`` are for chunks that wait for a server, not for the processor.

    This package's own scheduler decides what runs in parallel, so Dask must not add threads. Dask's global callbacks
    are not thread-safe: napari's cache, which is one of them, fails in the window when another thread ends a
    computation at the same time.
    """
    how: Any = {"scheduler": "threads", "num_workers": threads} if threads > 1 else {"scheduler": dask.get}  # type: ignore[attr-defined]
    found = dask.compute(*arrays, traverse=False, callbacks=(), **how)  # type: ignore[attr-defined, no-untyped-call]
    return [np.asarray(voxels) for voxels in found]


class ExclusiveArray:
    """A Dask array of another package that one thread reads at a time, in the way of that package.

    Several packages open their file for each read, and close it afterwards for other threads as well.

    Parameters
    ----------
    array : dask array
        Its own ``compute`` is called.
    lock : lock, optional
        Of all arrays that share a file; by default one of its own.
    """

    def __init__(self, array: Any, lock: Any = None) -> None:
        self._array, self._lock = array, lock or threading.Lock()
        self.shape: tuple[int, ...] = tuple(int(size) for size in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.chunks: tuple[int, ...] = tuple(array.chunksize)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        """Read a box."""
        with self._lock:  # in the calling thread and without callbacks, as above
            return np.asarray(self._array[index].compute(scheduler=dask.get, callbacks=()))  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Any, ...]:
        return ExclusiveArray, (self._array,)


def thread_safe(array: da.Array) -> da.Array:
    """Return a Dask array that several threads may read; one of a class of its own is read by one at a time."""
    if type(array) is da.Array:
        return array
    meta = np.empty((0,) * array.ndim, array.dtype)
    safe: da.Array = da.from_array(ExclusiveArray(array), chunks=array.chunks, name=False, fancy=True, meta=meta)
    return safe


class ChunkCache:
    """Boxes of a Dask array as numpy arrays, computed in the calling thread.

    Neighbouring tiles need the same chunks of the source (46 slices for one SR plane), so decoded chunks are kept.
    Above a byte cap, the least recently used are dropped. Thread-safe.

    Parameters
    ----------
    array : dask array (z, y, x)
        The volume to read.
    cap : int
        Maximum number of bytes to keep.
    threads : int
        How many chunks are read at the same time.
    """

    def __init__(self, array: Any, cap: int = CAP, threads: int = 1) -> None:
        self._array, self._cap, self._threads, self._nbytes = array, cap, threads, 0
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.chunks = array.chunks  # sizes along z, y, x
        largest = math.prod(max(sizes) for sizes in array.chunks) * self.dtype.itemsize
        self._at_once = max(1, min(cap, AT_ONCE) // max(1, largest))
        self._edges = [np.cumsum((0, *sizes)) for sizes in array.chunks]
        self._chunks: OrderedDict[tuple[int, ...], npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Return a box; ``key`` holds a slice or an integer for each axis."""
        ranges = [
            range(n)[k] if isinstance(k, slice) else range(k, k + 1) for n, k in zip(self.shape, key, strict=True)
        ]
        out = np.empty([len(r) for r in ranges], self.dtype)
        spans = [self._spans(axis, r) for axis, r in enumerate(ranges)]
        every = list(itertools.product(*spans))
        for first in range(0, len(every), self._at_once):
            some = every[first : first + self._at_once]
            chunks = self._read([tuple(number for number, _, _ in parts) for parts in some])
            for parts, chunk in zip(some, chunks, strict=True):
                out[tuple(target for _, target, _ in parts)] = chunk[tuple(inside for _, _, inside in parts)]
        return out[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]

    def _spans(self, axis: int, wanted: range) -> list[tuple[int, slice, slice]]:
        """Return (chunk number, slice of the box, slice of the chunk) for each chunk of a range along an axis."""
        if not len(wanted):
            return []
        edges, index = self._edges[axis], np.asarray(wanted)
        first, last = (int(np.searchsorted(edges, i, side="right")) - 1 for i in (index[0], index[-1]))
        spans = []
        for number in range(first, last + 1):
            low, high = (int(i) for i in np.searchsorted(index, (edges[number], edges[number + 1])))
            if low < high:
                start, stop = int(index[low] - edges[number]), int(index[high - 1] - edges[number]) + 1
                spans.append((number, slice(low, high), slice(start, stop, wanted.step)))
        return spans

    def _read(self, numbers: Sequence[tuple[int, ...]]) -> list[npt.NDArray[Any]]:
        """Return chunks; missing ones are read together, because each call of Dask goes through its whole graph."""
        with self._lock:
            found = {number: self._chunks[number] for number in numbers if number in self._chunks}
            missing = [number for number in numbers if number not in found]
            if missing:
                blocks = (self._array.blocks[number] for number in missing)
                found |= zip(missing, computed(*blocks, threads=self._threads), strict=True)
            for number in numbers:
                self._nbytes += 0 if number in self._chunks else found[number].nbytes
                self._chunks[number] = found[number]
                self._chunks.move_to_end(number)
            while self._nbytes > self._cap and len(self._chunks) > 1:
                self._nbytes -= self._chunks.popitem(last=False)[1].nbytes
            return [found[number] for number in numbers]
