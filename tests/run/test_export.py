"""Export of whole volumes: bits, positions of voxels, and the files after a failure."""

from __future__ import annotations

import os
import re
from contextlib import closing

import numpy as np
import pytest
import tensorstore
import tifffile
import yaozarrs
import zarr
from ome_zarr_models.v05 import Image

from conftest import a_result, textured_volume
from napari_cropeq.compute.fill import TileFiller
from napari_cropeq.compute.scheduler import Scheduler
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core import normalisation
from napari_cropeq.core.devices.transfer import convert
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import ArgumentError, ImageError
from napari_cropeq.formats import ome_tiff, pyramid
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import output_kind
from napari_cropeq.run import export as exporting
from napari_cropeq.run.estimate import Estimate
from napari_cropeq.run.export import ExportProgress, export
from napari_cropeq.store import folder
from napari_cropeq.store.memory import MemoryStore

FILES = [pytest.param(name, id=name[4:]) for name in ("out.ome.zarr", "out.ome.tif")]


def run(result, path, **options) -> None:
    for _ in export(result, path, **options):
        pass


def stored(path) -> np.ndarray:
    return np.asarray(open_image(path).data)


def whole(result, leading=()) -> np.ndarray:
    return result.compute(leading, Box.whole(result.sr_shape))


def names(folder) -> list[str]:
    return [name for name in every_name(folder) if not name.startswith(".")]


def every_name(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("tile", [None, 64, 48, 33], ids=str)
@pytest.mark.parametrize("dtype", ["source", "float32"])
@pytest.mark.parametrize("name", FILES)
def test_the_file_is_the_whole_result_bit_for_bit(tmp_path, name, dtype, tile):
    result = a_result(textured_volume((20, 50, 70)), dtype=dtype)
    run(result, tmp_path / name, tile=tile)
    found = stored(tmp_path / name)
    assert found.dtype == ("uint16" if dtype == "source" else "float32")
    assert np.array_equal(found, whole(result))
    assert not np.array_equal(found, result.interpolated((), Box.whole(result.sr_shape))), "not the interpolation"
    assert names(tmp_path) == [name]


def test_both_planes(tmp_path):
    one, both = (a_result(textured_volume((10, 40, 50)), planes=planes, dtype="float32") for planes in ("y", "both"))
    run(both, tmp_path / "out.ome.zarr", tile=33)
    found = stored(tmp_path / "out.ome.zarr")
    assert np.array_equal(found, whole(both))
    assert not np.array_equal(found, whole(one))


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
def test_any_axial_axis(tmp_path, axial):
    size = [0.5, 0.5, 0.5]
    size[axial] = 1.25
    result = a_result(np.moveaxis(textured_volume((12, 40, 50)), 0, axial), voxel_size=tuple(size))
    run(result, tmp_path / "out.ome.zarr", tile=33)
    source = open_image(tmp_path / "out.ome.zarr")
    assert source.data.shape[axial] == 30 and source.voxel_size == pytest.approx((0.5,) * 3)
    assert np.array_equal(np.asarray(source.data), whole(result))


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FILES)
def test_every_dtype_is_kept(tmp_path, name, dtype):
    volume = textured_volume((8, 20, 40)).astype(np.float64) - 1500
    kind = np.dtype(dtype)
    if kind.kind in "ui":
        limits = np.iinfo(kind)
        volume = np.clip(volume / (16 if kind.itemsize == 1 else 1), limits.min, limits.max)
    result = a_result(volume.astype(kind))
    run(result, tmp_path / name)
    found = stored(tmp_path / name)
    assert found.dtype == kind
    assert np.array_equal(found, whole(result))
    if kind.kind in "ui":
        exact = a_result(volume.astype(kind), dtype="float32")
        unrounded = whole(exact)
        assert np.array_equal(found, np.clip(np.rint(unrounded.astype(float)), limits.min, limits.max).astype(kind))
        if kind.itemsize == 1:
            assert unrounded.max() > limits.max and found.max() == limits.max, "clipped, not wrapped"


