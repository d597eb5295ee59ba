"""OME-Zarr at an address: only what is needed is read, and nothing is silently wrong."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from files import SIZE, a_model, a_zarr
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import AccessError, ArgumentError, ImageError, SourceChangedError
from napari_cropeq.formats.ome_zarr import remote
from napari_cropeq.formats.open import open_image
from web_server import CUT, DROP, Served, serving

CHUNK = r"/0/c/"


@pytest.fixture
def served(tmp_path: Path):
    """Serve a folder with an image, ``a.zarr`` (8, 20, 40) in two chunks."""
    a_zarr(tmp_path / "a.zarr")
    with serving(tmp_path) as served:
        yield served


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, look at the metadata at each read, and keep no chunk."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(remote, "RECHECK", 0.0)
    monkeypatch.setattr(remote, "KEPT", 0)


def a_sharded(path: Path) -> Path:
    """Write an image (8, 32, 32) of one shard with four chunks."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    data = np.arange(8 * 32 * 32, dtype=np.uint16).reshape(8, 32, 32)
    group.create_array("0", data=data, chunks=(8, 16, 16), shards=(8, 32, 32))
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(SIZE)}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "", "axes": axes, "datasets": datasets}]}
    return path


def version_2(path: Path) -> Path:
    """Write the image of :func:`a_zarr` as OME-Zarr 0.4."""
    new = zarr.open_group(path.with_name("b.zarr"), mode="w", zarr_format=2)
    old = zarr.open_group(path, mode="r")
    new.create_array("0", data=np.asarray(old["0"]), chunks=(8, 20, 20), compressors=numcodecs.Blosc())
    new.attrs.update(old.attrs.asdict()["ome"] | {"version": "0.4"})
    return path.with_name("b.zarr")


def consolidated(path: Path) -> Path:
    """Consolidate the metadata of an image."""
    zarr.consolidate_metadata(path)
    return path


WAYS = [
    pytest.param(lambda path: path, id="0.5"),
    pytest.param(version_2, id="0.4"),
    pytest.param(lambda path: a_sharded(path.with_name("c.zarr")), id="shards"),
    pytest.param(lambda path: consolidated(version_2(path)), id="0.4, consolidated"),
    pytest.param(
        consolidated, id="0.5, consolidated", marks=pytest.mark.filterwarnings("ignore:Consolidated metadata")
    ),
]


@pytest.mark.parametrize("write", WAYS)
def test_an_image_at_an_address_is_that_in_the_folder(served: Served, write) -> None:
    path = write(served.folder / "a.zarr")
    here, there = open_image(path), open_image(f"{served.url}/{path.name}/")
    assert there.path == f"{served.url}/{path.name}" and there.remote and there.files == ()
    assert (there.axes, there.name, there.unit, there.voxel_size) == (here.axes, here.name, here.unit, here.voxel_size)
    assert np.array_equal(there.data.compute(), here.data.compute())


@pytest.mark.parametrize("given", [str, lambda url: f"{url}/", Path, lambda url: url.replace("http", "HTTP")])
def test_an_address_in_any_spelling(served: Served, given) -> None:
    url = f"{served.url}/a.zarr"
    assert open_image(given(url)).path == url


def test_only_what_is_needed_is_read(served: Served) -> None:
    image = open_image(f"{served.url}/a.zarr")
    assert not served.asked(CHUNK), "opening reads no voxel"
    opening = len(served.answers)
    assert opening <= 6
    image.data[2:4, :, 25:30].compute()
    assert served.asked(CHUNK) == 1 and served.asked("c/0/0/1") == 1 and len(served.answers) == opening + 1


ROOM = [
    pytest.param(2, "0101", 2, id="all"),
    pytest.param(1, "00110", 3, id="one"),
    pytest.param(0, "0011", 4, id="none"),
]


