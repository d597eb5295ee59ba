"""Planes that lie in a file as they are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RawPages:
    """Uncompressed planes of a file, of which a box reads no more than itself.

    The file is mapped anew for every box, so that none stays open and several threads may read at once.

    Parameters
    ----------
    path
        The file.
    offsets
        Where each plane starts, in bytes; its shape is that of the axes before the last two.
    plane
        The shape of one plane.
    dtype
        The type of the file's values, with the file's byte order.
    """

    def __init__(self, path: Path, offsets: NDArray[np.int64], plane: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path = path
        self._offsets = offsets
        self._plane = plane
        self._stored = dtype
        self.dtype = dtype.newbyteorder("=")
        self.shape: tuple[int, ...] = (*offsets.shape, *plane)
        self.ndim = len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box.

        Parameters
        ----------
        index
            One slice per axis.

        Returns
        -------
        numpy.ndarray
            A copy, in native byte order.

        Raises
        ------
        OSError
            If the file is gone, or shorter than it was.
        """
        offsets, within = self._offsets[index[:-2]], index[-2:]
        file = np.memmap(self._path, dtype=np.uint8, mode="r")
        last = int(offsets.max(initial=0)) + self._plane[0] * self._plane[1] * self._stored.itemsize
        if last > file.size:
            raise OSError(truncated(self._path.name, last, file.size))
        rows, columns = (range(*cut.indices(size)) for cut, size in zip(within, self._plane, strict=True))
        box = np.empty((*offsets.shape, len(rows), len(columns)), self.dtype)
        for position in np.ndindex(offsets.shape):
            plane = np.ndarray(self._plane, self._stored, buffer=file, offset=int(offsets[position]))
            box[position] = plane[within]
        return box


def truncated(name: str, needed: int, size: int) -> str:
    """Say that a file ends before its data do (sizes in bytes)."""
    return f"{name} is cut short: its image needs {needed} bytes, the file has {size}, so copy or export it again."