LEADS = [
    pytest.param("czyx", (2,), id="channels"),
    pytest.param("tzyx", (3,), id="times"),
    pytest.param("tczyx", (2, 3), id="times-and-channels"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("axes", "leading"), LEADS)
def test_channels_and_times(tmp_path, axes, leading, name):
    data = np.stack([textured_volume((8, 20, 40), seed) for seed in range(int(np.prod(leading)))])
    named = {"channel_names": ("nuclei",), "channel_colors": ("#ff0080",)} if "c" in axes else {}
    result = a_result(data.reshape(*leading, 8, 20, 40), axes, **named)
    run(result, tmp_path / name, tile=33)
    source = open_image(tmp_path / name)
    assert (source.axes, source.data.shape) == (axes, (*leading, 20, 20, 40))
    if "c" in axes:
        assert source.channel_names == ("nuclei", *(f"channel {n}" for n in range(1, leading[-1])))
        assert source.channel_colors == ("#ff0080", *("#ffffff",) * (leading[-1] - 1))
    found = np.asarray(source.data)
    for index in np.ndindex(*leading):
        assert np.array_equal(found[index], whole(result, index))


PLACES = [
    pytest.param((2.5, 1.0, 1.0), (0.0, 0.0, 0.0), "micrometer", id="origin"),
    pytest.param((1.0, 0.411, 0.411), (100.5, -20.25, 7.125), "micrometer", id="paper-moved"),
    pytest.param((1.0, 0.997, 3.0), (-5.0, 6.0, -7.0), "millimeter", id="axial-x-mm"),
    pytest.param((0.2, 0.8, 0.2), (1.0, 2.0, 3.0), "nanometer", id="axial-y-nm"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("voxel_size", "translate", "unit"), PLACES)
def test_positions_of_voxels(tmp_path, voxel_size, translate, unit, name):
    """World coordinates of SR voxel centres, from the faces of the source's first voxel outwards."""
    axial = int(np.argmax(voxel_size))
    volume = np.moveaxis(textured_volume((9, 24, 40)), 0, axial)
    result = a_result(volume, voxel_size=voxel_size, translate=translate, unit=unit)
    run(result, tmp_path / name)
    source = open_image(tmp_path / name)
    assert source.unit == unit
    lateral = np.mean([v for a, v in enumerate(voxel_size) if a != axial])
    for axis in range(3):
        step = lateral if axis == axial else voxel_size[axis]
        face = translate[axis] - voxel_size[axis] / 2
        expected = face + step * (np.arange(source.data.shape[axis]) + 0.5)
        found = source.translate[axis] + source.voxel_size[axis] * np.arange(source.data.shape[axis])
        assert np.abs(found - expected).max() < 1e-6 * step
        far = translate[axis] + voxel_size[axis] * (volume.shape[axis] - 0.5)
        assert far - step < found[-1] + step / 2 <= far + 1e-6, "both end at the same face, to a voxel"


def halved(fine: np.ndarray) -> np.ndarray:
    """Return every second voxel of the last three axes, smoothed by 1 2 1 about it, mirrored at the border."""
    out = np.pad(fine.astype(float), [(0, 0)] * (fine.ndim - 3) + [(1, 1)] * 3, mode="reflect")
    for axis in (-3, -2, -1):
        along = np.moveaxis(out, axis, 0)
        out = np.moveaxis((along[:-2] + 2 * along[1:-1] + along[2:])[::2] / 4, 0, axis)
    return out


def test_ome_zarr_is_valid_and_its_levels_are_aligned(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 24)
    data = np.stack([textured_volume((20, 51, 70), seed) for seed in (0, 1)])
    options = {"channel_names": ("a", "b"), "channel_colors": ("#ff0000", "#00ff00"), "translate": (5.0, 6.0, 7.0)}
    result = a_result(data, "czyx", voxel_size=(1.0, 0.4, 0.4), **options)
    run(result, tmp_path / "out.ome.zarr", tile=33)
    group = zarr.open_group(tmp_path / "out.ome.zarr", mode="r")
    image = Image.from_zarr(group)
    multiscale = image.attributes.ome.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == list("czyx")
    assert [axis.unit for axis in multiscale.axes][1:] == ["micrometer"] * 3
    levels = [np.asarray(group[dataset.path]) for dataset in multiscale.datasets]
    assert [level.shape for level in levels] == [(2, 50, 51, 70), (2, 25, 26, 35), (2, 13, 13, 18)]
    assert np.array_equal(levels[0][1], whole(result, (1,)))
    for number, dataset in enumerate(multiscale.datasets):
        scale, translation = (t for t in dataset.coordinateTransformations)
        step = 0.4 * 2**number
        assert scale.scale == pytest.approx([1, step, step, step])
        corner = np.array([5.0 - 0.5, 6.0 - 0.2, 7.0 - 0.2])  # the outer corner of the source's first voxel
        assert np.array(translation.translation[1:]) == pytest.approx(corner + 0.2), "no level is shifted"
        if number:
            assert np.array_equal(levels[number], np.rint(halved(levels[number - 1])).astype(np.uint16))
    described = group.attrs["napari-cropeq"]
    assert described["model"] == result.model.fingerprint and described["factor"] == pytest.approx(2.5)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize("axes", ["zyx", "tczyx"])
def test_other_programs_read_the_ome_zarr(tmp_path, monkeypatch, axes, finished):
    """Two validators, and a reader that shares no code with this package or zarr."""
    monkeypatch.setattr(pyramid, "SMALLEST", 24)
    leading = (2, 3) if axes == "tczyx" else ()
    data = np.stack([textured_volume((8, 31, 40), seed) for seed in range(int(np.prod(leading)))]).reshape(
        *leading, 8, 31, 40
    )
    result = a_result(data, axes)
    steps = export(result, tmp_path / "out.ome.zarr", tile=16)
    for step in steps:
        if not finished and step.done >= 2:
            break
    steps.close()
    path = tmp_path / ("out.ome.zarr" if finished else "out.partial.ome.zarr")
    yaozarrs.validate_zarr_store(str(path))
    multiscale = Image.from_zarr(zarr.open_group(path, mode="r")).attributes.ome.multiscales[0]
    assert "".join(axis.name for axis in multiscale.axes) == axes and len(multiscale.datasets) == 2
    group = zarr.open_group(path, mode="r")
    for dataset in multiscale.datasets:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / dataset.path)}}
        read = tensorstore.open(spec, read=True, open=True).result().read().result()
        assert np.array_equal(read, group[dataset.path]) and (not finished or read.any())
    if finished:
        assert np.array_equal(group["0"][(-1,) * len(leading)], whole(result, tuple(n - 1 for n in leading)))