@pytest.mark.parametrize("room, read, asked", ROOM)
def test_the_last_objects_are_kept(
    served: Served, monkeypatch: pytest.MonkeyPatch, room: int, read: str, asked: int
) -> None:
    largest = max(file.stat().st_size for file in (served.folder / "a.zarr/0/c/0/0").iterdir())
    monkeypatch.setattr(remote, "KEPT", room * largest)
    data = open_image(f"{served.url}/a.zarr").data
    for chunk in map(int, read):
        data[:, :, 20 * chunk : 20 * chunk + 20].compute()
    assert served.asked(CHUNK) == asked


def test_only_a_part_of_a_shard_is_read(served: Served) -> None:
    path = a_sharded(served.folder / "s.zarr")
    image = open_image(f"{served.url}/s.zarr")
    size = (path / "0/c/0/0/0").stat().st_size
    image.data[:, :16, :16].compute()
    parts = [(status, count) for name, status, count in served.answers if "/0/c/" in name]
    assert len(parts) == 2 and {status for status, _ in parts} == {206}
    assert sum(count for _, count in parts) < size / 2, "the index, and one of four chunks"


def test_a_server_that_gives_only_whole_objects(served: Served) -> None:
    path = a_sharded(served.folder / "s.zarr")
    served.parts = False
    image = open_image(f"{served.url}/s.zarr")
    image.data[:, :16, :16].compute()
    assert np.array_equal(image.data.compute(), open_image(path).data.compute())
    assert served.asked("/0/c/") == 2, "for a part, and for the whole shard, which is kept"


def test_a_chunk_that_does_not_exist_is_fill_value(served: Served) -> None:
    (served.folder / "a.zarr/0/c/0/0/1").unlink()
    image = open_image(f"{served.url}/a.zarr")
    voxels = image.data.compute()
    assert not voxels[:, :, 20:].any() and voxels[:, :, :20].any()


FAILURES = [
    pytest.param(DROP, "no answer", id="dropped"),
    pytest.param(CUT, "no answer", id="cut"),
    pytest.param(503, "503 Service Unavailable", id="503"),
    pytest.param(500, "500 Internal Server Error", id="500"),
]


@pytest.mark.parametrize("status, reason", FAILURES)
@pytest.mark.parametrize("times", [2, 99], ids=["twice", "always"])
def test_failures_are_tried_again_and_are_never_fill_value(
    served: Served, brief: None, caplog: pytest.LogCaptureFixture, status: int, reason: str, times: int
) -> None:
    expected = open_image(served.folder / "a.zarr").data.compute()
    served.fail = lambda path, number: status if "/0/c/" in path and number < times else None
    image = open_image(f"{served.url}/a.zarr")
    with caplog.at_level(logging.WARNING):
        if times == 2:
            assert np.array_equal(image.data.compute(), expected)
            assert len(caplog.messages) == 4 and reason in caplog.text and "trying again in 0.01 s" in caplog.text
        else:
            with pytest.raises(AccessError, match=rf"did not give 0/c/.* in 4 attempts \({reason}"):
                image.data.compute()


@pytest.mark.parametrize("status", [401, 403], ids=str)
def test_a_refusal_is_an_error_at_once(served: Served, brief: None, status: int) -> None:
    served.fail = lambda path, number: status if "/0/c/" in path else None
    image = open_image(f"{served.url}/a.zarr")
    with pytest.raises(AccessError, match=f"refuses to give 0/c/0/0/[01] .*{status}"):
        image.data.compute()
    assert served.asked("c/0/0/0") <= 1


def change_a_chunk(path: Path) -> None:
    (path / "0/c/0/0/0").write_bytes((path / "0/c/0/0/1").read_bytes())


def remove_a_chunk(path: Path) -> None:
    (path / "0/c/0/0/0").unlink()


def change_metadata(path: Path) -> None:
    file = path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"x": 1}))


def remove_all(path: Path) -> None:
    shutil.rmtree(path)


CHANGES = [
    pytest.param(change_a_chunk, "c/0/0/0 was replaced or changed", id="chunk"),
    pytest.param(remove_a_chunk, "c/0/0/0 was removed", id="chunk removed"),
    pytest.param(change_metadata, "zarr.json was replaced or changed", id="metadata"),
    pytest.param(remove_all, "was removed", id="image removed"),
]


