"""A file of an image that is replaced, changed or removed while it is read ends the reading with a sentence."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_cropeq.api.image import image_of
from napari_cropeq.errors import SourceChangedError
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import FOLDER

SHAPE, CHUNKS, SHARDS = (16, 16, 32), (8, 8, 8), (8, 16, 16)
GONE = r"was removed|was changed"
FIRST, LAST = (slice(0, 2), slice(0, 8), slice(0, 8)), (slice(14, 16), slice(8, 16), slice(24, 32))


def volume(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 4000, SHAPE).astype(np.uint16)


def a_tiff(path: Path, seed: int = 0, **options) -> Path:
    tifffile.imwrite(path, volume(seed), photometric="minisblack", metadata={"axes": "ZYX"}, **options)
    return path


def a_nifti(path: Path, seed: int = 0) -> Path:
    nibabel.save(nibabel.Nifti1Image(volume(seed).T, np.eye(4)), path)
    return path


def a_zarr(path: Path, seed: int = 0, version: int = 3, voxels: np.ndarray | None = None, **options) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    voxels = volume(seed) if voxels is None else voxels
    group.create_array("0", shape=SHAPE, dtype="uint16", chunks=CHUNKS, fill_value=0, **options)[:] = voxels
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [4.0, 1.0, 1.0]}]}]
    image = {"version": "0.5" if version == 3 else "0.4", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group.attrs.update({"ome": image} if version == 3 else image)
    return path


MAKE: dict[str, Callable[..., Path]] = {
    "a.tif": a_tiff,
    "deflate.tif": lambda path, seed=0: a_tiff(path, seed, compression="zlib"),
    "a.nii": a_nifti,
    "a.nii.gz": a_nifti,
    "a.ome.zarr": a_zarr,
    "sharded.ome.zarr": lambda path, seed=0: a_zarr(path, seed, shards=SHARDS),
    "v2.ome.zarr": lambda path, seed=0: a_zarr(path, seed, version=2),
    "flat.zarr": lambda path, seed=0: a_zarr(
        path, seed, version=2, chunk_key_encoding={"name": "v2", "separator": "."}
    ),
}
ZARR = [name for name in MAKE if name.endswith(".zarr")]


def opened(path: Path) -> Image:
    """Return an image of which a part was read."""
    image = open_image(path)
    np.testing.assert_array_equal(image.data[FIRST].compute(), volume()[FIRST])
    time.sleep(0.02)  # file systems count time in steps of 4 ms
    return image


def check_stops(image: Image, what: str) -> None:
    """Check that neither a part that was read nor one that was not can be read any more."""
    for box in (LAST, FIRST):
        with pytest.raises(SourceChangedError, match=rf"^{re.escape(Path(image.path).name)} has changed .*{what}"):
            image.data[box].compute()


@pytest.mark.parametrize("name", MAKE)
def test_replaced(tmp_path, name):
    image = opened(MAKE[name](tmp_path / name))
    other = MAKE[name](tmp_path / f"other-{name}", seed=1)
    if other.is_dir():
        shutil.rmtree(tmp_path / name)
    os.replace(other, tmp_path / name)
    check_stops(image, "was replaced or changed")
    with pytest.raises(SourceChangedError):
        image.check_unchanged()


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ZARR])
def test_written_in_place(tmp_path, name):
    image, old = opened(MAKE[name](tmp_path / name)), (tmp_path / name).stat().st_mtime_ns
    content = MAKE[name](tmp_path / f"other-{name}", seed=1).read_bytes()
    (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / name, ns=(old + 10**6, old + 10**6))
    check_stops(image, "was replaced or changed")


@pytest.mark.parametrize("name", MAKE)
def test_removed(tmp_path, name):
    path = MAKE[name](tmp_path / name)
    image = opened(path)
    path.rename(tmp_path / "elsewhere")
    check_stops(image, "was removed")


def chunks_of(path: Path) -> list[Path]:
    metadata = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
    return sorted(file for file in (path / "0").rglob("*") if file.is_file() and file.name not in metadata)


@pytest.mark.parametrize("name", ZARR)
@pytest.mark.parametrize("which", [0, -1], ids=["a chunk that was read", "a chunk that was not"])
def test_a_chunk_that_disappears_is_not_fill_value(tmp_path, name, which):
    """The last chunk lies in a folder that was never listed; with flat names, in one that was."""
    path = MAKE[name](tmp_path / name)
    image = opened(path)
    chunks_of(path)[which].unlink()
    with pytest.raises(SourceChangedError, match=GONE):
        image.data[FIRST if which == 0 else LAST].compute()


@pytest.mark.parametrize("name", ZARR)
def test_all_chunks_disappear(tmp_path, name):
    path = MAKE[name](tmp_path / name)
    image = opened(path)
    for chunk in chunks_of(path):
        chunk.unlink()
    for folder in sorted((path / "0").rglob("*"), reverse=True):
        if folder.is_dir():
            folder.rmdir()
    for box in (LAST, FIRST):
        with pytest.raises(SourceChangedError, match=GONE):
            image.data[box].compute()


@pytest.mark.parametrize("name", ZARR)
def test_a_chunk_that_is_replaced(tmp_path, name):
    path = MAKE[name](tmp_path / name)
    image = opened(path)
    first = chunks_of(path)[0]
    os.replace(chunks_of(MAKE[name](tmp_path / "other.zarr", seed=1))[0], first)
    np.testing.assert_array_equal(image.data[LAST].compute(), volume()[LAST])
    with pytest.raises(SourceChangedError, match="was replaced or changed"):
        image.data[FIRST].compute()


def test_a_chunk_that_appears(tmp_path):
    """An acquisition that is still being written."""
    path = a_zarr(tmp_path / "a.zarr")
    last = chunks_of(path)[-1]
    last.rename(tmp_path / "later")
    image = opened(path)
    assert not image.data[LAST].compute().any()
    (tmp_path / "later").rename(last)
    with pytest.raises(SourceChangedError, match="was added"):
        image.data[LAST].compute()


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_that_was_never_there_is_fill_value(tmp_path, version):
    voxels = volume()
    voxels[8:] = 0
    path = a_zarr(tmp_path / "a.zarr", version=version, voxels=voxels, config={"write_empty_chunks": False})
    assert len(chunks_of(path)) == 8
    np.testing.assert_array_equal(open_image(path).data.compute(), voxels)


def test_a_result_that_is_being_computed_may_change(tmp_path):
    path = a_zarr(tmp_path / "a.zarr")
    (path / FOLDER).mkdir()
    last = chunks_of(path)[-1]
    last.rename(tmp_path / "later")
    image = opened(path)
    assert not image.data[LAST].compute().any()
    (tmp_path / "later").rename(last)
    for metadata in [path / "zarr.json", path / "0" / "zarr.json"]:
        os.utime(metadata, ns=(0, 0))
    np.testing.assert_array_equal(image.data[LAST].compute(), volume()[LAST])
    path.rename(tmp_path / "b.zarr")
    image.check_unchanged()


@pytest.mark.parametrize("index", [(0,), (slice(None, None, -3), [3, 1], 5), (slice(4, 4),)], ids=str)
def test_every_index_of_an_array_of_a_caller(tmp_path, index):
    array = zarr.open_array(a_zarr(tmp_path / "a.zarr") / "0", mode="r")
    data = image_of(array).data
    np.testing.assert_array_equal(data[index].compute(), volume()[index])
    time.sleep(0.02)  # file systems count time in steps of 4 ms
    chunks_of(tmp_path / "a.zarr")[0].unlink()
    with pytest.raises(SourceChangedError, match=r"^0 has changed"):
        data[FIRST].compute()


@pytest.mark.parametrize("name", MAKE)
def test_a_pickled_image_can_be_read(tmp_path, name):
    image = pickle.loads(pickle.dumps(opened(MAKE[name](tmp_path / name))))
    np.testing.assert_array_equal(image.data.compute(), volume())
    image.check_unchanged()