def test_another_reader_detects_a_flipped_bit(tmp_path):
    run(a_result(textured_volume((8, 31, 40))), tmp_path / "out.ome.zarr")
    path = tmp_path / "out.ome.zarr" / "0" / "c" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "out.ome.zarr" / "0")}}
    with pytest.raises(ValueError, match="Digest mismatch, stored digest is"):
        tensorstore.open(spec, read=True, open=True).result().read().result()


def test_ome_tiff_for_other_programs(tmp_path, monkeypatch):
    monkeypatch.setattr(ome_tiff, "TILE", 32)
    data = np.stack([textured_volume((10, 50, 70), seed) for seed in (0, 1)])
    named = {"channel_names": ("a", "b"), "channel_colors": ("#ff0000", "#00ff80")}
    result = a_result(data, "czyx", voxel_size=(1.0, 0.4, 0.4), translate=(5.0, 6.0, 7.0), **named)
    run(result, tmp_path / "out.ome.tif", tile=33)
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as file:
        assert file.is_ome and file.is_bigtiff
        (series,) = file.series
        assert (series.axes, series.shape, series.dtype) == ("CZYX", (2, 25, 50, 70), np.uint16)
        assert series.keyframe.is_tiled and series.keyframe.compression.name == "ADOBE_DEFLATE"
        assert [level.shape for level in series.levels] == [(2, 25, 50, 70), (2, 25, 25, 35), (2, 25, 12, 17)]
        fine = series.asarray()
        for number, level in enumerate(series.levels[1:], 1):
            n = 2**number
            y, x = level.shape[-2:]
            means = fine[..., : y * n, : x * n].astype(float).reshape(2, 25, y, n, x, n).mean(axis=(3, 5))
            assert np.array_equal(level.asarray(), np.rint(means).astype(np.uint16))
        ome = tifffile.xml2dict(file.ome_metadata)["OME"]
    pixels = ome["Image"]["Pixels"]
    assert np.array_equal(fine, np.stack([whole(result, (c,)) for c in (0, 1)]))
    for axis in "XYZ":
        assert pixels[f"PhysicalSize{axis}"] == pytest.approx(0.4)
        assert pixels[f"PhysicalSize{axis}Unit"] == "µm"
    assert [channel["Name"] for channel in pixels["Channel"]] == ["a", "b"]
    assert [channel["Color"] & 0xFFFFFFFF for channel in pixels["Channel"]] == [0xFF0000FF, 0x00FF80FF]
    (annotation,) = [ome["StructuredAnnotations"]["MapAnnotation"]]
    described = {entry["K"]: entry["value"] for entry in annotation["Value"]["M"]}
    assert annotation["Namespace"] == "napari-cropeq" and described["model"] == result.model.fingerprint
    for plane in pixels["Plane"]:
        assert plane["PositionZ"] == pytest.approx(5.0 - 0.5 + 0.4 * (plane["TheZ"] + 0.5))
        assert (plane["PositionY"], plane["PositionX"]) == (6.0, 7.0)


