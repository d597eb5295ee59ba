"""Files that bioio reads, with axes, scenes, voxel size and channels; and what has to be installed to read them."""

from __future__ import annotations

import os
import pickle
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from files import a_stack, a_tiff
from napari_cropeq.errors import (
    AccessError,
    ArgumentError,
    ImageError,
    MissingPackageError,
    SourceChangedError,
)
from napari_cropeq.formats import bioio
from napari_cropeq.formats import open as opening
from napari_cropeq.formats.bioio import PLUGINS, _scenes
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import SUFFIXES, open_image
from vendor_files import a_dv, a_lif, a_nd2, an_ims

DATA = np.random.default_rng(0).integers(0, 6000, (2, 2, 6, 40, 50), dtype=np.uint16)  # t, c, z, y, x
STEPS = (0.5, 0.1083, 0.1083)


def lif(path: Path) -> Path:
    return a_lif(path, {"first": DATA, "second": DATA[:1, :1, ::-1]})


FILES = [
    pytest.param(
        lambda folder: lif(folder / "a.lif"),
        DATA,
        STEPS,
        {"axes": "tczyx", "channel_names": ("Green", "Red"), "scenes": ("first", "second")},
        id="LIF",
    ),
    pytest.param(
        lambda folder: a_nd2(folder / "a.nd2", DATA, STEPS),
        DATA,
        STEPS,
        {
            "axes": "tczyx",
            "channel_names": ("DAPI", "GFP"),
            "channel_colors": ("#0000ff", "#00ff00"),
            "time_step": 2.5,
            "time_unit": "second",
        },
        id="ND2",
    ),
    pytest.param(
        lambda folder: an_ims(folder / "a.ims", DATA, STEPS),
        DATA,
        STEPS,
        {
            "axes": "tczyx",
            "channel_names": ("DAPI", "GFP"),
            "channel_colors": ("#0000ff", "#00ff00"),
            "time_step": 5.0,
            "time_unit": "second",
        },
        id="IMS",
    ),
    pytest.param(
        lambda folder: a_dv(folder / "a.dv", DATA[0], (0.5, 0.125, 0.125)),
        DATA[0],
        (0.5, 0.125, 0.125),
        {"axes": "czyx", "channel_names": ()},
        id="DV",
    ),
]


@pytest.mark.parametrize("write, data, size, facts", FILES)
def test_a_file_of_a_microscope(tmp_path: Path, write, data: np.ndarray, size: tuple, facts: dict) -> None:
    path = write(tmp_path)
    image = open_image(path)
    assert image.voxel_size == pytest.approx(size) and image.unit == "micrometer"
    assert {name: getattr(image, name) for name in facts} == facts
    assert (image.name, image.path) == ("a", str(path))
    assert np.array_equal(image.data.compute(), data)
    assert np.array_equal(image.data[..., 2:4, 1, ::-3].compute(), data[..., 2:4, 1, ::-3])
    again: Image = pickle.loads(pickle.dumps(image))  # as worker processes open it
    assert np.array_equal(again.data.compute(), data)


def test_the_levels_of_a_pyramid(tmp_path: Path) -> None:
    image = open_image(an_ims(tmp_path / "a.ims", DATA))
    (coarser,) = image.coarser
    assert np.array_equal(coarser.compute(), DATA[..., ::2, ::2])
    assert np.array_equal(pickle.loads(pickle.dumps(coarser)).compute(), DATA[..., ::2, ::2])


@pytest.mark.parametrize("scene, number", [("second", 1), (1, 1), ("1", 1), ("first", 0), (None, 0)])
def test_a_scene(tmp_path: Path, scene: str | int | None, number: int) -> None:
    path = lif(tmp_path / "a.lif")
    image = open_image(path, scene=scene)
    expected = (DATA, DATA[0, 0, ::-1])[number]
    assert np.array_equal(image.data.compute(), expected) and image.scene == image.scenes[number]
    assert np.array_equal(pickle.loads(pickle.dumps(image)).data.compute(), expected)
    assert image.name == ("a" if scene is None else f"a_{image.scene}")


NAMES = [
    pytest.param(("Series 1", "Series 2"), ("Series 1", "Series 2"), id="names"),
    pytest.param(("well", "well"), ("0", "1"), id="one name"),
    pytest.param(("", "b"), ("0", "1"), id="no name"),
    pytest.param(("Image:0",), (), id="one image"),
]


@pytest.mark.parametrize("names, scenes", NAMES)
def test_the_names_of_scenes_are_unique(names: tuple[str, ...], scenes: tuple[str, ...]) -> None:
    assert _scenes(SimpleNamespace(scenes=names)) == scenes


