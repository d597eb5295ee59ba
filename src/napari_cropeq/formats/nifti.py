"""NIfTI volumes as lazy arrays in the order (c, t, z, y, x)."""

from __future__ import annotations

import gzip
import logging
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.errors import AccessError, ImageError, MissingPackageError, OutOfMemoryError
from napari_cropeq.formats.metadata import Metadata, Stored, full_unit, reason, scene_number
from napari_cropeq.formats.paths import truncated
from napari_cropeq.formats.watch.files import Watch

logger = logging.getLogger(__name__)

BLOCK = 2**22  # bytes that are unpacked at once
RATIO = 1032  # the most bytes that one byte of a gzip file can unpack to


class Unpacked:
    """A volume that is not compressed: nibabel reads only the requested box.

    Parameters
    ----------
    path
        The file.
    shape
        Axis lengths, the fastest one last.
    dtype
        The type of the file's values, with the file's byte order.
    offset
        Where the values start, in bytes.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
        self._stored = (path, shape, dtype, offset)
        self.shape, self.dtype, self.ndim = shape, dtype.newbyteorder("="), len(shape)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box.

        Raises
        ------
        OSError
            If the file was removed or has become shorter.
        """
        from nibabel.arrayproxy import ArrayProxy

        path, shape, dtype, offset = self._stored
        # Opened again for every box, so that no file stays open and several threads can read at once.
        proxy = ArrayProxy(str(path), (shape[::-1], dtype, offset), mmap=False)
        return np.asarray(proxy[index[::-1]]).T.astype(self.dtype, copy=False)


class PackedVolume:
    """A compressed volume: it cannot be read in parts, so the first access reads and keeps all of it.

    Parameters
    ----------
    path
        The file.
    shape
        Axis lengths, the fastest one last.
    dtype
        The type of the file's values, with the file's byte order.
    offset
        Where the values start in the unpacked file, in bytes.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
        self._path = path
        self._stored, self._offset = dtype, offset
        self._values: NDArray[Any] | None = None
        self._lock = threading.Lock()
        self.shape = shape
        self.dtype = dtype.newbyteorder("=")
        self.ndim = len(shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a box.

        Raises
        ------
        AccessError
            If the file was removed or is damaged.
        """
        with self._lock:
            if self._values is None:
                self._values = self._read()
        box: NDArray[Any] = self._values[index]
        return box

    def _read(self) -> NDArray[Any]:
        start = time.monotonic()
        try:
            values: Any = np.empty(self.shape, self._stored)
            with gzip.open(self._path) as file:
                file.seek(self._offset)
                rest = memoryview(values).cast("B")
                while len(rest):
                    count = file.readinto(rest[:BLOCK])
                    if count == 0:
                        raise EOFError("it ends before its last voxel")
                    rest = rest[count:]
                while file.read(BLOCK):  # the checksum is at the end
                    pass
        except MemoryError as error:
            size = math.prod(self.shape) * self.dtype.itemsize
            raise OutOfMemoryError(
                f"{self._path.name} unpacks to {size / 1e9:.1f} GB, which do not fit into memory.",
                "Unpack it to a .nii file, which is read in parts.",
            ) from error
        except Exception as error:
            raise AccessError(
                f"{self._path.name} cannot be unpacked ({reason(error)}): it is damaged or cut short.", "Copy it again."
            ) from error
        native: NDArray[Any] = values.astype(self.dtype, copy=False)
        logger.info("Unpacked %s in %.1f s", self._path.name, time.monotonic() - start)
        return native

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedVolume, (self._path, self.shape, self._stored, self._offset)


