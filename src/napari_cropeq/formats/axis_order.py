"""The order of an image's axes: t, c, z, y, x, whatever it is in the file."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.formats.metadata import Stored

__all__ = ["OrderedAxes", "axis_order"]


_POSITIONS = "prm"  # tifffile's letters for positions and mosaics: the first is taken


class OrderedAxes:
    """An array-like whose axes are put in order as it is read.

    Dask would transpose a whole chunk before it takes the box out of it; here only the box is read.
    """

    def __init__(self, array: Any, order: tuple[int, ...], fixed: tuple[int, ...], name: str) -> None:
        self._array, self._order, self._fixed, self._name = array, order, fixed, name
        self.shape = tuple(int(array.shape[axis]) for axis in order)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.ndim = len(order)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a box; index holds a slice, an integer or, as Dask also asks, a list of integers per axis."""
        index = index if isinstance(index, tuple) else (index,)
        index = (*index, *(slice(None),) * (self.ndim - len(index)))
        wanted: list[slice] = [slice(0, 1)] * len(self._array.shape)
        picked: list[Any] = []
        for axis, cut in zip(self._order, index, strict=True):
            wanted[axis], pick = _span(cut)
            picked.append(pick)
        try:
            box = np.asarray(self._array[tuple(wanted)])
        except (zlib.error, struct.error, EOFError, RuntimeError, ValueError, KeyError, IndexError) as error:
            raise OSError(
                f"{self._name} cannot be read any further ({error}): the file is damaged, so copy or export it again."
            ) from error
        box = box.transpose(*self._order, *self._fixed)
        for axis, pick in enumerate(picked):
            if isinstance(pick, np.ndarray):
                box = np.take(box, pick, axis)
        numbers = [slice(None) if isinstance(pick, np.ndarray) else pick for pick in picked]
        return np.asarray(box[(*numbers, *(0,) * len(self._fixed))], dtype=self.dtype, order="C")


def _span(cut: Any) -> tuple[slice, Any]:
    """Give the slice that covers an index, and what is then to be picked from it."""
    if isinstance(cut, slice):
        return cut, slice(None)
    if np.ndim(cut) == 0:
        return slice(int(cut), int(cut) + 1), 0
    numbers = np.asarray(cut, dtype=np.int64)
    if not len(numbers):
        return slice(0, 0), slice(None)
    return slice(int(numbers.min()), int(numbers.max()) + 1), numbers - numbers.min()


def axis_order(stored: Stored, name: str) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Return which axes are kept, in the order t, c, z, y, x, which others are dropped, and the letters kept."""
    sizes = tuple(int(size) for size in stored.array.shape)
    _check_not_color(stored, sizes, name)
    kept = [i for i, axis in enumerate(stored.axes) if axis in "zyx" or (sizes[i] != 1 and axis not in _POSITIONS)]
    letters = {i: stored.axes[i] for i in kept}
    unknown = [i for i in kept if letters[i] not in "tczyx"]
    if len(unknown) == 1 and "z" not in letters.values():
        letters[unknown.pop()] = "z"  # a plain stack of pages
    _check_axes(stored, sizes, letters, unknown, name)
    order = tuple(sorted(kept, key=lambda i: "tczyx".index(letters[i])))
    fixed = tuple(i for i in range(len(sizes)) if i not in kept)
    axes = "".join(letters[i] for i in order)
    return order, fixed, axes


def _check_not_color(stored: Stored, sizes: tuple[int, ...], name: str) -> None:
    samples = len(np.dtype(stored.array.dtype).names or ())
    if "s" in stored.axes:
        samples = max(samples, sizes[stored.axes.index("s")])
    if samples > 1:
        raise ValueError(
            f"{name} is a colour (RGB) image with {samples} samples per pixel, expected grey levels: split it into "
            "channels (in Fiji: Image > Color > Split Channels) and save one of them."
        )


def _check_axes(stored: Stored, sizes: tuple[int, ...], letters: dict[int, str], unknown: list[int], name: str) -> None:
    """Refuse an image whose axes cannot be told apart, or that has no depth."""
    shape = "×".join(str(sizes[i]) for i in letters)
    found = "".join(letters.values())
    if unknown or len(set(found)) != len(found):
        raise ValueError(
            f"{name} has {len(found)} axes ({found.upper()}, {shape}) of which not all are known, expected time, "
            "channel, z, y, x: save it as OME-TIFF, OME-Zarr or an ImageJ hyperstack, which name them."
        )
    if "y" not in found or "x" not in found:
        raise ValueError(f"{name} has the axes {found.upper()} ({shape}), expected a 3D stack with z, y, x.")
    depth = next((sizes[i] for i, axis in letters.items() if axis == "z"), 1)
    if depth == 1 and sum(size != 1 for size in (sizes[i] for i in letters)) <= 2:
        plane = "×".join(str(sizes[i]) for i, axis in letters.items() if axis in "yx")
        raise ValueError(f"{name}: got a 2D image {plane}, expected a 3D stack: open the whole stack.")
    if depth == 1:
        raise ValueError(
            f"{name}: got 2D images with the axes {found.upper()} ({shape}), expected a 3D stack with at least two "
            "slices along z: if one of these axes is z, correct that (in Fiji: Image > Properties) and save it again."
        )