def test_ome_tiffs_of_one_result_have_the_same_bytes(tmp_path):
    """The file depends neither on the machine nor on the time."""
    volumes = [textured_volume((8, 20, 40)), textured_volume((8, 20, 40)), textured_volume((8, 20, 44))]
    for number, volume in enumerate(volumes):
        run(a_result(volume), tmp_path / f"{number}.ome.tif")
    one, same, other = ((tmp_path / f"{n}.ome.tif").read_bytes() for n in range(3))
    assert one == same
    names = [re.search(rb'UUID="(urn:uuid:[0-9a-f-]{36})"', content)[1] for content in (one, other)]
    assert names[0] != names[1]


PLANE = {f"Position{axis}": [value] * 8 for axis, value in zip("ZYX", (2.0, 3000.0, 4e6), strict=True)}
POSITIONS = [
    pytest.param(PLANE, {"Z": "mm", "Y": "µm", "X": "nm"}, (2000.0, 3000.0, 4000.0), id="three-units"),
    pytest.param(PLANE, {"Z": "reference frame", "Y": "µm", "X": "nm"}, (0.0, 0.0, 0.0), id="one-is-no-length"),
    pytest.param(PLANE, {}, (0.0, 0.0, 0.0), id="no-units"),
    pytest.param({k: v for k, v in PLANE.items() if "Z" not in k}, {"Y": "µm", "X": "µm"}, (0.0, 0.0, 0.0), id="no-z"),
]


@pytest.mark.parametrize(("positions", "units", "expected"), POSITIONS)
def test_position_in_an_ome_tiff(tmp_path, positions, units, expected):
    size = {f"PhysicalSize{a}": s for a, s in zip("ZYX", (4.0, 1.0, 1.0), strict=True)}
    plane = positions | {f"Position{axis}Unit": [unit] * 8 for axis, unit in units.items()}
    metadata = {"axes": "ZYX", "Plane": plane} | size | {f"PhysicalSize{a}Unit": "µm" for a in "ZYX"}
    tifffile.imwrite(tmp_path / "a.ome.tif", textured_volume((8, 20, 30)), metadata=metadata)
    source = open_image(tmp_path / "a.ome.tif")
    assert source.voxel_size == (4.0, 1.0, 1.0)
    assert source.translate == expected


@pytest.mark.parametrize("name", FILES)
def test_an_old_output_is_replaced_only_by_a_complete_one(tmp_path, name):
    one, two = (a_result(textured_volume((8, 20, 40), seed)) for seed in (0, 1))
    path = tmp_path / name
    run(one, path)
    with pytest.raises(FileExistsError, match=r"exists already\. Choose another name, or replace it with existing="):
        run(two, path)
    halfway = export(two, path, 16, existing="overwrite")
    while next(halfway).done == 0:
        pass
    assert np.array_equal(stored(path), whole(one))
    halfway.close()
    assert np.array_equal(stored(path), whole(one)) and names(tmp_path) == [name, "out.partial.ome.zarr"]
    run(two, path, tile=16, existing="resume")
    assert np.array_equal(stored(path), whole(two)) and every_name(tmp_path) == [name]


@pytest.mark.parametrize("name", FILES)
def test_a_failure_during_the_run_keeps_the_old_output(tmp_path, name, monkeypatch):
    good = a_result(textured_volume((8, 20, 40)))
    volume = textured_volume((30, 72, 50)).astype(np.float32)
    monkeypatch.setattr(normalisation, "SAMPLE_VOXELS", 20_000)
    sampled = np.linspace(0, 29, 24).round()  # the planes that the intensity scale is measured on
    volume[max(set(range(30)) - set(sampled)), 71, 49] = np.nan
    broken = a_result(volume)
    run(good, tmp_path / name)
    with pytest.raises(ImageError, match=r"^1 box could .* at z 0 to 75, y 64 to 72, x 0 to 50 .*: .*NaN or inf"):
        run(broken, tmp_path / name, tile=32, existing="overwrite")
    with closing(export(broken, tmp_path / name, tile=32, existing="resume")) as again:
        assert next(again).done == 12, "the other tiles are computed and kept"
    assert names(tmp_path) == [name, "out.partial.ome.zarr"]
    assert np.array_equal(stored(tmp_path / name), whole(good))