class Scaled:
    """Stored values times a slope plus an intercept.

    Parameters
    ----------
    array
        The stored values.
    slope, inter
        From the header.
    """

    def __init__(self, array: Any, slope: float, inter: float) -> None:
        self._array, self._slope, self._inter = array, slope, inter
        self.shape: tuple[int, ...] = array.shape
        self.dtype = np.result_type(array.dtype, np.float32)
        self.ndim = len(self.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a box."""
        values: NDArray[Any] = self._array[index].astype(self.dtype)
        values *= self.dtype.type(self._slope)
        values += self.dtype.type(self._inter)
        return values


def read_nifti(path: Path, watch: Watch, allow_missing: float | None = None, scene: str | int | None = None) -> Stored:
    """Open a NIfTI file; only the header of a compressed file is read.

    Parameters
    ----------
    path
        A .nii or .nii.gz file.
    watch, allow_missing
        As for the other formats; not needed.
    scene
        A file has one image only.

    Returns
    -------
    Stored
        With axes in the reverse order of NIfTI's (x, y, z, t, c).

    Raises
    ------
    MissingPackageError
        If nibabel is not installed.
    ImageError
        If the file is damaged or cut short.
    ArgumentError
        If a scene is chosen.
    """
    scene_number(scene, (), path.name)
    try:
        import nibabel
    except ImportError as error:
        raise MissingPackageError(
            f"{path.name} is a NIfTI file, and nibabel, which reads it, is not installed.",
            'Install it with: pip install "napari-cropeq[mri]"',
        ) from error
    if path.stat().st_size == 0:
        raise ImageError(f"{path.name} is empty (0 bytes).", "Copy or save it again.")
    try:
        image: Any = nibabel.load(path)
        proxy, header = image.dataobj, image.header
        dtype, shape = np.dtype(proxy.dtype), tuple(int(size) for size in reversed(proxy.shape))
        # The shortest decimal of a float32: 0.8, not 0.800000012.
        zooms = [float(str(zoom)) for zoom in header.get_zooms()]
        units = header.get_xyzt_units()[0]
        if any(size < 1 for size in shape):
            raise ValueError(f"its axes have the lengths {shape}")
        with image.file_map["image"].get_prepare_fileobj("rb") as file:  # nibabel has corrected the other one
            bits = int(type(header).from_fileobj(file, check=False)["bitpix"])
        if bits not in (0, 8 * dtype.itemsize):
            raise ValueError(f"its voxels have {bits} bits, but their type {dtype} has {8 * dtype.itemsize}")
    except Exception as error:  # nibabel has no common type for damaged headers
        raise ImageError(
            f"{path.name} cannot be read as a NIfTI file ({reason(error)}): it is damaged or of another format.",
            "Copy or export it again.",
        ) from error
    array: Any = _values(path, proxy, shape, dtype)
    axes = "ctzyx"[-len(shape) :] if len(shape) <= 5 else "q" * (len(shape) - 5) + "ctzyx"
    chunks = shape if isinstance(array, PackedVolume) else (1,) * (len(shape) - 2) + shape[-2:]
    if (proxy.slope, proxy.inter) != (1, 0) and dtype.kind in "iuf":  # others are refused by their type
        array = Scaled(array, float(proxy.slope), float(proxy.inter))
    return Stored(array, axes, chunks, _metadata(zooms, units, image.affine))


def _values(path: Path, proxy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Unpacked | PackedVolume:
    """Return the stored values; they can be read in parts unless the file is compressed."""
    needed, size = int(proxy.offset) + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if path.suffix.lower() == ".gz":
        if needed > RATIO * size:
            raise ImageError(
                f"{path.name} names an image of {needed} bytes, but a compressed file of {size} bytes cannot have so "
                "many.",
                "Copy or export it again.",
            )
        return PackedVolume(path, shape, dtype, int(proxy.offset))
    if needed > size:
        raise ImageError(*truncated(path.name, needed, size))
    return Unpacked(path, shape, dtype, int(proxy.offset))


def _metadata(zooms: list[float], units: str, affine: Any) -> Metadata:
    sizes = zooms[2::-1]
    if len(sizes) < 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        return Metadata()
    unit = "millimeter" if units == "unknown" else full_unit(units)
    z, y, x = sizes
    # The axes of a scanner may be rotated or flipped; a translation alone then does not give the position.
    straight = affine is not None and np.allclose(affine[:3, :3], np.diag([x, y, z]), atol=1e-4)
    shift = [float(affine[axis, 3]) for axis in (2, 1, 0)] if straight else [0.0, 0.0, 0.0]
    return Metadata(voxel_size=(z, y, x), unit=unit, translate=(shift[0], shift[1], shift[2]))