def test_a_wrong_scene_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"no scene 'third'\. Its scenes are first, second\.") as found:
        open_image(lif(tmp_path / "a.lif"), scene="third")
    assert found.value.setting == "scene"


AXES = [
    pytest.param({"axes": "ZYX"}, (5, 20, 30), id="zyx"),
    pytest.param(
        {"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP"], "Color": [255, 65535]}}, (2, 5, 20, 30), id="czyx"
    ),
    pytest.param({"axes": "TZYX", "TimeIncrement": 2.5, "TimeIncrementUnit": "s"}, (3, 5, 20, 30), id="tzyx"),
    pytest.param({"axes": "TCZYX", "TimeIncrement": 90.0, "TimeIncrementUnit": "ms"}, (3, 2, 5, 20, 30), id="tczyx"),
    pytest.param({"axes": "ZCYX"}, (5, 2, 20, 30), id="another order"),
    pytest.param({"axes": "ZYX", **{f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}}, (5, 20, 30), id="nanometers"),
    pytest.param({"axes": "ZYX", "PhysicalSizeZ": None}, (5, 20, 30), id="no voxel size"),
]


def with_bioio(path: Path, monkeypatch: pytest.MonkeyPatch, **options) -> Image:
    """Open an OME-TIFF as if this package could not."""
    with monkeypatch.context() as patch:
        patch.delitem(opening._READERS, ".ome.tif")
        return open_image(path, **options)


OLD_CALL = pytest.mark.filterwarnings("ignore:As of version 0.4.0, the parser argument is ignored")  # in bioio-ome-tiff


