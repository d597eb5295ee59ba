"""The pages of a TIFF file: whether they are all there, and say nothing contradictory.

tifffile reads planes without data as zeros, leaves out pages that differ from the first, and follows a list of pages
that returns to an earlier one for ever.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from pathlib import Path
from typing import Any

from tifffile import TiffFile, TiffPageSeries

from napari_cropeq.errors import ImageError
from napari_cropeq.formats.paths import truncated

__all__ = ["DIRECTORY", "bytes_needed", "check_complete", "check_list"]

logger = logging.getLogger(__name__)

DIRECTORY = 54  # smallest description of a plane in a TIFF file, bytes
AGAIN = "Copy or export it again."


def check_list(path: Path) -> None:
    """Raise ImageError if the list of pages of a TIFF file returns to an earlier page."""
    with open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return
        (kind,) = struct.unpack(f"{order}H", head[2:4])
        if kind not in (42, 43):
            return
        big = kind == 43
        offset, count, size, entry = ("Q", "Q", 8, 20) if big else ("I", "H", 4, 12)
        (place,) = struct.unpack(order + offset, head[8:16] if big else head[4:8])
        seen: set[int] = set()
        while place and place not in seen:
            seen.add(place)
            file.seek(place)
            number = file.read(struct.calcsize(count))
            if len(number) < struct.calcsize(count):
                return  # the list is cut short
            file.seek(entry * struct.unpack(order + count, number)[0], os.SEEK_CUR)
            following = file.read(size)
            if len(following) < size:
                return
            (place,) = struct.unpack(order + offset, following)
        if place:
            raise ImageError(f"{path.name} is damaged: its list of pages returns to an earlier page.", AGAIN)


def check_complete(file: TiffFile, series: TiffPageSeries) -> None:
    """Raise ImageError if the file ends before its last page, or a page is damaged or not among those that are read."""
    name, size = Path(file.filename).name, os.path.getsize(file.filehandle.path)
    needed = bytes_needed(file, series)
    if needed > size:
        raise ImageError(*truncated(name, needed, size))
    if not _list_ends(file):
        raise ImageError(
            f"{name} is cut short: its list of pages ends after {len(file.pages)}, in a file of {size} bytes.", AGAIN
        )
    if series.dataoffset is None:
        for page in series:
            if page is not None and page.parent is file and not _has_data(page, math.prod(series.keyframe.chunked)):
                raise ImageError(f"{name} is damaged: page {page.index} does not say where all its data are.", AGAIN)
    if series.kind == "generic":
        _check_alike(file, series, name)


def bytes_needed(file: TiffFile, series: TiffPageSeries) -> int:
    """Return the size in bytes that a file needs at least for all of a series."""
    if series.dataoffset is not None:
        return int(series.dataoffset) + math.prod(series.get_shape(squeeze=False)) * int(series.dtype.itemsize)
    ours = [page for page in series if page is not None and page.parent is file]
    extents = (zip(page.dataoffsets, page.databytecounts, strict=False) for page in ours)
    return max((start + count for page in extents for start, count in page), default=0)


def _has_data(page: Any, count: int) -> bool:
    """Return whether a page has ``count`` strips or tiles; an empty one has neither offset nor length (GDAL)."""
    starts, lengths = page.dataoffsets, page.databytecounts
    places = zip(starts, lengths, strict=False)
    return len(starts) == len(lengths) == count and all((start == 0) == (length == 0) for start, length in places)


def _check_alike(file: TiffFile, series: TiffPageSeries, name: str) -> None:
    """Raise ImageError if a page that is not in a plain series cannot be another image: it would be left out.

    Other images, such as a thumbnail, follow the pages of the first and have another size, or they are marked as such.
    """
    first = series.keyframe
    numbers = [page.index for page in series if page is not None and isinstance(page.index, int)]
    own, last, others = set(numbers), max(numbers, default=0), 0
    for number in sorted({*range(len(file.pages))} - own):
        page = file.pages[number].aspage()
        if page.is_reduced or page.is_mask:
            continue
        shape = page.shape
        damaged = not shape or 0 in shape or (page.compression == 1 and sum(page.databytecounts) != page.nbytes)
        if number < last or shape == first.shape or damaged:
            raise ImageError(f"{name} is damaged: page {number} differs from the pages before it.", AGAIN)
        others += 1
    if others:
        logger.warning("%s has %d pages of another size after the image, which are not read", name, others)


def _list_ends(file: TiffFile) -> bool:
    """Return whether the last page is marked as the last and does not point beyond the end of the file."""
    position = file.pages.next_page_offset
    if position is None:
        return True
    file.filehandle.seek(position)
    return file.filehandle.read(file.tiff.offsetsize) == bytes(file.tiff.offsetsize)