@pytest.mark.parametrize("name", FILES)
def test_a_failure_while_saving_keeps_the_old_output(tmp_path, name, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    one, two = (a_result(textured_volume((8, 20, 40), seed)) for seed in (0, 1))
    run(one, tmp_path / name)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(exporting, "replace_folder", full)
        patch.setattr(folder, "replace_folder", full)
        run(two, tmp_path / name, existing="overwrite")
    assert names(tmp_path) == [name, "out.partial.ome.zarr"] and np.array_equal(stored(tmp_path / name), whole(one))
    run(two, tmp_path / name, existing="resume")
    assert every_name(tmp_path) == [name] and np.array_equal(stored(tmp_path / name), whole(two))


def test_progress_counts_tiles_and_ends_with_all(tmp_path):
    result = a_result(np.stack([textured_volume((12, 40, 50), seed) for seed in (0, 1)]), "czyx")
    steps = list(export(result, tmp_path / "out.ome.zarr", tile=33))
    assert (steps[0].done, steps[0].total) == (0, 2 * 1 * 2 * 2)
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert steps[-1].done == steps[-1].total and steps[-1].stage == "saving"
    assert steps[0].seconds_left == float("inf") and steps[-2].seconds_left == 0
    left = ExportProgress("tiles", 6, 8, 4.0, 2)
    assert (left.seconds_left, left.rate) == (2.0, 1.0), "only tiles of this run count"


def test_tiles_of_the_preview_are_used(tmp_path, monkeypatch):
    result = a_result(textured_volume((20, 50, 70)))
    expected = whole(result)
    memory = MemoryStore(result.sr_shape)
    scheduler = Scheduler()
    scheduler.fill(TileFiller(memory, TileSource(result)))
    list(scheduler.run())
    with monkeypatch.context() as patch:
        patch.setattr(result, "compute", None)
        run(result, tmp_path / "all.ome.zarr", computed=[memory])
    assert np.array_equal(stored(tmp_path / "all.ome.zarr"), expected)
    some = MemoryStore(result.sr_shape)
    for index in ((0, 0, 0), (1, 1, 0)):
        box = some.grid.box(index)
        some.put(((), index), expected[box.slices])
    box = Box((3, 5, 2), (20, 15, 50))
    assert np.array_equal(TileSource(result, lambda: [some])((), box), expected[box.slices])
    run(result, tmp_path / "some.ome.zarr", tile=33, computed=[some])
    assert np.array_equal(stored(tmp_path / "some.ome.zarr"), expected)


OUTPUTS = [
    pytest.param("a.ome.zarr", ".ome.zarr", id="ome-zarr"),
    pytest.param("a.zarr", ".ome.zarr", id="zarr"),
    pytest.param("A.OME.TIF", ".ome.tif", id="capitals"),
    pytest.param("a.ome.tiff", ".ome.tif", id="tiff"),
]


LEVELS = [
    pytest.param(12, "source", True, id="a count for a photon"),
    pytest.param(12, "float32", False, id="float32"),
    pytest.param(4000, "source", False, id="many levels"),
]


@pytest.mark.parametrize(("levels", "dtype", "warned"), LEVELS)
def test_rounding_of_few_grey_levels_is_warned_of(tmp_path, caplog, levels, dtype, warned):
    data = (textured_volume((8, 24, 24)).astype(float) / 4000 * levels).astype(np.uint16)
    result = a_result(data, dtype=dtype)
    run(result, tmp_path / "out.ome.zarr")
    said = [record.getMessage() for record in caplog.records if "grey levels" in record.getMessage()]
    assert len(said) == int(warned) and all("Choose float32" in text for text in said)
    assert ("grey levels" in Estimate.of(result).rounding) == warned


@pytest.mark.parametrize(("name", "kind"), OUTPUTS)
def test_kinds_of_output(tmp_path, name, kind):
    assert output_kind(tmp_path / name) == kind


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a", "a.ome.zarr.zip", ".safetensors"])
def test_unknown_outputs_are_refused(tmp_path, name):
    result = a_result(textured_volume((8, 20, 40)))
    with pytest.raises(ValueError, match=r"does not end in \.ome\.zarr or \.ome\.tif\. Rename it"):
        run(result, tmp_path / name)
    assert names(tmp_path) == []


def test_wrong_options(tmp_path):
    result = a_result(textured_volume((8, 20, 40)))
    with pytest.raises(ArgumentError, match="Tiles of 7 voxels are too small"):
        run(result, tmp_path / "a.ome.zarr", tile=7)
    with pytest.raises(OSError, match="does not exist or is not writable"):
        run(result, tmp_path / "missing" / "a.ome.zarr")
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match=r"Results cannot have the dtype 'int5'\. Choose source or float32"):
        a_result(textured_volume((8, 20, 40)), dtype="int5")


def test_a_result_is_the_predictor_converted():
    exact = a_result(textured_volume((8, 20, 40)), dtype="float32")
    rounded = a_result(textured_volume((8, 20, 40)))
    assert np.array_equal(whole(rounded), convert(whole(exact), np.uint16))
