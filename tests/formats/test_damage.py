"""Damaged files, and small files that claim to be huge: each is refused in a sentence, or opens at once."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_cropeq.errors import CropeqError, OutOfMemoryError
from napari_cropeq.formats.open import open_image

SHAPE = (8, 16, 16)


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.uint16)


def a_zarr(folder: Path, version: int = 3, shape: tuple[int, ...] = SHAPE, chunks=(1, 8, 8)) -> Path:
    path = folder / "a.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=version)
    array = group.create_array("0", shape=shape, chunks=chunks, dtype="uint16")
    if shape == SHAPE:
        array[:] = voxels()
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [4, 1, 1]}]}]
    image = {"multiscales": [{"axes": [{"name": axis} for axis in "zyx"], "datasets": datasets}]}
    group.attrs.update({"ome": image} if version == 3 else image)
    return path


def zarr_with(name: str, keys: list[Any], value: Any, version: int = 3) -> Callable[[Path], Path]:
    """Return a maker of a Zarr with one other value in a file of its metadata."""

    def make(folder: Path) -> Path:
        path = a_zarr(folder, version)
        found = json.loads((path / name).read_text())
        inner = found
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (path / name).write_text(json.dumps(found))
        return path

    return make


def zarr_text(name: str, text: str, version: int = 3) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = a_zarr(folder, version)
        (path / name).write_text(text)
        return path

    return make


def an_ome_tiff(folder: Path, **options) -> Path:
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 4.0, "PhysicalSizeY": 1.0, "PhysicalSizeX": 1.0}
    metadata |= {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    tifffile.imwrite(folder / "a.ome.tif", voxels(), metadata=metadata, photometric="minisblack", **options)
    return folder / "a.ome.tif"


def ome_with(**changes: Any) -> Callable[[Path], Path]:
    """Return a maker of an OME-TIFF with other values in its OME-XML."""

    def make(folder: Path) -> Path:
        path = an_ome_tiff(folder)
        xml = tifffile.tiffcomment(path)
        for key, value in changes.items():
            xml = re.sub(rf' {key}="[^"]*"', f' {key}="{value}"', xml)
        tifffile.tiffcomment(path, xml.encode())
        return path

    return make


def other_compression(folder: Path) -> Path:
    """Write a stack whose last page has another number of samples than the first."""
    path = folder / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in voxels():
            writer.write(plane, metadata=None, contiguous=False, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags["ImageLength"]
    content = bytearray(path.read_bytes())
    content[tag.valueoffset : tag.valueoffset + 4] = (0).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def shaped(*shape: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", voxels(), photometric="minisblack")
        tifffile.tiffcomment(folder / "a.tif", json.dumps({"shape": shape}).encode())
        return folder / "a.tif"

    return make


def nifti(name: str, *shape: int, code: int = 512) -> Callable[[Path], Path]:
    """Return a maker of a NIfTI file of 4 KB whose header names a shape (x, y, z, ...)."""

    def make(folder: Path) -> Path:
        header = nibabel.Nifti1Header()
        header["dim"][: 1 + len(shape)] = [len(shape), *shape]
        header["datatype"], header["bitpix"], header["vox_offset"], header["magic"] = code, 16, 352, b"n+1"
        header["scl_slope"], header["scl_inter"] = 2, 1
        content = header.binaryblock + bytes(4096)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return folder / name

    return make


NESTED = "[" * 100_000
OME = ["attributes", "ome", "multiscales"]
DAMAGED = [
    pytest.param(zarr_text("zarr.json", NESTED), id="zarr-nested"),
    pytest.param(zarr_text("0/zarr.json", NESTED), id="zarr-array-nested"),
    pytest.param(zarr_text(".zattrs", NESTED, 2), id="zarr-2-nested"),
    pytest.param(zarr_text("0/zarr.json", '{"zarr_format": 3, "nod'), id="zarr-cut-short"),
    pytest.param(zarr_with("zarr.json", OME, 1), id="zarr-multiscales-a-number"),
    pytest.param(zarr_with("zarr.json", [*OME, 0], None), id="zarr-multiscale-null"),
    pytest.param(zarr_with("zarr.json", ["attributes"], "x"), id="zarr-attributes-a-word"),
    pytest.param(zarr_with("zarr.json", [*OME, 0, "datasets", 0, "path"], "9" * 400), id="zarr-long-path"),
    pytest.param(zarr_with("zarr.json", [*OME, 0, "datasets", 0, "path"], 1), id="zarr-path-a-number"),
    pytest.param(zarr_with(".zattrs", ["multiscales"], 1, 2), id="zarr-2-multiscales-a-number"),
    pytest.param(zarr_with("0/.zarray", ["chunks"], [0, 8, 8], 2), id="zarr-2-no-chunk"),
    pytest.param(zarr_with("0/.zarray", ["fill_value"], -1, 2), id="zarr-2-fill-value"),
    pytest.param(zarr_with("0/.zarray", ["dtype"], "|S4", 2), id="zarr-2-text"),
    pytest.param(
        zarr_with("0/zarr.json", ["chunk_grid", "configuration", "chunk_shape"], [0, 8, 8]), id="zarr-no-chunk"
    ),
    pytest.param(zarr_with("0/.zarray", ["chunks"], [10**30, 8, 8], 2), id="zarr-2-large-chunk"),
    pytest.param(zarr_with("0/zarr.json", ["shape"], [10**30, 16, 16]), id="zarr-shape-too-large"),
    pytest.param(other_compression, id="tiff-no-rows"),
    pytest.param(nifti("a.nii", 16, 16, 8, code=513), id="nifti-unknown-type"),
    pytest.param(nifti("a.nii", 16, 16, 8, code=128), id="nifti-scaled-colours"),
    pytest.param(nifti("a.nii", -16, 16, 8), id="nifti-negative-length"),
    pytest.param(nifti("a.nii.gz", -16, 16, 8), id="nifti-gz-negative-length"),
]


@pytest.mark.parametrize("make", DAMAGED)
def test_damage_is_refused_in_a_sentence(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(CropeqError, match=re.escape(path.name)) as caught:
        np.asarray(open_image(path).data)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_length_that_is_too_large_to_convert_is_not_known(tmp_path):
    image = open_image(ome_with(PhysicalSizeZ="1e308", PhysicalSizeXUnit="nm")(tmp_path))
    np.testing.assert_array_equal(image.data.compute(), voxels())
    assert image.voxel_size is None


def test_a_page_that_differs_is_an_error_when_it_is_opened(tmp_path, monkeypatch):
    """The errors of tifffile have any type: RuntimeError for an incompatible keyframe, AssertionError for others."""
    path = an_ome_tiff(tmp_path)
    for error in (RuntimeError("incompatible keyframe"), AssertionError(), OverflowError("too\nlarge")):
        monkeypatch.setattr(tifffile.TiffPageSeries, "dataoffset", property(lambda _, error=error: raised(error)))
        with pytest.raises(CropeqError, match=rf"^a\.ome\.tif cannot be read as a TIFF file \({type(error).__name__}"):
            open_image(path)


def raised(error: Exception) -> None:
    raise error


HUGE = [
    pytest.param(lambda f: a_zarr(f, shape=(10**8, 40, 48), chunks=(1, 20, 24)), "100000000", id="zarr-384-gb"),
    pytest.param(lambda f: a_zarr(f, shape=(10**12, 40, 48), chunks=(1, 20, 24)), "3840 TB", id="zarr-4-pb"),
    pytest.param(lambda f: a_zarr(f, shape=(2**62, 40, 48), chunks=(1, 20, 24)), "4611686018427387904", id="zarr-2-62"),
    pytest.param(shaped(10**30, 2 * 10**30, 2 * 10**32), "16×16", id="tiff-4e92-px"),
    pytest.param(shaped(10**12, 16, 16), "512000000000[0-9]+ bytes", id="tiff-512-tb"),
    pytest.param(ome_with(SizeZ=10**8), "100000000 planes, .* [0-9]+ bytes", id="ome-tiff-1e8-planes"),
    pytest.param(ome_with(PlaneCount=10**8), "100000000 planes, .* [0-9]+ bytes", id="ome-tiff-plane-count"),
    pytest.param(ome_with(SizeZ=500, SizeT=500), "lacks 249992 of its 250000 planes", id="ome-tiff-250000-planes"),
    pytest.param(nifti("a.nii", 32767, 32767, 32767, 8), "562898415386960 bytes", id="nifti-512-tib"),
    pytest.param(nifti("a.nii.gz", 2000, 2000, 2000), "16000000352 bytes", id="nifti-gz-16-gb"),
]

OPEN = """
import resource, sys, time
from napari_cropeq.formats.open import open_image
from napari_cropeq.errors import CropeqError, OutOfMemoryError
peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    image = open_image(sys.argv[1])
    image.data[-1, :8].compute()
    text = str(image.data.shape)
