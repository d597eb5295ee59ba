"""A Zarr array in a folder, whose chunks may not disappear or change while it is read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from napari_cropeq.formats.check.blosc import HEADER, check_not_cut, is_blosc
from napari_cropeq.formats.watch.files import Identity, Watch, identity

__all__ = ["WatchedChunks", "watched"]

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


class WatchedChunks:
    """A Zarr array that raises an error where Zarr would read a chunk that has disappeared as fill value.

    A chunk that was never written is fill value, too. So each folder of chunks is listed when it is first read: a
    chunk that is listed must stay, and one that is not must stay away. A folder that has changed between the opening of
    the image and its listing may have lost a chunk, so no chunk may be missing there.

    Parameters
    ----------
    array : zarr.Array
        In a :class:`zarr.storage.LocalStore`.
    watch : Watch
        The metadata of the array.
    """

    def __init__(self, array: zarr.Array[Any], watch: Watch) -> None:
        self._array, self.watch = array, watch
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.chunks = tuple(array.chunks)
        self._files, self._blosc = tuple(array.shards or array.chunks), is_blosc(array)  # voxels of a file
        self._folders: dict[str, frozenset[str]] = {}  # names by folder
        self._seen: dict[str, Identity | None] = {}  # by path, as text: there may be a million

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a box; the index of an axis is a slice, an integer or (Dask uses this too) a list of integers.

        Raises
        ------
        SourceChangedError
            If a chunk or the metadata were replaced, changed or removed.
        AccessError
            If a chunk is cut short.
        """
        files = {path: self._first_seen(path) for path in self._paths(index)}
        values = np.asarray(self._array[index])
        self.watch.check()
        for path, seen in files.items():
            self.watch.compare(path, seen)
        return values

    def _paths(self, index: Any) -> Iterator[str]:
        """Yield the files of a box, also of chunks that were never written."""
        folder, index = folder_of(self._array), index if isinstance(index, tuple) else (index,)
        whole = (slice(None),) * (self.ndim - len(index))
        spans = [_span(cut, size) for cut, size in zip((*index, *whole), self.shape, strict=True)]
        if all(spans):
            files = [range(span[0] // n, span[-1] // n + 1) for span, n in zip(spans, self._files, strict=True)]
            for place in itertools.product(*files):
                yield os.path.join(folder, self._array.metadata.encode_chunk_key(place))

    def _first_seen(self, path: str) -> Identity | None:
        """Return what a file was when it was first read; None if it did not exist."""
        if path in self._seen:
            return self._seen[path]
        folder, name = os.path.split(path)
        listed = name in self._listed(folder)
        seen = identity(path)
        if listed != (seen is not None):
            self.watch.check()  # it has the better reason if all of the image has gone
            raise self.watch.changed(f"{path} was {'removed' if listed else 'added'}")
        if seen is None:
            self._check_unchanged(folder)
        elif self._blosc:
            with open(path, "rb") as file:
                check_not_cut(name, file.read(HEADER.size), seen[1])
        return self._seen.setdefault(path, seen)

    def _listed(self, folder: str) -> frozenset[str]:
        if folder not in self._folders:
            try:
                names = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                names = frozenset()
            self._folders.setdefault(folder, names)
        return self._folders[folder]

    def _check_unchanged(self, folder: str) -> None:
        """Raise SourceChangedError if a folder, or one above it that had it, has changed since the array was opened."""
        self.watch.check()
        while (seen := identity(folder)) is None:
            folder = os.path.dirname(folder)
        if seen[2] > self.watch.since:
            raise self.watch.changed(f"the folder {folder} was changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return WatchedChunks, (self._array, self.watch)


def _span(cut: Any, size: int) -> range:
    """Return the range that covers an index along an axis of a size."""
    if isinstance(cut, slice):
        along = range(size)[cut]
        return along if along.step > 0 else along[::-1]
    numbers = np.atleast_1d(cut)
    return range(int(numbers.min()), int(numbers.max()) + 1) if numbers.size else range(0)


def watched(array: Any) -> Any:
    """Return a Zarr array in a folder as one that notices changes; anything else as it is."""
    if not isinstance(array, zarr.Array) or not isinstance(array.store, LocalStore):
        return array
    return WatchedChunks(array, Watch(array.basename or array.store.root.name, metadata_of(folder_of(array))))


def folder_of(array: zarr.Array[Any] | zarr.Group) -> Path:
    """Return the folder of a Zarr array or group in a :class:`zarr.storage.LocalStore`."""
    assert isinstance(array.store, LocalStore)
    return array.store.root.absolute() / array.path


def metadata_of(folder: Path) -> list[Path]:
    """Return where the metadata of a Zarr group or array may lie."""
    return [folder / name for name in METADATA]
