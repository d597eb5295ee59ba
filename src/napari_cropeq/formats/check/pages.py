"""The pages of a TIFF file: whether they are all there, and say nothing contradictory.

tifffile reads planes without data as zeros, leaves out pages that differ from the first, and follows a list of pages
that returns to an earlier one for ever.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tifffile import TiffFile, TiffPageSeries

from napari_cropeq.errors import ImageError
from napari_cropeq.formats.paths import truncated

__all__ = ["DIRECTORY", "bytes_needed", "check_complete", "read_list"]

logger = logging.getLogger(__name__)

DIRECTORY = 54  # smallest description of a plane in a TIFF file, bytes
AGAIN = "Copy or export it again."


Format = tuple[int, ...]
"""Values of the tags in FORMAT; of an uncompressed page also the length of its data, or the number of its parts."""

COMPRESSION = 259
FORMAT = {256: 0, 257: 0, 258: 1, COMPRESSION: 1, 277: 1, 317: 1, 339: 1}
"""Tags that decide how a page is decoded, and defaults: width, length, bits, compression, samples, predictor, type."""

PLACES, LENGTHS, NUMBERS, DAMAGED = (273, 324), (279, 325), (3, 4, 13, 16, 18), -1
"""Tags with offset and length of the data, the types that they may have, and what stands for another type."""

SIZES = {1: 1, 3: 2, 4: 4}  # of a number by its type, bytes; others fill the field


def read_list(path: Path) -> list[Format]:
    """Return how each page of a TIFF file is stored; empty if the file is of another kind.

    Raises
    ------
    ImageError
        If the list of pages returns to an earlier page.
    """
    formats: dict[int, Format] = {}  # by the offset of the page
    known: dict[Format, Format] = {}  # there may be a million pages
    with open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        kind = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) == 16 else 0
        if kind not in (42, 43):
            return []
        # Count of tags; code, type, count and value of a tag; offset of the next page.
        codes = ("Q", "HHQ8s", "Q") if kind == 43 else ("H", "HHI4s", "I")
        count, entry, offset = (struct.Struct(order + code) for code in codes)
        (place,) = offset.unpack(head[8:16] if kind == 43 else head[4:8])
        while place and place not in formats:
            file.seek(place)
            try:
                (number,) = count.unpack(file.read(count.size))
                tags = entry.iter_unpack(file.read(entry.size * number))
                found = _format(tags, order)
                formats[place] = known.setdefault(found, found)
                (place,) = offset.unpack(file.read(offset.size))
            except (struct.error, MemoryError, OverflowError):
                break  # cut short
        else:
            if place:
                raise ImageError(f"{path.name} is damaged: its list of pages returns to an earlier page.", AGAIN)
    return list(formats.values())


def _format(tags: Iterable[tuple[int, int, int, bytes]], order: str) -> Format:
    found, length = dict(FORMAT), 0
    for code, kind, count, value in tags:
        number = int.from_bytes(value[: SIZES.get(kind)], "little" if order == "<" else "big")
        if code in found:
            found[code] = number
        elif code in PLACES + LENGTHS and kind not in NUMBERS:
            found[code] = DAMAGED
        elif code in LENGTHS:
            length = number if count == 1 else count
    # tifffile takes the length of an uncompressed page from the first one.
    return (*found.values(), length if found[COMPRESSION] == 1 else 0)


def check_complete(file: TiffFile, series: TiffPageSeries, formats: Sequence[Format]) -> None:
    """Raise ImageError if the file ends before its last page, or a page is damaged or not among those that are read.

    Parameters
    ----------
    file, series
        The file, and what is read from it.
    formats
        See :func:`read_list`.
    """
    name, size = Path(file.filename).name, os.path.getsize(file.filehandle.path)
    needed = bytes_needed(file, series)
    if needed > size:
        raise ImageError(*truncated(name, needed, size))
    if not _list_ends(file):
        raise ImageError(
            f"{name} is cut short: its list of pages ends after {len(file.pages)}, in a file of {size} bytes.", AGAIN
        )
    if series.dataoffset is None:
        ours = [page for page in series if page is not None and page.parent is file]
        for page in ours:
            if not _has_data(page, math.prod(series.keyframe.chunked)):
                raise ImageError(f"{name} is damaged: page {page.index} does not say where all its data are.", AGAIN)
            if series.keyframe.is_contiguous and not _in_one_piece(page):
                raise ImageError(
                    f"Page {page.index} of {name} is stored in pieces, unlike the first, and would be misread.", AGAIN
                )
            # tifffile decodes all pages like the first.
            own = _format_of(page, formats)
            if own != _format_of(ours[0], formats) or DAMAGED in (own or ()):
                raise _differs(name, page.index)
    if series.kind == "generic":
        _check_alike(file, series, name)


def _format_of(page: Any, formats: Sequence[Format]) -> Format | None:
    """Return how a page is stored; None for one that is not in the list, such as a reduced one below another."""
    return formats[page.index] if isinstance(page.index, int) and page.index < len(formats) else None


def _differs(name: str, number: int) -> ImageError:
    return ImageError(f"{name} is damaged: page {number} differs from the pages before it.", AGAIN)


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


def _in_one_piece(page: Any) -> bool:
    """Return whether the strips of a page follow each other."""
    starts, lengths = page.dataoffsets, page.databytecounts
    return all(start + length == after for start, length, after in zip(starts, lengths, starts[1:], strict=False))


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
            raise _differs(name, number)
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
