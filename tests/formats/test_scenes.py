"""Files with several images: plates, collections and TIFF series."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import zarr

from files import a_collection, a_plate, a_tiff, a_zarr
from napari_cropeq.errors import ArgumentError, CropeqError, ImageError
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.open import open_image
from web_server import serving


def field(path: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(path / name / "0"))


SCENES = [
    pytest.param(a_plate, "p.ome.zarr", "A/1/1", "A/1/1", "p_A_1_1", id="plate"),
    pytest.param(a_plate, "p.zarr", "B/3/0", "B/3/0", "p_B_3_0", id="plate, another well"),
    pytest.param(lambda path: a_plate(path) / "A/1", "p.zarr", 1, "1", "p_A_1_1", id="well"),
    pytest.param(a_collection, "c.zarr", "1", "1", "c_1", id="collection"),
    pytest.param(a_collection, "c.zarr", 2, "2", "c_2", id="collection, by number"),
    pytest.param(a_collection, "c.zarr", None, "0", "c", id="collection, by default"),
    pytest.param(
        lambda path: a_collection(path, ("x", "y"), ("y", "x")), "c.zarr", 1, "x", "c_x", id="collection with a list"
    ),
]


@pytest.mark.parametrize("write, file, scene, inside, name", SCENES)
def test_a_scene_of_a_zarr_group_is_the_image_at_its_path(tmp_path: Path, write, file, scene, inside, name) -> None:
    path = write(tmp_path / file)
    image = open_image(path, scene=scene)
    assert image.path == str(path / inside) and image.name == name and image.scene == ""
    assert np.array_equal(image.data.compute(), field(path, inside))
    again = open_image(image.path)
    assert np.array_equal(again.data.compute(), image.data.compute())
    assert again.name == (name if scene is not None else f"{name}_{inside}")


@pytest.mark.parametrize("scene, number", [("second", 1), (1, 1), ("1", 1), ("first", 0), (None, 0)])
def test_a_series_of_a_tiff_file(tmp_path: Path, scene, number: int) -> None:
    image = open_image(a_tiff(tmp_path / "a.ome.tif"), scene=scene)
    expected = np.random.default_rng(number).integers(0, 999, (5, 20, 30), dtype=np.uint16)
    assert np.array_equal(image.data.compute(), expected) and image.voxel_size == (number + 2.0, 0.5, 0.5)
    assert image.scenes == ("first", "second") and image.scene == image.scenes[number]
    assert image.name == ("a" if scene is None else f"a_{image.scene}")
    assert image.describe()["scene"] == image.scene and image.path == str(tmp_path / "a.ome.tif")


def test_the_other_images_are_named_where_the_first_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = a_tiff(tmp_path / "a.ome.tif")
    with caplog.at_level(logging.WARNING):
        open_image(path)
    said = "a.ome.tif has 2 images (first, second); the first is read. Choose another with --scene."
    assert caplog.messages == [said]
    caplog.clear()
    open_image(path, scene="first")
    assert not caplog.messages


WRONG = [
    pytest.param(a_plate, None, ImageError, r"plate of 3 wells \(A/1 to B/4\).* such as A/1/0", id="plate"),
    pytest.param(
        a_plate, "A/1/7", ArgumentError, "no field A/1/7. The well A/1 has the fields A/1/0, A/1/1", id="field"
    ),
    pytest.param(a_plate, "C/1/0", ArgumentError, "no field C/1/0. Its wells are A/1, B/3, B/4", id="well"),
    pytest.param(a_plate, "B/4/0", ArgumentError, "The well B/4 has the fields none", id="empty well"),
    pytest.param(a_collection, "7", ArgumentError, "no scene '7'. Its scenes are 0, 1, 2", id="collection"),
    pytest.param(a_tiff, "third", ArgumentError, "no scene 'third'. Its scenes are first, second", id="tiff"),
    pytest.param(a_zarr, "0", None, "", id="one image, the first"),
    pytest.param(a_zarr, 1, ArgumentError, "no scene 1. It has one image", id="one image"),
]


@pytest.mark.parametrize("write, scene, error, message", WRONG)
def test_a_wrong_scene_is_an_error(tmp_path: Path, write, scene, error: type[CropeqError] | None, message: str) -> None:
    path = write(tmp_path / ("a.ome.tif" if write is a_tiff else "a.zarr"))
    if error is None:
        assert open_image(path, scene=scene).data.shape == (8, 20, 40)
        return
    with pytest.raises(error, match=message) as found:
        open_image(path, scene=scene)
    assert found.value.setting == "scene"


def labels(path: Path) -> Path:
    """Write an image with labels, and return the folder of the labels."""
    a_zarr(path)
    zarr.open_group(path).create_group("labels").attrs["ome"] = {"version": "0.5", "labels": ["nuclei"]}
    a_zarr(path / "labels" / "nuclei")
    return path / "labels"


def test_a_folder_of_labels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"holds the labels of an image\. Open the image itself"):
        open_image(labels(tmp_path / "a.zarr"))


def test_labels_beside_an_image_are_ignored(tmp_path: Path) -> None:
    image = labels(tmp_path / "a.zarr").parent
    assert np.array_equal(open_image(image).data.compute(), field(image, ""))
    assert find_images([tmp_path]) == [image]


def test_a_batch_takes_every_field_and_every_image(tmp_path: Path) -> None:
    plate, collection = a_plate(tmp_path / "p.zarr"), a_collection(tmp_path / "c.zarr")
    fields = [plate / "A/1/0", plate / "A/1/1", plate / "B/3/0"]
    assert find_images([plate]) == fields
    assert find_images([tmp_path]) == [*(collection / name for name in "012"), *fields]
    assert find_images([plate, collection], each=False) == [plate, collection]
    assert [open_image(path).name for path in fields] == ["p_A_1_0", "p_A_1_1", "p_B_3_0"]


def test_a_plate_at_an_address(tmp_path: Path) -> None:
    plate = a_plate(tmp_path / "p.zarr")
    with serving(tmp_path) as served:
        url = f"{served.url}/p.zarr"
        assert find_images([url]) == [f"{url}/A/1/0", f"{url}/A/1/1", f"{url}/B/3/0"]
        image = open_image(url, scene="B/3/0")
        assert image.path == f"{url}/B/3/0" and image.name == "p_B_3_0"
        assert np.array_equal(image.data.compute(), field(plate, "B/3/0"))
