"""TIFF, OME-TIFF and ImageJ stacks as lazy arrays, decoded by tifffile."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from tifffile import TIFF, TiffFile, TiffPage, TiffPageSeries

from napari_cropeq.errors import AccessError, ArgumentError, CropeqError, ImageError
from napari_cropeq.formats.check.pages import DIRECTORY, bytes_needed, check_complete, read_list
from napari_cropeq.formats.metadata import (
    Metadata,
    Stored,
    imagej_metadata,
    ome_xml_metadata,
    planes_named,
    reason,
    scene_number,
)
from napari_cropeq.formats.paths import truncated
from napari_cropeq.formats.watch.files import Watch

logger = logging.getLogger(__name__)

_PLANES = 2**18  # that OME-XML may name for any file: some may lie in other files
_CHUNK = 2048  # side in px: whole pages of the usual cameras, a part of a stitched mosaic


class DecodedPages:
    """One level of a series of a TIFF file; reading decodes only the strips or tiles needed.

    Parameters
    ----------
    path
        The file. It stays open until this object is collected.
    level
        From 0, the finest.
    missing
        What voxels of missing planes are read as.
    number
        Number of the series.
    """

    def __init__(self, path: Path, level: int = 0, missing: float = 0, number: int = 0) -> None:
        self._arguments = path, level, missing, number
        file = _opened(path)
        weakref.finalize(self, file.close)
        # Several threads can read at once: zarr and tifffile share the file handle with a lock.
        store = file.series[number].aszarr(level=level, fillvalue=missing)
        self._array: Any = zarr.open_array(store, mode="r", zarr_format=2)
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype: np.dtype[Any] = self._array.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read a box, in the file's order of axes."""
        return np.asarray(self._array[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedPages, self._arguments


def read_tiff(path: Path, watch: Watch, allow_missing: float | None = None, scene: str | int | None = None) -> Stored:
    """Open a TIFF file without reading a pixel.

    Parameters
    ----------
    path
        The file.
    watch
        Watches the file; other files with planes of the series are added.
    allow_missing
        What voxels of missing planes are read as; if None, an image with missing planes is refused.
    scene
        Name or number of the series to read, by default the first.

    Returns
    -------
    Stored

    Raises
    ------
    ImageError
        If the file is empty, damaged or cut short, its compression cannot be read, or planes are missing.
    ArgumentError
        If the image cannot have the value for missing planes, or there is no such series.
    """
    if path.stat().st_size == 0:
        raise ImageError(f"{path.name} is empty (0 bytes).", "Copy or save it again.")
    try:
        formats = read_list(path)
        with _opened(path) as file:
            scenes = _scenes(file)
            number = scene_number(scene, scenes, path.name)
            series = file.series[number]
            check_complete(file, series, formats)
            _check_decodable(path, series.keyframe)
            if series.is_multifile:
                watch.add({Path(page.parent.filehandle.path) for page in series if page is not None})
            missing = _value_of_missing(path.name, series, allow_missing)
            opened = partial(_stored, path, file, missing=missing, number=number)
            stored = replace(opened(series), missing=missing, scenes=scenes, scene=scenes[number] if scenes else "")
            return replace(stored, coarser=tuple(_coarser(path, file, series, opened)))
    except CropeqError:
        raise
    except Exception as error:  # tifffile raises anything for meaningless tags
        raise ImageError(
            f"{path.name} cannot be read as a TIFF file ({reason(error)}): it is damaged or of another format.",
            "Copy or export it again.",
        ) from error


def _opened(path: Path, is_ome: bool | None = None) -> TiffFile:
    """Open a file that has at least one series; meaningless OME-XML is ignored."""
    file = TiffFile(path, is_ome=is_ome)
    try:
        if file.is_ome:
            page = file.pages.first
            _check_possible(path, file.ome_metadata or "", page.imagewidth * page.imagelength)
    except ImageError:
        file.close()
        raise
    try:
        if not file.series:
            raise IndexError("it has no image")
    except Exception:
        described = bool(file.is_ome)
        file.close()
        if not described:
            raise
        logger.warning("Ignored the OME-XML of %s, which is damaged", path.name)
        return _opened(path, is_ome=False)
    return file


def _scenes(file: TiffFile) -> tuple[str, ...]:
    """Return the names of the series of a file, or their numbers where it does not name all; none for a single one."""
    names = tuple(str(series.name or "") for series in file.series)
    if len(names) < 2:
        return ()
    return names if all(names) and len(set(names)) == len(names) else tuple(map(str, range(len(names))))


def _coarser(path: Path, file: TiffFile, series: TiffPageSeries, opened: Callable[..., Stored]) -> Iterator[Stored]:
    """Yield the coarser levels until one cannot be read; the image can be used without them."""
    for number, level in enumerate(series.levels[1:], 1):
        try:
            if level.axes != series.axes or bytes_needed(file, level) > os.path.getsize(path):
                return
            stored = opened(level, level=number)
        except Exception as error:  # noqa: BLE001 (as above: the finest level is enough)
            logger.warning("Skipped the coarser levels of %s from number %d: %s", path.name, number, error)
            return
        yield stored


def _stored(
    path: Path, file: TiffFile, series: TiffPageSeries, missing: float | None, number: int, level: int = 0
) -> Stored:
    axes = series.axes.lower()
    natural = (1,) * len(axes)
    array: Any = _raw(path, file, series)
    if array is None:
        array = DecodedPages(path, level, missing or 0, number)
        natural = tuple(array._array.chunks)
    chunks = tuple(
        _chunk(size, step) if axis in "yx" else (size if axis == "s" else step)
        for size, step, axis in zip(series.shape, natural, axes, strict=True)
    )
    return Stored(array, axes, chunks, _metadata(file, series, number))


def _chunk(size: int, natural: int) -> int:
    """Return the length of a Dask chunk: as many whole strips or tiles as fit."""
    return min(size, max(_CHUNK // natural, 1) * natural)


def _raw(path: Path, file: TiffFile, series: TiffPageSeries) -> RawPages | None:
    """Return pages that are stored uncompressed, so that only a box needs to be read; None for others."""
    key = series.keyframe
    if series.is_multifile or series.transform is not None or not key.is_final or len(key.shape) != 2:
        return None
    dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
    leading = series.shape[:-2]
    if series.shape[-2:] != key.shape:
        return None
    count = math.prod(leading)
    if series.dataoffset is not None:
        offsets = series.dataoffset + np.arange(count, dtype=np.int64) * key.nbytes
    else:
        starts = [page.dataoffsets[0] for page in series if page is not None and page.dataoffsets]
        if len(starts) != count or min(starts) == 0:
            return None
        offsets = np.array(starts, dtype=np.int64)
    return RawPages(path, offsets.reshape(leading), key.shape, dtype)


def _check_possible(path: Path, xml: str, pixels_of_page: int) -> None:
    """Raise ImageError if OME-XML names more planes than the file can have, before tifffile makes a list of them."""
    size, planes = os.path.getsize(path), planes_named(xml, pixels_of_page)
    if planes > max(_PLANES, size // DIRECTORY):
        raise ImageError(
            f"The OME-XML of {path.name} names {planes} planes, but a file of {size} bytes cannot have so many.",
            "Copy or export it again.",
        )


def _value_of_missing(name: str, series: TiffPageSeries, value: float | None) -> float | None:
    """Return what voxels of missing planes are read as; None if no plane is missing.

    Raises
    ------
    ImageError
        If planes are missing and there is no value.
    ArgumentError
        If the image cannot have the value.
    """
    if series.dataoffset is not None:  # one block of data
        return None
    pages = list(series)
    missing = [number for number, page in enumerate(pages) if page is None]
    if not missing:
        return None
    lacks = f"{name} lacks {len(missing)} of its {len(pages)} planes: {_places(series, missing)} (counted from 0)."
    if value is None:
        raise ImageError(
            lacks,
            "Copy the image again, or give a value that missing planes are read as.",
            setting="allow_missing",
        )
    dtype = np.dtype(series.dtype)
    if dtype.kind in "iu":
        possible = float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    else:
        possible = math.isfinite(value)
    if not possible:
        raise ArgumentError(
            f"{value} cannot be a voxel of {name}, which has the type {dtype}.",
            "Give another value for missing planes.",
            setting="allow_missing",
        )
    logger.warning("%s They are read as %s.", lacks, value)
    return float(value)


def _places(series: TiffPageSeries, numbers: Sequence[int]) -> str:
    """Return where planes are, by their numbers: ranges along the last axis before a plane's own, at most three."""
    sizes = series.shape[: -len(series.keyframe.shape)]
    *names, last = list(series.axes.lower()[: len(sizes)])
    if math.prod(sizes) != len(series):  # a page is more than a plane
        sizes, names, last = (len(series),), [], "page"
    runs: list[tuple[list[int], int, int]] = []  # leading indices, first and last number along the last axis
    for number in numbers:
        *leading, along = (int(i) for i in np.unravel_index(number, sizes))
        if runs and runs[-1][0] == leading and runs[-1][2] == along - 1:
            runs[-1] = leading, runs[-1][1], along
        else:
            runs.append((leading, along, along))
    texts = []
    for leading, first, end in runs[:3]:
        place = [f"{name} {index}" for name, index in zip(names, leading, strict=True)]
        texts.append(" ".join([*place, f"{last} {first}" if first == end else f"{last} {first} to {end}"]))
    return ", ".join(texts) + (f" and {len(runs) - 3} more ranges" if len(runs) > 3 else "")


def _check_decodable(path: Path, page: TiffPage) -> None:
    """Raise ImageError if the compression needs imagecodecs, and that is not installed."""
    for codecs, kind in ((TIFF.DECOMPRESSORS, page.compression), (TIFF.UNPREDICTORS, page.predictor)):
        if not isinstance(kind, int):
            raise ValueError("its compression is not a number")
        try:
            codecs[kind]
        except KeyError as error:
            raise ImageError(
                f"{path.name} is stored with {getattr(kind, 'name', kind)} compression, and the package that reads it "
                "is not installed.",
                "Install it with: pip install imagecodecs",
            ) from error


def _metadata(file: TiffFile, series: TiffPageSeries, number: int) -> Metadata:
    sizes = dict(zip(series.axes.lower(), series.shape, strict=True))
    if series.kind == "ome" and file.ome_metadata:
        return ome_xml_metadata(file.ome_metadata, sizes, number)
    if file.is_imagej and file.imagej_metadata is not None:
        page = file.pages.first
        lateral = (_pixel_size(page, "YResolution"), _pixel_size(page, "XResolution"))
        return imagej_metadata(file.imagej_metadata, lateral, sizes.get("c", 1))
    return Metadata()  # plain TIFF does not store z


def _pixel_size(page: TiffPage, tag: str) -> float | None:
    """Return the size of a pixel; TIFF stores pixels per unit."""
    try:
        pixels, units = page.tags.valueof(tag)
    except (TypeError, ValueError):
        return None
    return units / pixels if pixels else None


class RawPages:
    """Uncompressed planes of a file, from which only a box needs to be read.

    The file is mapped again for every box, so that no file stays open and several threads can read at once.

    Parameters
    ----------
    path
        The file.
    offsets
        Start of each plane in bytes; its shape is that of the axes before the last two.
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
        AccessError
            If the file has become shorter.
        OSError
            If the file was removed.
        """
        offsets, within = self._offsets[index[:-2]], index[-2:]
        file = np.memmap(self._path, dtype=np.uint8, mode="r")
        last = int(offsets.max(initial=0)) + self._plane[0] * self._plane[1] * self._stored.itemsize
        if last > file.size:
            raise AccessError(*truncated(self._path.name, last, file.size))
        rows, columns = (range(*cut.indices(size)) for cut, size in zip(within, self._plane, strict=True))
        box = np.empty((*offsets.shape, len(rows), len(columns)), self.dtype)
        for position in np.ndindex(offsets.shape):
            plane = np.ndarray(self._plane, self._stored, buffer=file, offset=int(offsets[position]))
            box[position] = plane[within]
        return box
