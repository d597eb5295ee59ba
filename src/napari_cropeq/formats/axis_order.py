"""Put an image's axes in the order t, c, z, y, x, from any order in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.errors import AccessError, CropeqError, ImageError, OutOfMemoryError, SourceChangedError
from napari_cropeq.formats.metadata import Stored, reason
from napari_cropeq.formats.watch.files import Watch

__all__ = ["OrderedAxes", "axis_order"]


_POSITIONS = "prm"  # tifffile's letters for positions and mosaics: the first is taken


class OrderedAxes:
    """An array-like whose axes are reordered when it is read, and whose files may not change.

    Dask would transpose a whole chunk and then take the box; this class reads only the box.
    """

    def __init__(self, array: Any, order: tuple[int, ...], fixed: tuple[int, ...], watch: Watch) -> None:
        self._array, self._order, self._fixed, self._watch = array, order, fixed, watch
        self.shape = tuple(int(array.shape[axis]) for axis in order)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.ndim = len(order)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a box; the index of an axis is a slice, an integer or (Dask uses this too) a list of integers."""
        index = index if isinstance(index, tuple) else (index,)
        index = (*index, *(slice(None),) * (self.ndim - len(index)))
        wanted: list[slice] = [slice(0, 1)] * len(self._array.shape)
        picked: list[Any] = []
        for axis, cut in zip(self._order, index, strict=True):
            wanted[axis], pick = _span(cut)
            picked.append(pick)
        box = self._read(tuple(wanted))
        box = box.transpose(*self._order, *self._fixed)
        for axis, pick in enumerate(picked):
            if isinstance(pick, np.ndarray):
                box = np.take(box, pick, axis)
        numbers = [slice(None) if isinstance(pick, np.ndarray) else pick for pick in picked]
        return np.asarray(box[(*numbers, *(0,) * len(self._fixed))], dtype=self.dtype, order="C")

    def _read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box; a file that has changed since it was opened is another image, or damaged."""
        try:
            box = np.asarray(self._array[index])
        except SourceChangedError:
            raise
        except Exception as error:
            self._watch.check()
            if isinstance(error, CropeqError) or (isinstance(error, OSError) and error.errno is not None):
                raise  # codecs raise OSError without a number
            if isinstance(error, MemoryError):
                raise OutOfMemoryError(
                    f"Memory does not suffice to read {self._watch.name}.",
                    "Free memory. If the image is small, it is damaged: copy or export it again.",
                    setting="memory",
                ) from error
            raise AccessError(
                f"{self._watch.name} cannot be read any further ({reason(error)}): the file is damaged.",
                "Copy or export it again.",
            ) from error
        self._watch.check()
        return box


def _span(cut: Any) -> tuple[slice, Any]:
    """Return the slice that covers an index, and the index into that slice."""
    if isinstance(cut, slice):
        return cut, slice(None)
    if np.ndim(cut) == 0:
        return slice(int(cut), int(cut) + 1), 0
    numbers = np.asarray(cut, dtype=np.int64)
    if not len(numbers):
        return slice(0, 0), slice(None)
    return slice(int(numbers.min()), int(numbers.max()) + 1), numbers - numbers.min()


def axis_order(stored: Stored, name: str) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Return the axes to keep, in the order t, c, z, y, x, the axes to drop, and the letters of those kept."""
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
        raise ImageError(
            f"{name} is a colour (RGB) image with {samples} samples per pixel, not grey levels.",
            "Split it into channels (in Fiji: Image > Color > Split Channels) and save one of them.",
        )


def _check_axes(stored: Stored, sizes: tuple[int, ...], letters: dict[int, str], unknown: list[int], name: str) -> None:
    """Raise ImageError if the axes cannot be assigned to t, c, z, y, x, or if there is only one slice."""
    shape = "×".join(str(sizes[i]) for i in letters)
    found = "".join(letters.values())
    if unknown or len(set(found)) != len(found):
        raise ImageError(
            f"{name} has {len(found)} axes ({found.upper()}, {shape}), which cannot be assigned to time, channel, z, y "
            "and x.",
            "Save it as OME-TIFF, OME-Zarr or an ImageJ hyperstack, which name their axes.",
        )
    if "y" not in found or "x" not in found:
        raise ImageError(
            f"{name} has the axes {found.upper()} ({shape}), but a 3D stack has z, y and x.", "Open a 3D stack."
        )
    depth = next((sizes[i] for i, axis in letters.items() if axis == "z"), 1)
    if depth == 1 and sum(size != 1 for size in (sizes[i] for i in letters)) <= 2:
        plane = "×".join(str(sizes[i]) for i, axis in letters.items() if axis in "yx")
        raise ImageError(f"{name} is a 2D image ({plane}), not a 3D stack.", "Open the whole stack.")
    if depth == 1:
        raise ImageError(
            f"{name} has 2D images with the axes {found.upper()} ({shape}), but a 3D stack has at least two slices "
            "along z.",
            "If one of these axes is z, correct that (in Fiji: Image > Properties) and save it again.",
        )
