"""Small readers of TIFF and NIfTI that refuse what is contradictory, to compare with those of the package."""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import numpy as np

SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # of an integer by its TIFF type
KINDS = {1: "u", 2: "i", 3: "f"}
NIFTI = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


def tiff_pages(content: bytes) -> list[np.ndarray | None]:
    """Return the pages of a classic TIFF file of one sample per pixel, in strips; None for a contradictory one."""
    pages: list[np.ndarray | None] = []
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[content[:4]]
        (place,) = struct.unpack(order + "I", content[4:8])
        while place and len(pages) < 100:
            (count,) = struct.unpack_from(order + "H", content, place)
            tags: dict[int, list[int] | None] = {}
            for entry in range(place + 2, place + 2 + 12 * count, 12):
                code, kind, length = struct.unpack_from(order + "HHI", content, entry)
                tags.setdefault(code, _numbers(content, order, kind, length, entry + 8))
            pages.append(_page(content, order, tags))
            (place,) = struct.unpack_from(order + "I", content, place + 2 + 12 * count)
    except (LookupError, struct.error):
        pass
    return pages


def _numbers(content: bytes, order: str, kind: int, length: int, place: int) -> list[int] | None:
    size = SIZES.get(kind)
    if size is None or length * size > len(content):
        return None
    if length * size > 4:
        (place,) = struct.unpack_from(order + "I", content, place)
    try:
        return list(struct.unpack_from(f"{order}{length}{'_BH_I___Q'[size]}", content, place))
    except struct.error:
        return None


def _page(content: bytes, order: str, tags: dict[int, list[int] | None]) -> np.ndarray | None:
    try:
        return _decoded(content, order, tags)
    except (LookupError, ValueError, TypeError, MemoryError, zlib.error):
        return None


def _decoded(content: bytes, order: str, tags: dict[int, list[int] | None]) -> np.ndarray:
    def one(code: int, default: int | None = None) -> int:
        found = tags.get(code) or ([default] if default is not None else [])
        (value,) = found
        return value

    width, height, bits, packing = one(256), one(257), one(258, 1), one(259, 1)
    kind, rows, predictor = KINDS[one(339, 1)], min(one(278, 2**32 - 1), one(257)), one(317, 1)
    starts, counts = tags[273], tags[279]
    if one(277, 1) != 1 or bits % 8 or predictor not in (1, 2) or len(starts) != len(counts) != -(-height // rows):
        raise ValueError("samples, bits or strips")
    dtype, data = np.dtype(f"{order}{kind}{bits // 8}"), b""
    for number, (start, count) in enumerate(zip(starts, counts, strict=True)):
        strip = content[start : start + count]
        if packing in (8, 32946):
            strip = zlib.decompress(strip)
        elif packing != 1:
            raise ValueError("compression")
        needed = min(rows, height - number * rows) * width * dtype.itemsize
        if len(strip) != needed:
            raise ValueError(f"a strip has {len(strip)} bytes, but needs {needed}")
        data += strip
    page = np.frombuffer(data, dtype).reshape(height, width)
    return np.cumsum(page, axis=1, dtype=dtype) if predictor == 2 and packing != 1 else page


def nifti_voxels(content: bytes) -> np.ndarray | None:
    """Return the voxels (t, z, y, x) of a NIfTI file; None if its header is contradictory."""
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        (order,) = (o for o in "<>" if 1 <= struct.unpack_from(o + "h", content, 40)[0] <= 7)
        dims = struct.unpack_from(order + "8h", content, 40)
        code, bits = struct.unpack_from(order + "hh", content, 70)
        offset, slope, inter = struct.unpack_from(order + "fff", content, 108)
        dtype, shape = np.dtype(order + NIFTI[code]), dims[1 : 1 + dims[0]][::-1]
        if bits not in (0, 8 * dtype.itemsize) or not 3 <= dims[0] <= 7 or min(shape) < 1 or not math.isfinite(offset):
            return None
        stored = np.frombuffer(content, dtype, math.prod(shape), int(offset)).reshape(shape)
        axes = tuple(axis for axis, length in enumerate(shape[:-3]) if length == 1)
        stored = stored.squeeze(axes)
    except (LookupError, ValueError, TypeError, struct.error, OSError, EOFError, zlib.error):
        return None
    if not math.isfinite(slope) or slope == 0 or (slope, inter) == (1, 0):
        return stored
    kind = np.result_type(stored.dtype, np.float32).newbyteorder("=")
    return stored.astype(kind) * kind.type(slope) + kind.type(inter if math.isfinite(inter) else 0)
