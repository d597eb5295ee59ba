"""Damaged files of every kind: some that are drawn, the same each time, and those that were found to go wrong."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from fuzz.edits import Edit
from fuzz.kinds import KINDS
from fuzz.oracle import REFUSED, RIGHT, TOLD
from fuzz.worker import Batch, Cases, ran

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of time and memory are POSIX's")

CASES = 300
FEWER = {"unfinished result": 10}
REST = [kind for kind in KINDS if kind not in FEWER]
NUMBERS = {kind: len(range(place, CASES - sum(FEWER.values()), len(REST))) for place, kind in enumerate(REST)} | FEWER


def test_there_are_as_many_cases_as_are_said():
    assert sum(NUMBERS.values()) == CASES


@pytest.mark.parametrize("kind", NUMBERS)
def test_drawn_damage_is_refused_or_changes_nothing(tmp_path, kind):
    report = ran(Batch(kind, NUMBERS[kind], None, tmp_path / "case"))
    assert report["findings"] == []
    assert sum(report["ends"].values()) == NUMBERS[kind]


ZARR, ZARR_2, TIFF, OME, NIFTI = "a.ome.zarr/zarr.json", "a.ome.zarr/.zattrs", "a.tif", "a.ome.tif", "a.nii"
MULTISCALE = ["attributes", "ome", "multiscales", 0]
CHUNK, LEVEL_1 = "a.ome.zarr/0/c/0/0/0", "a.ome.zarr/1/zarr.json"
FOUND = [
    # The checksum of a gzip file is at its end, which was not read.
    pytest.param("NIfTI, compressed", [("a.nii.gz", "overwrite packed", 1892, "ca")], REFUSED, id="gzip-checksum"),
    # nibabel corrects the number of bits, with which the type does not agree.
    pytest.param("NIfTI", [(NIFTI, "overwrite", 70, "0200")], REFUSED, id="nifti-type-of-other-size"),
    pytest.param("NIfTI, scaled", [(NIFTI, "overwrite", 70, "0001")], REFUSED, id="nifti-scaled-type-of-other-size"),
    # Blosc reads beyond the end of a chunk that is cut short.
    pytest.param("Zarr 2 chunks, Blosc", [("a.ome.zarr/0/0.1.0", "cut", 397)], REFUSED, id="blosc-2-cut"),
    pytest.param("Zarr 3 chunks, Blosc", [(CHUNK, "cut", 87)], REFUSED, id="blosc-cut"),
    pytest.param("Zarr 3 chunks, Blosc", [(CHUNK, "cut", 9)], REFUSED, id="blosc-cut-in-its-header"),
    # Errors of codecs that are OSError, and lengths that do not fit into memory.
    pytest.param("Zarr 3 chunks, gzip", [(CHUNK, "overwrite", 0, "00")], REFUSED, id="gzip-chunk"),
    pytest.param(
        "Zarr 3 metadata, shards",
        [("a.ome.zarr/0/zarr.json", "take", ["codecs", 0, "configuration", "index_codecs", 1])],
        REFUSED,
        id="shard-index-without-checksum",
    ),
    # zarr takes `true` for 1.
    pytest.param("Zarr 3 metadata", [("a.ome.zarr/0/zarr.json", "change", ["shape", 2], True)], REFUSED, id="true"),
    pytest.param("Zarr 2 metadata", [("a.ome.zarr/1/.zarray", "change", ["shape", 2], True)], RIGHT, id="level-true"),
    # Without a scale, the voxel size was said to be 1 µm.
    pytest.param(
        "Zarr 3 metadata", [(ZARR, "take", [*MULTISCALE, "datasets", 0, "coordinateTransformations"])], RIGHT, id="size"
    ),
    pytest.param(
        "Zarr 2 metadata",
        [(ZARR_2, "take", ["multiscales", 0, "datasets", 0, "coordinateTransformations", 0])],
        RIGHT,
        id="size-2",
    ),
    # The last page differs from the others, and was left out.
    pytest.param("TIFF", [(TIFF, "overwrite", 4986, "00000000")], REFUSED, id="tiff-page-with-other-compression"),
    pytest.param("TIFF", [(TIFF, "overwrite", 4958, "0200")], REFUSED, id="tiff-page-without-length"),
    pytest.param("TIFF", [(TIFF, "overwrite", 4974, "10000000")], REFUSED, id="tiff-page-of-other-type"),
    pytest.param("TIFF", [(TIFF, "overwrite", 4966, "20000000")], REFUSED, id="tiff-page-of-other-length"),
    pytest.param("TIFF, compressed", [(TIFF, "overwrite", 762, "0000")], REFUSED, id="tiff-page-in-the-middle"),
    # A page without data was read as zeros.
    pytest.param("TIFF, compressed", [(TIFF, "overwrite", 4534, "00000000")], REFUSED, id="tiff-strip-of-0-bytes"),
    pytest.param("TIFF, compressed", [(TIFF, "overwrite", 810, "0000")], REFUSED, id="tiff-no-strip"),
    pytest.param("OME-TIFF", [(OME, "overwrite", 4888, "00000000")], REFUSED, id="ome-tiff-strip-nowhere"),
    pytest.param("TIFF", [(TIFF, "overwrite", 784, "0200")], REFUSED, id="tiff-place-a-text"),
    # tifffile followed a list of pages in a circle until memory was full.
    pytest.param("TIFF, compressed", [(TIFF, "overwrite", 2390, "04000000")], REFUSED, id="tiff-circle"),
    # The compression is a text, with which the message began a new line.
    pytest.param("OME-TIFF", [(OME, "overwrite", 48, "0200")], REFUSED, id="tiff-compression-a-text"),
    # 800 MB for a list of planes.
    pytest.param("OME-XML", [(OME, "attribute", 13, "99999999")], REFUSED, id="ome-xml-plane-99999999"),
    # Messages with what cannot be printed: it is in the file, or in the pattern.
    pytest.param("model", [("m.safetensors", "overwrite", 1658, "7f")], REFUSED, id="delete-in-a-type"),
    pytest.param(
        "Zarr 3 metadata, shards", [("a.ome.zarr/0/zarr.json", "overwrite", 141, "7f")], REFUSED, id="delete-in-a-name"
    ),
    pytest.param("Zarr 3 metadata, shards", [(ZARR, "overwrite", 269, "7f")], REFUSED, id="delete-in-an-axis"),
    pytest.param("naming pattern", [("", "pattern", "{\n}")], REFUSED, id="field-with-a-line-break"),
    # The place of a page and the length of its data contradict each other; tifffile reads only the place.
    pytest.param(
        "OME-TIFF",
        [(OME, "overwrite", 4924, "20000000"), (OME, "overwrite", 4888, "02000000")],
        REFUSED,
        id="ome-tiff-page-elsewhere-of-other-length",
    ),
    pytest.param(
        "OME-TIFF",
        [(OME, "overwrite", 4722, "03000000"), (OME, "overwrite", 4750, "0300")],
        REFUSED,
        id="ome-tiff-page-elsewhere-without-length",
    ),
    # tensorstore refuses an index without a byte order, and zarr takes the machine's: level 1 is as it was.
    pytest.param(
        "Zarr 3 metadata, shards",
        [
            (ZARR, "take", [*MULTISCALE, "datasets", 0]),
            (LEVEL_1, "take", ["codecs", 0, "configuration", "index_codecs", 0, "configuration", "endian"]),
        ],
        TOLD,
        id="shard-index-without-byte-order",
    ),
    # A chunk that is filled up again after it was cut short is as long as it must be.
    pytest.param(
        "Zarr 2 chunks, Blosc",
        [("a.ome.zarr/0/1.1.0", "cut", 184), ("a.ome.zarr/0/1.1.0", "append", "ff" * 1000)],
        TOLD,
        id="blosc-2-filled-up",
    ),
    pytest.param(
        "Zarr 3 chunks, Blosc", [(CHUNK, "cut", 184), (CHUNK, "append", "ff" * 1000)], TOLD, id="blosc-filled-up"
    ),
    # Names with line breaks, and some that no file system allows.
    pytest.param("naming pattern", [("", "pattern", "a\n")], REFUSED, id="name-with-a-line-break"),
    pytest.param("naming pattern", [("", "pattern", "x" * 300)], REFUSED, id="name-of-300-letters"),
    pytest.param("naming pattern", [("", "pattern", "\n" + "x" * 1500)], REFUSED, id="pattern-of-1500-letters"),
]


@pytest.mark.parametrize(("kind", "edits", "end"), FOUND)
def test_damage_that_was_found(tmp_path, kind, edits: list[Edit], end):
    (tmp_path / "case").mkdir()
    cases = Cases(KINDS[kind](tmp_path / "case"), Path(tmp_path / "said"))
    with warnings.catch_warnings(action="ignore"):
        cases.run(edits)
    assert cases.findings == []
    assert cases.ends == {end: 1}
