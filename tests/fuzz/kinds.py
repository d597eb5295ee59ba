"""All kinds of files that are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz import chunks, images, models, names, stores
from fuzz.oracle import Kind

KINDS: dict[str, Callable[[Path], Kind]] = {
    "Zarr 3 metadata": images.Zarr,
    "Zarr 3 metadata, shards": images.ShardedZarr,
    "Zarr 2 metadata": images.Zarr2,
    "TIFF": images.Tiff,
    "TIFF, compressed": images.PackedTiff,
    "OME-TIFF": images.OmeTiff,
    "OME-XML": images.OmeXml,
    "NIfTI": images.Nifti,
    "NIfTI, compressed": images.PackedNifti,
    "NIfTI, scaled": images.ScaledNifti,
    "Zarr 2 chunks, Blosc": chunks.Blosc2Chunks,
    "Zarr 2 chunks, zlib": chunks.Zlib2Chunks,
    "Zarr 3 chunks": chunks.Chunks,
    "Zarr 3 chunks, gzip": chunks.GzipChunks,
    "Zarr 3 chunks, Zstandard": chunks.ZstdChunks,
    "Zarr 3 chunks, Blosc": chunks.BloscChunks,
    "Zarr 3 chunks, checksums": chunks.OurChunks,
    "model": models.ModelFile,
    "checkpoint": models.CheckpointFile,
    "unfinished result": stores.UnfinishedStore,
    "naming pattern": names.Pattern,
}