except CropeqError as error:
    text = str(error)
print(time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1e3, text)
"""


@pytest.mark.parametrize(("make", "words"), HUGE)
def test_a_small_file_that_claims_much_is_opened_or_refused_at_once(tmp_path, make, words):
    words_of = [sys.executable, "-c", OPEN, str(make(tmp_path))]
    ran = subprocess.run(words_of, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-500:]
    seconds, megabytes, text = ran.stdout.split(" ", 2)
    assert re.search(words, text)
    assert float(seconds) < 8, "processor time; a quiet machine needs less than 2, and 25 before"
    assert float(megabytes) < 500


def pages(folder: Path, others: list[tuple[int, np.ndarray, dict[str, Any]]]) -> Path:
    """Write the voxels as pages, with other pages before the page of a number."""
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        for number, plane in enumerate([*voxels(), None]):
            for _, other, options in (page for page in others if page[0] == number):
                writer.write(other, metadata=None, contiguous=False, photometric="minisblack", **options)
            if plane is not None:
                writer.write(plane, metadata=None, contiguous=False, photometric="minisblack", compression="zlib")
    return folder / "a.tif"


SMALL, SAME = np.ones((8, 8), np.uint16), np.ones(SHAPE[1:], np.uint16)
OTHERS = [
    pytest.param([(8, SMALL, {})], id="thumbnail"),
    pytest.param([(n, SMALL, {"subfiletype": 1}) for n in range(1, 9)], id="reduced-pages"),
]


@pytest.mark.parametrize("others", OTHERS)
def test_pages_that_are_other_images_are_left_out(tmp_path, others):
    image = open_image(pages(tmp_path, others))
    np.testing.assert_array_equal(image.data.compute(), voxels())


@pytest.mark.parametrize("number", [0, 4, 8])
def test_a_page_with_other_compression_is_not_left_out(tmp_path, number):
    path = pages(tmp_path, [(number, SAME, {})])
    words = rf"^a\.tif is damaged: page {number or 1} differs from the pages before it\. Copy"
    with pytest.raises(CropeqError, match=words):
        open_image(path)


def test_a_page_without_data_is_zero_if_it_says_so(tmp_path):
    """GDAL writes neither offset nor length for a page of zeros."""
    path = pages(tmp_path, [])
    with tifffile.TiffFile(path) as file:
        tags = [file.pages[5].tags[name] for name in ("StripOffsets", "StripByteCounts")]
    content = bytearray(path.read_bytes())
    for tag in tags:
        content[tag.valueoffset : tag.valueoffset + 4] = bytes(4)
    path.write_bytes(content)
    expected = voxels()
    expected[5] = 0
    np.testing.assert_array_equal(open_image(path).data.compute(), expected)


def test_memory_that_does_not_suffice_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    image = open_image(a_zarr(tmp_path))
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda *_: raised(MemoryError()))
    with pytest.raises(OutOfMemoryError, match=r"^Memory does not suffice to read a\.ome\.zarr\. "):
        image.data.compute()


def test_a_later_page_in_pieces_is_never_read_in_one(tmp_path):
    """A valid file, as some programs leave it after editing: a strip of the third page has moved to the end."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in voxels():
            writer.write(plane, metadata=None, rowsperstrip=4, photometric="minisblack", contiguous=False)
    with tifffile.TiffFile(path) as file:
        page = file.pages[2]
        start, length, places = page.dataoffsets[2], page.databytecounts[2], page.tags["StripOffsets"]
    content = bytearray(path.read_bytes())
    entry, moved = places.valueoffset + 2 * 4, len(content)
    content += content[start : start + length]
    content[start : start + length] = b"\xee" * length
    assert int.from_bytes(content[entry : entry + 4], "little") == start
    content[entry : entry + 4] = moved.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(CropeqError, match=r"^Page 2 of a\.tif is stored in pieces"):
        open_image(path)