@pytest.mark.parametrize("change, message", CHANGES)
def test_a_change_while_it_is_read_is_an_error(served: Served, brief: None, change, message: str) -> None:
    image = open_image(f"{served.url}/a.zarr")
    image.data.compute()
    change(served.folder / "a.zarr")
    with pytest.raises(SourceChangedError, match=message):
        image.data.compute()


def test_a_change_is_noticed_by_size_without_an_etag(served: Served, brief: None) -> None:
    served.tagged = False
    image = open_image(f"{served.url}/a.zarr")
    image.data.compute()
    with (served.folder / "a.zarr/0/c/0/0/0").open("ab") as file:
        file.write(b"more")
    with pytest.raises(SourceChangedError, match="c/0/0/0 was replaced or changed"):
        image.data.compute()


@pytest.mark.parametrize("length", [9, 2000], ids=["in its header", "in its voxels"])
def test_a_chunk_that_is_cut_short_on_the_server_is_an_error(served: Served, length: int) -> None:
    """The library of Blosc reads beyond its end."""
    chunk = version_2(served.folder / "a.zarr") / "0/0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:length])
    image = open_image(f"{served.url}/b.zarr")
    with pytest.raises(AccessError, match=r"0/0\.0\.0 is cut short"):
        image.data.compute()


def test_a_chunk_that_appears_is_an_error(served: Served, brief: None) -> None:
    chunk = served.folder / "a.zarr/0/c/0/0/1"
    content = chunk.read_bytes()
    chunk.unlink()
    image = open_image(f"{served.url}/a.zarr")
    image.data.compute()
    chunk.write_bytes(content)
    with pytest.raises(SourceChangedError, match="c/0/0/1 was added"):
        image.data.compute()


WRONG = [
    pytest.param("/nothing.zarr", ImageError, "no OME-Zarr image at http.*other formats", id="nothing"),
    pytest.param("/a.zarr/0", ImageError, "no OME-Zarr image at|without 'multiscales'", id="an array"),
]


@pytest.mark.parametrize("path, error, message", WRONG)
def test_what_is_not_an_image_is_an_error(served: Served, path: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_image(served.url + path)


def test_a_server_that_does_not_answer_is_an_error(brief: None) -> None:
    with pytest.raises(AccessError, match=r"did not give \.?z\w+(\.json)? in 4 attempts \(no answer\)"):
        open_image("http://127.0.0.1:9/a.zarr")
    with pytest.raises(ArgumentError, match="not an address"):
        open_image("http://[x/a.zarr")
    with pytest.raises(ArgumentError, match="Addresses start with http"):
        open_image("ftp://127.0.0.1/a.zarr")
    with pytest.raises(ArgumentError, match="which its objects would not get"):
        open_image("http://127.0.0.1:9/a.zarr?token=1")


STORES = [
    pytest.param("s3://bucket/a.zarr", lambda url, folder: {"AWS_ENDPOINT_URL": url}, id="s3"),
    pytest.param("gs://bucket/a.zarr", lambda url, folder: {"GOOGLE_SERVICE_ACCOUNT": account(url, folder)}, id="gs"),
]


def account(url: str, folder: Path) -> str:
    """Write a service account for a store at ``url`` that asks for no keys."""
    path = folder / "account.json"
    record = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    path.write_text(json.dumps(record))
    return str(path)


@pytest.mark.parametrize("address, environment", STORES)
def test_object_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, environment) -> None:
    a_zarr(tmp_path / "bucket" / "a.zarr")
    with serving(tmp_path) as served:
        for name, value in environment(served.url, tmp_path).items():
            monkeypatch.setenv(name, value)
        there = open_image(address).data.compute()
    assert np.array_equal(there, open_image(tmp_path / "bucket" / "a.zarr").data.compute())


def test_tiles_have_the_bits_of_those_from_the_folder(served: Served) -> None:
    here, there = (
        SuperResolution(open_image(place), a_model(), device="cpu")
        for place in (served.folder / "a.zarr", f"{served.url}/a.zarr")
    )
    box = Box((3, 2, 5), (20, 18, 33))
    assert np.array_equal(here.compute((), box), there.compute((), box))
