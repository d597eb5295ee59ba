"""Chunks that Blosc has compressed: its library reads beyond the end of one that was cut short."""

from __future__ import annotations

import struct
from typing import Any

import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from napari_cropeq.errors import AccessError
from napari_cropeq.formats.paths import truncated

__all__ = ["HEADER", "check_not_cut", "is_blosc"]

HEADER = struct.Struct("<4BIII")  # versions, flags, type size; bytes unpacked, of a block and packed


def is_blosc(array: zarr.Array[Any]) -> bool:
    """Return whether the files of an array are chunks that Blosc has compressed, with no checksum around them."""
    if array.metadata.zarr_format == 2:
        return isinstance(array.metadata.compressor, Blosc)
    return bool(array.metadata.codecs) and isinstance(array.metadata.codecs[-1], BloscCodec)


def check_not_cut(name: str, start: bytes, size: int) -> None:
    """Raise AccessError if a chunk of ``size`` bytes is shorter than its header, at its ``start``, says."""
    header = start[: HEADER.size]
    packed = HEADER.unpack(header)[-1] if len(header) == HEADER.size else HEADER.size
    if packed > size:
        raise AccessError(*truncated(name, packed, size))