@OLD_CALL
@pytest.mark.parametrize("metadata, shape", AXES)
def test_an_ome_tiff_as_our_own_reader_reads_it(tmp_path: Path, monkeypatch, metadata: dict, shape: tuple) -> None:
    steps = {"PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25} | metadata
    data = np.random.default_rng(1).integers(0, 999, shape, dtype=np.uint16)
    path = tmp_path / "a.ome.tif"
    known = {name: value for name, value in steps.items() if value is not None}
    tifffile.imwrite(path, data, photometric="minisblack", ome=True, metadata=known)
    ours, theirs = open_image(path), with_bioio(path, monkeypatch)
    assert np.array_equal(theirs.data.compute(), ours.data.compute())
    alike = "axes", "voxel_size", "unit", "channel_names", "time_step", "time_unit", "scene", "scenes", "name"
    assert {name: getattr(theirs, name) for name in alike} == {name: getattr(ours, name) for name in alike}
    assert theirs.channel_colors == ours.channel_colors


@OLD_CALL
def test_an_ome_tiff_of_several_images(tmp_path: Path, monkeypatch) -> None:
    path = a_tiff(tmp_path / "a.ome.tif")
    for number in range(2):
        ours, theirs = open_image(path, scene=number), with_bioio(path, monkeypatch, scene=number)
        assert np.array_equal(theirs.data.compute(), ours.data.compute())
        assert theirs.voxel_size == ours.voxel_size and len(theirs.scenes) == 2


def test_only_the_planes_of_a_box_are_read(tmp_path: Path) -> None:
    path = a_lif(tmp_path / "a.lif", {"a": DATA})
    path.write_bytes(path.read_bytes()[: -DATA[0, 0, 0].nbytes])  # the last plane is missing
    image = open_image(path)
    assert np.array_equal(image.data[-1, -1, :-1].compute(), DATA[-1, -1, :-1])
    with pytest.raises(AccessError, match=r"^a\.lif cannot be read any further \(.*\): the file is damaged\."):
        image.data[-1, -1, -1].compute()


def test_of_very_many_planes_volumes_are_read(tmp_path: Path, monkeypatch) -> None:
    path = lif(tmp_path / "a.lif")
    assert open_image(path).data.chunksize == (1, 1, 1, 40, 50)
    monkeypatch.setattr(bioio, "PLANES", 23)  # one less
    image = open_image(path)
    assert image.data.chunksize == (1, 1, 6, 40, 50) and np.array_equal(image.data.compute(), DATA)


def test_opening_a_large_file_reads_none_of_it(tmp_path: Path) -> None:
    path = a_dv(tmp_path / "a.dv", DATA[0])
    header = bytearray(path.read_bytes()[:1024])
    header[:12] = np.array([4096, 4096, 10], "<i4").tobytes()  # x, y and planes
    header[196:198] = (1).to_bytes(2, "little")  # channels
    path.write_bytes(header)
    os.truncate(path, 1024 + 2 * 10 * 4096**2)  # 336 MB of zeros that the disk does not store
    tracemalloc.start()
    try:
        image = open_image(path)
        assert not image.data[3, :2, :2].compute().any()
        assert image.data.shape == (10, 4096, 4096) and tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write, data, size, facts", FILES)
def test_several_threads_read_at_once(tmp_path: Path, write, data: np.ndarray, size: tuple, facts: dict) -> None:
    image = open_image(write(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(lambda z: image.data[..., z % 6, :, :].compute(scheduler="sync"), range(60)))
    assert all(np.array_equal(plane, data[..., z % 6, :, :]) for z, plane in enumerate(planes))


@pytest.mark.parametrize("write, data, size, facts", FILES)
def test_a_damaged_file_is_an_error_or_read_rightly(tmp_path: Path, write, data, size, facts) -> None:
    path = write(tmp_path)
    content = path.read_bytes()
    for part in (0.0, 0.01, 0.5, 0.9):
        path.write_bytes(content[: int(part * len(content))])
        try:
            assert np.array_equal(open_image(path).data.compute(), data) and part == 0.9  # other parts lie at the end
        except (ImageError, AccessError) as error:
            assert error.problem.startswith(path.name) and error.remedy
    path.write_bytes(b"no image" * 1000)
    with pytest.raises(
        ImageError, match=r"cannot be read by bioio \(bioio-.*: .*\): it is damaged or of another format"
    ):
        open_image(path)


def test_a_file_that_changes_is_an_error(tmp_path: Path) -> None:
    path = lif(tmp_path / "a.lif")
    image = open_image(path)
    lif(path)
    with pytest.raises(SourceChangedError, match=r"^a\.lif has changed since it was opened"):
        image.data[0, 0, 0].compute()


INSTALL = 'pip install "napari-cropeq[bioio]"'
WITHOUT = [
    pytest.param("a.lif", [f"{INSTALL} bioio-lif"], id="LIF"),
    pytest.param("a.ND2", [f"{INSTALL} bioio-nd2"], id="ND2, upper case"),
    pytest.param("a.czi", [f"{INSTALL} bioio-czi (licence: GPL), or: {INSTALL} bioio-openreadout"], id="CZI"),
    pytest.param("a.ims", [f"{INSTALL} bioio-openreadout"], id="IMS"),
    pytest.param("a.sld", [f"{INSTALL} bioio-bioformats (runs Bio-Formats, licence: GPL, in Java)"], id="SlideBook 5"),
]


@pytest.mark.parametrize("name, said", WITHOUT)
def test_without_bioio_its_installation_is_named(tmp_path: Path, monkeypatch, name: str, said: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)  # as if it were not installed
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(MissingPackageError) as found:
        open_image(tmp_path / name)
    assert found.value.problem == f"{name} is read by bioio, which is not installed."
    assert all(text in found.value.remedy for text in said)


PLUGIN = [
    pytest.param("a.dm3", "bioio-bioformats (runs Bio-Formats, licence: GPL, in Java)", id="DM3"),
    pytest.param("a.sldy", "bioio-sldy (needs Python 3.13 or newer)", id="SlideBook"),
]


@pytest.mark.parametrize("name, command", PLUGIN)
def test_a_missing_plugin_is_named(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(MissingPackageError) as found:
        open_image(tmp_path / name)
    package = command.split()[0]
    assert str(found.value) == (
        f"{name} is read by bioio with {package}, which is not installed. Install it with: pip install {command}"
    )


@pytest.mark.parametrize("bioio", [True, False])
def test_what_nobody_reads(tmp_path: Path, monkeypatch, bioio: bool) -> None:
    if not bioio:
        monkeypatch.setitem(sys.modules, "bioio", None)
    (tmp_path / "a.xyz").write_bytes(b"content")
    known = ", ".join(SUFFIXES)
    with pytest.raises(ImageError, match=rf"^a\.xyz is of an unknown type\. Known types are {known}\. Save it as"):
        open_image(tmp_path / "a.xyz")


def test_a_batch_takes_what_bioio_reads(tmp_path: Path) -> None:
    images = [lif(tmp_path / "a.lif"), a_stack(tmp_path / "b.ome.tif")]
    for name in ("notes.txt", "c.sldy"):  # no image; no plugin
        (tmp_path / name).write_bytes(b"content")
    assert find_images([tmp_path]) == images


def test_every_plugin_is_named_for_a_suffix() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in PLUGINS)
    assert not set(PLUGINS) & set(SUFFIXES)
