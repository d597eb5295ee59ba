"""Files of every format open as an image: a lazy array with axes, voxel size and units."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask.array as da
import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from conftest import DATA
from napari_cropeq.errors import AccessError, ArgumentError, ImageError, MissingFileError, MissingPackageError
from napari_cropeq.formats import metadata, nifti, tiff
from napari_cropeq.formats.image import Image, check_volume
from napari_cropeq.formats.open import open_image

BOX = (slice(2, 5), slice(3, 30), slice(7, 33, 2))
OME_SIZES = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}


def values(*shape: int, dtype: str = "uint16") -> np.ndarray:
    """Return numbers that differ between all neighbours."""
    return np.random.default_rng(len(shape)).integers(0, 250, shape).astype(dtype)


def stack(dtype: str = "uint16") -> np.ndarray:
    """Return a small volume (z, y, x)."""
    return values(6, 40, 50, dtype=dtype)


def write_tiff(path: Path, data: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, data, **options)
    return path


def write_ome_zarr(
    path: Path, data: np.ndarray, axes: str, version: str, *, unit: str | None = "micrometer", **more: Any
) -> Path:
    """Write an OME-Zarr image of two levels; the second is wrong on purpose."""
    types = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": types.get(axis, "space")} for axis in axes]
    for axis in described:
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
    scale = [{"z": 2.0, "y": 0.5, "x": 0.5}.get(axis, 1.0) for axis in axes]
    levels = more.pop("datasets", None) or [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]},
        {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [2 * value for value in scale]}]},
    ]
    options = more.pop("array", {})
    attributes = {
        "multiscales": [{"name": "image", "axes": described, "datasets": levels, **more.pop("multiscale", {})}]
    }
    attributes |= more
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=data, chunks=options.pop("chunks", (1,) * (data.ndim - 3) + (4, 16, 16)), **options)
    group.create_array("1", data=np.zeros_like(data))
    if version == "0.4":
        attributes["multiscales"][0]["version"] = version
        group.attrs.update(attributes)
    else:
        group.attrs["ome"] = {"version": version, **attributes}
    return path


def check_values(source: Image, expected: np.ndarray) -> None:
    """Compare the whole image, and one box of its last channel at its last time."""
    assert source.data.shape == expected.shape
    assert source.data.dtype == expected.dtype
    assert isinstance(source.data, da.Array)
    np.testing.assert_array_equal(source.data.compute(), expected)
    volume = expected[tuple(-1 for _ in source.axes[:-3])]
    box = source.volume(source.n_channels - 1, source.n_times - 1)[BOX].compute()
    np.testing.assert_array_equal(box, volume[BOX])
    assert box.dtype.isnative


# The content of each kind of file, and the image it gives


PLAIN_LAYOUTS = [
    pytest.param({}, id="contiguous"),
    pytest.param({"rowsperstrip": 7}, id="strips"),
    pytest.param({"byteorder": ">"}, id="big-endian"),
    pytest.param({"byteorder": ">", "compression": "zlib"}, id="big-endian-deflate"),
    pytest.param({"compression": "zlib", "rowsperstrip": 7}, id="deflate-strips"),
    pytest.param({"compression": "zlib", "tile": (16, 16)}, id="deflate-tiles"),
    pytest.param({"tile": (16, 16)}, id="tiles"),
    pytest.param({"bigtiff": True}, id="bigtiff"),
    pytest.param({"metadata": {"axes": "ZYX"}}, id="named-axes"),
    pytest.param({"metadata": None}, id="no-description"),
]


@pytest.mark.parametrize("options", PLAIN_LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_plain_tiff(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    data = stack(dtype)
    source = open_image(write_tiff(tmp_path / "stack.tif", data, photometric="minisblack", **options))
    check_values(source, data)
    assert (source.axes, source.name, source.voxel_size, source.unit) == ("zyx", "stack", None, "pixel")
    assert source.translate == (0.0, 0.0, 0.0)
    assert source.path == str(tmp_path / "stack.tif")


@pytest.mark.parametrize("compression", [pytest.param(None, id="raw"), pytest.param("zlib", id="deflate")])
def test_pages_written_one_by_one(tmp_path: Path, compression: str | None) -> None:
    data = stack()
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in data:
            writer.write(page, contiguous=False, metadata=None, compression=compression)
    check_values(open_image(tmp_path / "pages.tif"), data)


def test_three_pages_are_three_slices(tmp_path: Path) -> None:
    data = stack()[:3]
    source = open_image(write_tiff(tmp_path / "three.tif", data, photometric="minisblack"))
    assert source.axes == "zyx"
    np.testing.assert_array_equal(source.data.compute(), data)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_predictor(tmp_path: Path, byteorder: Any) -> None:
    path = write_tiff(tmp_path / "a.tif", stack(), compression="zlib", predictor=True, byteorder=byteorder)
    check_values(open_image(path), stack())


INDICES = [
    pytest.param((2, 3, 4), id="one-voxel"),
    pytest.param((slice(4, 1, -1), slice(None, None, 3), 7), id="backwards"),
    pytest.param(([4, 1, 1], slice(3, 9), slice(None)), id="list"),
    pytest.param((1, slice(3, 9), [0, 49, 20]), id="number-and-list"),
    pytest.param((slice(None), 5, np.arange(50) % 3 == 0), id="mask"),
    pytest.param((slice(2, 2), slice(None), [5]), id="nothing"),
]


@pytest.mark.parametrize("options", [pytest.param({}, id="raw"), pytest.param({"compression": "zlib"}, id="deflate")])
@pytest.mark.parametrize("index", INDICES)
def test_every_kind_of_index(tmp_path: Path, index: tuple[Any, ...], options: dict[str, Any]) -> None:
    source = open_image(write_tiff(tmp_path / "a.tif", stack(), **options))
    read = source.volume()[index].compute()
    expected = da.from_array(stack())[index].compute()  # per axis, unlike numpy for a number beside a list
    assert np.shape(read) == expected.shape
    np.testing.assert_array_equal(read, expected)


def test_volumetric_tiles(tmp_path: Path) -> None:
    data = values(32, 48, 48, dtype="uint8")
    check_values(open_image(write_tiff(tmp_path / "v.tif", data, volumetric=True, tile=(16, 16, 16))), data)


def test_resolution_tags_alone_give_no_voxel_size(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", stack(), resolution=(20000, 20000), resolutionunit="CENTIMETER")
    assert open_image(path).voxel_size is None


OME_UNITS = [
    pytest.param({}, (2.0, 0.5, 0.5), "micrometer", id="default-unit"),
    pytest.param({f"PhysicalSize{a}Unit": "µm" for a in "XYZ"}, (2.0, 0.5, 0.5), "micrometer", id="micrometer"),
    pytest.param({f"PhysicalSize{a}Unit": "nm" for a in "XYZ"}, (2.0, 0.5, 0.5), "nanometer", id="nanometer"),
    pytest.param({"PhysicalSizeZUnit": "nm"}, (0.002, 0.5, 0.5), "micrometer", id="z-in-nanometer"),
    pytest.param(
        {"PhysicalSizeXUnit": "mm", "PhysicalSizeYUnit": "mm"},
        (0.002, 0.5, 0.5),
        "millimeter",
        id="lateral-in-millimeter",
    ),
    pytest.param({"PhysicalSizeZ": None}, None, "pixel", id="no-z"),
    pytest.param({"PhysicalSizeZ": 0.0}, None, "pixel", id="zero-z"),
]


@pytest.mark.parametrize(("changes", "voxel_size", "unit"), OME_UNITS)
def test_ome_tiff_units(
    tmp_path: Path, changes: dict[str, Any], voxel_size: tuple[float, float, float] | None, unit: str
) -> None:
    described = {key: value for key, value in (OME_SIZES | changes).items() if value is not None}
    path = write_tiff(tmp_path / "a.ome.tif", stack(), metadata={"axes": "ZYX", **described})
    source = open_image(path)
    check_values(source, stack())
    assert (source.voxel_size, source.unit, source.name) == (voxel_size, unit, "a")


OME_ORDERS = [
    pytest.param("ZYX", (6, 40, 50), "zyx", id="zyx"),
    pytest.param("CZYX", (2, 6, 40, 50), "czyx", id="czyx"),
    pytest.param("ZCYX", (6, 2, 40, 50), "czyx", id="zcyx"),
    pytest.param("TZYX", (3, 6, 40, 50), "tzyx", id="tzyx"),
    pytest.param("TZCYX", (3, 6, 2, 40, 50), "tczyx", id="tzcyx"),
    pytest.param("CTZYX", (2, 3, 6, 40, 50), "tczyx", id="ctzyx"),
    pytest.param("TZCYX", (1, 6, 1, 40, 50), "zyx", id="singletons"),
]


@pytest.mark.parametrize("options", [pytest.param({}, id="raw"), pytest.param({"compression": "zlib"}, id="deflate")])
@pytest.mark.parametrize(("order", "shape", "axes"), OME_ORDERS)
def test_ome_tiff_axes(tmp_path: Path, order: str, shape: tuple[int, ...], axes: str, options: dict[str, Any]) -> None:
    data = values(*shape)
    path = write_tiff(tmp_path / "a.ome.tif", data, metadata={"axes": order, **OME_SIZES}, **options)
    source = open_image(path)
    ordered = data.transpose([order.lower().index(axis) for axis in "tczyx" if axis in order.lower()])
    check_values(source, ordered.reshape(source.data.shape))
    assert source.axes == axes
    assert source.voxel_size == (2.0, 0.5, 0.5)


def test_ome_tiff_channels(tmp_path: Path) -> None:
    red, green_half = -16776961, 16711808  # RGBA ff0000ff as a signed integer, 00ff0080
    described = {"axes": "CZYX", "Channel": {"Name": ["vessels", "nuclei"], "Color": [red, green_half]}, **OME_SIZES}
    source = open_image(write_tiff(tmp_path / "a.ome.tif", values(2, 6, 40, 50), metadata=described))
    assert source.channel_names == ("vessels", "nuclei")
    assert source.channel_colors == ("#ff0000", "#00ff00")


def test_ome_tiff_pyramid_gives_the_finest_level(tmp_path: Path) -> None:
    data = values(6, 64, 64)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(data, subifds=1, tile=(16, 16), compression="zlib", metadata={"axes": "ZYX", **OME_SIZES})
        writer.write(data[:, ::2, ::2], subfiletype=1, tile=(16, 16), compression="zlib")
    check_values(open_image(tmp_path / "a.ome.tif"), data)


def test_the_first_of_several_images_is_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(stack(), metadata={"axes": "ZYX", **OME_SIZES})
        writer.write(values(3, 20, 20), metadata={"axes": "ZYX"})
    source = open_image(tmp_path / "a.ome.tif")
    check_values(source, stack())
    assert source.voxel_size == (2.0, 0.5, 0.5)


DAMAGED_XML = [
    pytest.param(lambda xml: xml.replace("<Pixels", "<Pixels <"), id="no-xml"),
    pytest.param(lambda xml: xml.replace(" SizeX=", " Size="), id="no-size"),
    pytest.param(lambda xml: xml.replace('PhysicalSizeZ="2.0"', 'PhysicalSizeZ="two"'), id="size-in-words"),
]


@pytest.mark.parametrize("damage", DAMAGED_XML)
def test_damaged_ome_xml_falls_back(tmp_path: Path, damage: Any) -> None:
    path = write_tiff(tmp_path / "a.ome.tif", stack(), metadata={"axes": "ZYX", **OME_SIZES})
    tifffile.tiffcomment(path, damage(tifffile.tiffcomment(path)).encode())
    source = open_image(path)
    check_values(source, stack())
    assert (source.voxel_size, source.unit) == (None, "pixel")


IMAGEJ_UNITS = [
    pytest.param("um", "micrometer", id="um"),
    pytest.param("micron", "micrometer", id="micron"),
    pytest.param("\\u00B5m", "micrometer", id="escaped"),
    pytest.param("nm", "nanometer", id="nm"),
    pytest.param("mm", "millimeter", id="mm"),
    pytest.param(None, "pixel", id="none"),
    pytest.param("furlong", "pixel", id="unknown"),
]


@pytest.mark.parametrize(("written", "unit"), IMAGEJ_UNITS)
def test_imagej_units(tmp_path: Path, written: str | None, unit: str) -> None:
    described = {"axes": "ZYX", "spacing": 3.0, **({"unit": written} if written else {})}
    path = write_tiff(tmp_path / "a.tif", stack(), imagej=True, resolution=(2.0, 4.0), metadata=described)
    source = open_image(path)
    check_values(source, stack())
    assert source.voxel_size == (3.0, 0.25, 0.5)  # (z, y, x); tifffile takes (x, y) pixels per unit
    assert source.unit == unit


@pytest.mark.parametrize(
    "described",
    [
        pytest.param({"unit": "um"}, id="no-spacing"),
        pytest.param({"unit": "um", "spacing": 0}, id="zero-spacing"),
        pytest.param({"unit": "um", "spacing": "wide"}, id="spacing-in-words"),
    ],
)
def test_imagej_without_spacing_has_no_voxel_size(tmp_path: Path, described: dict[str, Any]) -> None:
    options = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"axes": "ZYX", **described}}
    source = open_image(write_tiff(tmp_path / "a.tif", stack(), **options))
    assert (source.voxel_size, source.unit) == (None, "pixel")


def test_imagej_hyperstack(tmp_path: Path) -> None:
    data = values(2, 6, 3, 40, 50)
    ramp = np.arange(256, dtype=np.uint8)
    tables = [np.stack([ramp * on for on in color]) for color in ((1, 0, 0), (0, 1, 0), (1, 0, 1))]
    described = {"axes": "TZCYX", "spacing": 1.5, "unit": "micron", "LUTs": tables}
    path = write_tiff(tmp_path / "a.tif", data, imagej=True, resolution=(4.0, 4.0), metadata=described)
    source = open_image(path)
    check_values(source, data.transpose(0, 2, 1, 3, 4))
    assert (source.axes, source.voxel_size, source.unit) == ("tczyx", (1.5, 0.25, 0.25), "micrometer")
    assert source.channel_colors == ("#ff0000", "#00ff00", "#ff00ff")
    assert (source.n_times, source.n_channels) == (2, 3)


ZARR_VERSIONS = ["0.4", "0.5"]


@pytest.mark.parametrize("version", ZARR_VERSIONS)
@pytest.mark.parametrize(
    ("order", "shape", "axes"),
    [
        pytest.param("zyx", (6, 40, 50), "zyx", id="zyx"),
        pytest.param("czyx", (2, 6, 40, 50), "czyx", id="czyx"),
        pytest.param("tczyx", (2, 3, 6, 40, 50), "tczyx", id="tczyx"),
        pytest.param("tczyx", (1, 1, 6, 40, 50), "zyx", id="singletons"),
        pytest.param("xyz", (50, 40, 6), "zyx", id="any-order"),
    ],
)
def test_ome_zarr(tmp_path: Path, version: str, order: str, shape: tuple[int, ...], axes: str) -> None:
    data = values(*shape)
    source = open_image(write_ome_zarr(tmp_path / "a.ome.zarr", data, order, version))
    ordered = data.transpose([order.index(axis) for axis in "tczyx" if axis in order])
    check_values(source, ordered.reshape(source.data.shape))
    assert (source.axes, source.name) == (axes, "a")
    assert (source.voxel_size, source.unit) == ((2.0, 0.5, 0.5), "micrometer")


@pytest.mark.parametrize("version", ZARR_VERSIONS)
def test_ome_zarr_placement(tmp_path: Path, version: str) -> None:
    steps = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}, {"type": "translation", "translation": [10.0, 20.0, 30.0]}]
    overall = [{"type": "scale", "scale": [2.0, 3.0, 4.0]}, {"type": "translation", "translation": [1.0, 2.0, 3.0]}]
    source = open_image(
        write_ome_zarr(
            tmp_path / "a.zarr",
            stack(),
            "zyx",
            version,
            datasets=[{"path": "0", "coordinateTransformations": steps}],
            multiscale={"coordinateTransformations": overall},
        )
    )
    assert source.voxel_size == (4.0, 1.5, 2.0)
    assert source.translate == (21.0, 62.0, 123.0)


@pytest.mark.parametrize("version", ZARR_VERSIONS)
def test_ome_zarr_channels(tmp_path: Path, version: str) -> None:
    channels = [{"label": "vessels", "color": "FF00FF"}, {"color": "00ffff"}]
    path = write_ome_zarr(tmp_path / "a.zarr", values(2, 6, 40, 50), "czyx", version, omero={"channels": channels})
    source = open_image(path)
    assert source.channel_names == ("vessels", "channel 1")
    assert source.channel_colors == ("#ff00ff", "#00ffff")


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [
        pytest.param("nanometer", 2.0, ((2.0, 2.0, 2.0), "nanometer"), id="nanometer"),
        pytest.param(None, 2.0, ((2.0, 2.0, 2.0), "pixel"), id="no-unit"),
        pytest.param(None, 1.0, (None, "pixel"), id="ones-without-unit-say-nothing"),
        pytest.param("micrometer", 1.0, ((1.0, 1.0, 1.0), "micrometer"), id="ones-with-unit"),
    ],
)
def test_ome_zarr_units(tmp_path: Path, unit: str | None, scale: float, expected: tuple[Any, str]) -> None:
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [scale] * 3}]}]
    source = open_image(write_ome_zarr(tmp_path / "a.zarr", stack(), "zyx", "0.5", unit=unit, datasets=datasets))
    assert (source.voxel_size, source.unit) == expected


def test_ome_zarr_sharded(tmp_path: Path) -> None:
    data = values(16, 64, 64)
    options = {"chunks": (4, 16, 16), "shards": (8, 32, 32)}
    source = open_image(write_ome_zarr(tmp_path / "a.zarr", data, "zyx", "0.5", array=options))
    check_values(source, data)
    assert source.data.chunksize == (4, 16, 16)


@pytest.mark.parametrize("version", ZARR_VERSIONS)
def test_bioformats2raw_layout(tmp_path: Path, version: str) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    layout = {"bioformats2raw.layout": 3}
    root.attrs.update(layout if version == "0.4" else {"ome": {"version": version, **layout}})
    write_ome_zarr(tmp_path / "a.zarr" / "0", stack(), "zyx", version)
    check_values(open_image(tmp_path / "a.zarr"), stack())


NIFTI_SUFFIXES = [".nii", ".nii.gz"]


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray, unit: str | None = "mm", **header: Any) -> Path:
    """Write an array (..., z, y, x)."""
    image = nibabel.Nifti1Image(data.T, affine)
    image.header.set_xyzt_units(unit)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", NIFTI_SUFFIXES)
@pytest.mark.parametrize("axial", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_nifti(tmp_path: Path, suffix: str, axial: int, dtype: str) -> None:
    size = [0.8, 0.8, 0.8]
    size[axial] = 5.5
    data = stack(dtype)
    source = open_image(write_nifti(tmp_path / f"brain{suffix}", data, np.diag([*reversed(size), 1.0])))
    check_values(source, data)
    assert (source.axes, source.name, source.unit) == ("zyx", "brain", "millimeter")
    assert source.voxel_size == tuple(size)


@pytest.mark.parametrize("suffix", NIFTI_SUFFIXES)
def test_nifti_over_time(tmp_path: Path, suffix: str) -> None:
    data = values(3, 6, 40, 50, dtype="int16")
    source = open_image(write_nifti(tmp_path / f"a{suffix}", data, np.eye(4)))
    check_values(source, data)
    assert source.axes == "tzyx"


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        pytest.param("mm", "millimeter", id="mm"),
        pytest.param("micron", "micrometer", id="micron"),
        pytest.param("meter", "meter", id="meter"),
        pytest.param("unknown", "millimeter", id="unknown-is-mm"),
    ],
)
def test_nifti_units(tmp_path: Path, written: str, unit: str) -> None:
    source = open_image(write_nifti(tmp_path / "a.nii", stack("int16"), np.diag([1, 1, 4, 1]), written))
    assert (source.voxel_size, source.unit) == ((4.0, 1.0, 1.0), unit)


@pytest.mark.parametrize("suffix", NIFTI_SUFFIXES)
def test_nifti_slope_and_intercept(tmp_path: Path, suffix: str) -> None:
    stored = stack("int16")
    image = nibabel.Nifti1Image(stored.T, np.eye(4))
    image.header.set_slope_inter(0.5, -7.0)
    path = tmp_path / f"a{suffix}"
    nibabel.save(image, path)
    # nibabel divides when it saves, so the expected values are read back with nibabel
    loaded = nibabel.load(path)
    assert loaded.dataobj.slope == 0.5
    expected = np.asarray(loaded.dataobj).T
    source = open_image(path)
    assert source.data.dtype == np.float32
    np.testing.assert_allclose(source.data.compute(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("affine", "translate"),
    [
        pytest.param([[2, 0, 0, -7], [0, 2, 0, -8], [0, 0, 4, -9], [0, 0, 0, 1]], (-9.0, -8.0, -7.0), id="straight"),
        pytest.param([[-2, 0, 0, 7], [0, 2, 0, -8], [0, 0, 4, -9], [0, 0, 0, 1]], (0.0, 0.0, 0.0), id="flipped"),
        pytest.param([[0, 2, 0, -7], [2, 0, 0, -8], [0, 0, 4, -9], [0, 0, 0, 1]], (0.0, 0.0, 0.0), id="turned"),
    ],
)
def test_nifti_place(tmp_path: Path, affine: list[list[int]], translate: tuple[float, float, float]) -> None:
    source = open_image(write_nifti(tmp_path / "a.nii", stack("int16"), np.array(affine, float)))
    assert source.translate == translate
    assert source.voxel_size == (4.0, 2.0, 2.0)


REAL = [
    pytest.param("mouse_brain_2ch_5x2x2um.ome.tif", "czyx", (2, 30, 510, 667), (5, 2, 2), "micrometer", id="2ch"),
    pytest.param(
        "mouse_brain_whole_50x40x40um.ome.tif", "zyx", (270, 193, 271), (50, 40, 40), "micrometer", id="whole"
    ),
    pytest.param(
        "confocal_red_0p646x0p328um.imagej.tif", "zyx", (33, 152, 172), (0.646, 0.328, 0.328), "micrometer", id="imagej"
    ),
    pytest.param("em_isotropic_8nm.tif", "zyx", (128, 128, 128), None, "pixel", id="plain"),
    pytest.param("mri_t1_isotropic_1mm.nii.gz", "zyx", (181, 217, 181), (1, 1, 1), "millimeter", id="t1"),
    pytest.param("mri_t2_5p5x0p75x0p75mm.nii.gz", "zyx", (26, 320, 320), (5.5, 0.75, 0.75), "millimeter", id="t2"),
]


@pytest.mark.parametrize(("file", "axes", "shape", "voxel_size", "unit"), REAL)
def test_real_files(file: str, axes: str, shape: tuple[int, ...], voxel_size: Any, unit: str) -> None:
    path = DATA / file
    if not path.exists():
        pytest.skip(f"{path} is not here")
    source = open_image(path)
    assert (source.axes, source.data.shape, source.unit) == (axes, shape, unit)
    assert source.voxel_size == (None if voxel_size is None else pytest.approx(voxel_size, abs=5e-4))
    if file.endswith(".gz"):
        expected = np.asarray(nibabel.load(path).dataobj).T
    else:
        expected = tifffile.imread(path)
        expected = expected.swapaxes(0, 1) if axes == "czyx" else expected
    check_values(source, expected)


# Only what is needed is read, and only when it is needed


def test_a_large_raw_file_opens_and_gives_a_box_at_once(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, shape=(2048, 1024, 1024), dtype="uint16", bigtiff=True, metadata={"axes": "ZYX"})  # sparse
    start = time.perf_counter()
    source = open_image(path)
    box = source.volume()[1000:1064, 500:532, 500:532].compute()
    assert time.perf_counter() - start < 5  # reading all 4 GiB would take longer and need more memory
    assert box.shape == (64, 32, 32)
    assert source.data.chunksize == (1, 1024, 1024)


def test_opening_a_zarr_reads_no_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", values(16, 64, 64), "zyx", "0.5", array={"chunks": (4, 16, 16)})
    read: list[str] = []
    plain = zarr.storage.LocalStore.get

    async def counted(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        read.append(key)
        return await plain(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    source = open_image(path)
    assert not [key for key in read if "/c/" in key]
    source.volume()[2:6, 3:9, 40:50].compute()
    assert sorted(key for key in read if "/c/" in key) == [f"0/c/{z}/0/{x}" for z in (0, 1) for x in (2, 3)]


def test_a_box_of_a_compressed_tiff_decodes_only_its_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = values(6, 64, 50)
    path = write_tiff(tmp_path / "a.tif", data, compression="zlib", rowsperstrip=8)
    read: list[int] = []
    plain = tifffile.tifffile.FileCache.read

    def counted(self: Any, fh: Any, /, offset: int, bytecount: int, whence: int = 0) -> bytes:
        read.append(offset)
        return plain(self, fh, offset, bytecount, whence)

    monkeypatch.setattr(tifffile.tifffile.FileCache, "read", counted)
    source = open_image(path)
    assert not read
    box = source.volume()[2:5, 17:31, 20:30].compute()
    np.testing.assert_array_equal(box, data[2:5, 17:31, 20:30])
    assert len(read) == 3 * 2  # three pages, rows 16 to 31


def test_a_compressed_nifti_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", stack("int16"), np.eye(4))
    unpacked: list[int] = []
    plain = nifti.PackedVolume._read
    monkeypatch.setattr(nifti.PackedVolume, "_read", lambda self: (unpacked.append(1), plain(self))[1])
    source = open_image(path)
    assert not unpacked
    for z in range(3):
        source.volume()[z].compute()
    assert len(unpacked) == 1


def test_many_threads_read_the_same_voxels(tmp_path: Path) -> None:
    data = values(40, 64, 64)
    source = open_image(write_tiff(tmp_path / "a.tif", data, compression="zlib", rowsperstrip=8))
    np.testing.assert_array_equal(source.data.compute(scheduler="threads", num_workers=8), data)


def test_files_are_closed(tmp_path: Path) -> None:
    """A file that is left open gives a ResourceWarning, which is an error here."""
    path = write_tiff(tmp_path / "a.tif", stack(), compression="zlib")
    source = open_image(path)
    source.data.compute()
    del source
    gc.collect()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda folder: write_tiff(folder / "a.tif", stack()), id="raw"),
        pytest.param(lambda folder: write_tiff(folder / "a.tif", stack(), compression="zlib"), id="deflate"),
        pytest.param(lambda folder: write_ome_zarr(folder / "a.zarr", stack(), "zyx", "0.5"), id="zarr"),
        pytest.param(lambda folder: write_nifti(folder / "a.nii.gz", stack(), np.eye(4)), id="nifti"),
    ],
)
def test_an_image_can_be_pickled(tmp_path: Path, write: Any) -> None:
    source = open_image(write(tmp_path))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source.data)).compute(), stack())


# The error for a file that cannot be read states the problem and the remedy


def shortened(path: Path, keep: float | int) -> Path:
    """Cut a file to a fraction of its length, or by a number of bytes if keep is negative."""
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
    return path


def tiff_of(folder: Path, data: np.ndarray, name: str = "a.tif", **options: Any) -> Path:
    return write_tiff(folder / name, data, **options)


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def group_of(folder: Path, attributes: dict[str, Any]) -> Path:
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=stack())
    group.attrs.update(attributes)
    return folder / "a.zarr"


def array_of(folder: Path) -> Path:
    zarr.create_array(folder / "a.zarr", data=stack())
    return folder / "a.zarr"


def page_by_page(folder: Path) -> Path:
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        for page in stack():
            writer.write(page, contiguous=False, metadata=None)
    return folder / "a.tif"


def nifti_colors(folder: Path) -> Path:
    data = np.zeros((10, 11, 12), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / "a.nii")
    return folder / "a.nii"


def multiscales(**changes: Any) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    transformations = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transformations}]}
    return {"ome": {"version": "0.5", "multiscales": [{**image, **changes}]}}


def datasets(path: str, scale: list[float]) -> list[dict[str, Any]]:
    return [{"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}]


RGB = np.zeros((6, 40, 50, 3), np.uint8)
SHORT = r"^a\.\S+ is cut short: .*\. Copy or export it again\.$"
DAMAGED = r"^a\.\S+ cannot be read as a (TIFF|NIfTI) file \(.*\): it is damaged or of another format\. Copy"
FLAT = r"is a 2D image \(40×50\), not a 3D stack\. Open"
COLOR = r"is a colour \(RGB\) image with 3 samples per pixel, not grey levels\. Split it"
NO_ZARR = r"^The folder a\.zarr is not an OME-Zarr image\. Open the folder whose zarr\.json"
BAD_ZARR = r"^a\.zarr has damaged OME-Zarr metadata \(.*\)\. Axes, datasets and their scales are needed\. Write"

REFUSED = [
    pytest.param(lambda d: d / "a.tif", MissingFileError, r"^There is no file .*a\.tif\. Check", id="missing"),
    pytest.param(
        lambda d: written(d, "a.png", b"x" * 99),
        ImageError,
        r"^a\.png is of an unknown type\. Known types are .*\.tif, .*\.nii\.gz, .*\.zarr\. Save it as",
        id="unknown-suffix",
    ),
    pytest.param(
        lambda d: written(d, "a.tif", b""), ImageError, r"a\.tif is empty \(0 bytes\).*again", id="empty-tiff"
    ),
    pytest.param(lambda d: written(d, "a.tif", b"hello " * 99), ImageError, DAMAGED, id="text-as-tiff"),
    pytest.param(lambda d: written(d, "a.tif", b"II*\0" + b"\x99" * 999), ImageError, DAMAGED, id="garbage-tiff"),
    pytest.param(lambda d: shortened(tiff_of(d, stack()), 0.5), ImageError, SHORT, id="cut-raw"),
    pytest.param(
        lambda d: shortened(tiff_of(d, stack(), metadata=None, imagej=False), 12000), ImageError, SHORT, id="cut-pages"
    ),
    pytest.param(lambda d: shortened(page_by_page(d), -10), ImageError, SHORT, id="cut-last-page"),
    pytest.param(
        lambda d: shortened(tiff_of(d, stack(), compression="zlib"), 0.5), ImageError, SHORT, id="cut-deflate"
    ),
    pytest.param(lambda d: shortened(tiff_of(d, stack(), compression="zlib"), -9), ImageError, SHORT, id="cut-9-bytes"),
    pytest.param(
        lambda d: shortened(tiff_of(d, stack(), imagej=True, metadata={"axes": "ZYX"}), 0.6),
        ImageError,
        SHORT,
        id="cut-ij",
    ),
    pytest.param(
        lambda d: shortened(tiff_of(d, stack(), "a.ome.tif", metadata={"axes": "ZYX"}), 0.6),
        ImageError,
        SHORT,
        id="cut-ome",
    ),
    pytest.param(lambda d: tiff_of(d, RGB, photometric="rgb"), ImageError, COLOR, id="rgb"),
    pytest.param(lambda d: tiff_of(d, RGB, imagej=True), ImageError, COLOR, id="rgb-imagej"),
    pytest.param(
        lambda d: tiff_of(d, RGB.transpose(0, 3, 1, 2), photometric="rgb", planarconfig="separate"),
        ImageError,
        COLOR,
        id="rgb-planes",
    ),
    pytest.param(lambda d: tiff_of(d, stack()[0]), ImageError, FLAT, id="2d"),
    pytest.param(
        lambda d: tiff_of(d, stack(), imagej=True, metadata={"axes": "TYX"}),
        ImageError,
        r"has 2D images with the axes TYX \(6×40×50\), but a 3D stack has .*correct that",
        id="2d-over-time",
    ),
    pytest.param(
        lambda d: tiff_of(d, values(2, 6, 40, 50), photometric="minisblack"),
        ImageError,
        r"has 4 axes \(QQYX, 2×6×40×50\), which cannot be assigned to .*\. Save it as OME-TIFF",
        id="nameless-axes",
    ),
    pytest.param(lambda d: tiff_of(d, stack() > 9, photometric="minisblack"), ImageError, r"is a mask", id="mask"),
    pytest.param(lambda d: tiff_of(d, stack("complex64")), ImageError, r"has complex numbers.*magnitude", id="complex"),
    pytest.param(
        lambda d: d, ImageError, r"^The folder \S+ is not an OME-Zarr image\. Open the folder", id="plain-folder"
    ),
    pytest.param(array_of, ImageError, NO_ZARR, id="bare-array"),
    pytest.param(
        lambda d: group_of(d, {}),
        ImageError,
        r"^a\.zarr is Zarr without 'multiscales', not an OME-Zarr image\. Open",
        id="bare-group",
    ),
    pytest.param(
        lambda d: group_of(d, {"ome": {"version": "0.5", "plate": {}}}), ImageError, "plate without wells", id="plate"
    ),
    pytest.param(lambda d: group_of(d, multiscales(datasets=[])), ImageError, BAD_ZARR, id="no-datasets"),
    pytest.param(
        lambda d: group_of(d, multiscales(datasets=datasets("7", [2.0, 0.5, 0.5]))), ImageError, BAD_ZARR, id="no-array"
    ),
    pytest.param(
        lambda d: group_of(d, multiscales(datasets=datasets("0", [2.0, 0.5]))), ImageError, BAD_ZARR, id="short-scale"
    ),
    pytest.param(
        lambda d: group_of(d, multiscales(axes=[{"name": "y"}, {"name": "x"}], datasets=[{"path": "0"}])),
        ImageError,
        r"The metadata of a\.zarr name 2 axes, but 0 is not an array with",
        id="too-few-axes",
    ),
    pytest.param(lambda d: group_of(d, {"ome": {"multiscales": [3]}}), ImageError, BAD_ZARR, id="not-a-multiscale"),
    pytest.param(lambda d: written(d, "a.nii", b""), ImageError, r"a\.nii is empty \(0 bytes\)", id="empty-nifti"),
    pytest.param(lambda d: written(d, "a.nii.gz", b"hello " * 99), ImageError, DAMAGED, id="text-as-nifti"),
    pytest.param(
        lambda d: shortened(write_nifti(d / "a.nii", stack(), np.eye(4)), -5), ImageError, SHORT, id="cut-nifti"
    ),
    pytest.param(
        lambda d: shortened(write_nifti(d / "a.nii", stack(), np.eye(4)), 200),
        ImageError,
        DAMAGED,
        id="cut-nifti-header",
    ),
    pytest.param(lambda d: write_nifti(d / "a.nii", stack()[0], np.eye(4)), ImageError, FLAT, id="2d-nifti"),
    pytest.param(nifti_colors, ImageError, COLOR, id="rgb-nifti"),
]


@pytest.mark.parametrize(("make", "error", "sentence"), REFUSED)
def test_refused(tmp_path: Path, make: Any, error: type[Exception], sentence: str) -> None:
    path = make(tmp_path)
    with pytest.raises(error, match=sentence) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_damaged_json(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", stack(), "zyx", "0.5")
    (path / "zarr.json").write_text('{"zarr_format": 3, "nod')
    with pytest.raises(ImageError, match=NO_ZARR):
        open_image(path)


def test_a_damaged_page_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", stack(), compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages[4]
        start, count = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)
    source = open_image(path)
    np.testing.assert_array_equal(source.data[3].compute(), stack()[3])
    with pytest.raises(AccessError, match=r"^a\.tif cannot be read any further \(.*\): the file is damaged\. Copy"):
        source.data[4].compute()


def test_a_truncated_compressed_nifti_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = shortened(write_nifti(tmp_path / "a.nii.gz", stack(), np.eye(4)), 0.6)
    source = open_image(path)
    with pytest.raises(AccessError, match=r"^a\.nii\.gz cannot be unpacked \(.*\): it is damaged or cut short\. Copy"):
        source.data.compute()


def test_a_file_that_shrinks_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", stack())
    source = open_image(path)
    shortened(path, 0.5)
    with pytest.raises(AccessError, match=r"^a\.tif has changed since it was opened: .* was replaced or changed\."):
        source.data.compute()


WITHOUT_IMAGECODECS = """
import sys
sys.modules["imagecodecs"] = None
import napari_cropeq
napari_cropeq.open_image(sys.argv[1])
"""


def test_lzw_asks_for_imagecodecs(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", stack(), compression="zlib")
    with tifffile.TiffFile(path) as file:
        tags = [page.tags["Compression"].valueoffset for page in file.pages]
    content = bytearray(path.read_bytes())
    for offset in tags:
        content[offset : offset + 2] = (5).to_bytes(2, "little")
    path.write_bytes(content)
    command = [sys.executable, "-c", WITHOUT_IMAGECODECS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert re.search(r"ImageError: a\.tif is stored with LZW compression.*: pip install imagecodecs$", done.stderr)


def test_lzw_is_read_with_imagecodecs(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    path = write_tiff(tmp_path / "a.tif", stack(), compression="lzw")
    np.testing.assert_array_equal(open_image(path).data.compute(), stack(), strict=True)


def test_nifti_asks_for_nibabel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(tmp_path / "a.nii", stack(), np.eye(4))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingPackageError, match=re.escape('pip install "napari-cropeq[mri]"')):
        open_image(path)


CHECKED = [
    pytest.param(np.zeros((4, 5)), r"^data is 2D \(4×5\), not a 3D stack\. Open", id="2d"),
    pytest.param(np.float32(3), r"^data is 0D \(no axes\)", id="number"),
    pytest.param(np.zeros((4, 0, 5)), r"is empty \(4×0×5\)\. Export", id="empty"),
    pytest.param(np.zeros((2, 3, 4), bool), r"is a mask of true and false, not grey levels\. Open", id="bool"),
    pytest.param(np.zeros((2, 3, 4), complex), r"has complex numbers \(complex128\), not .*magnitude", id="complex"),
    pytest.param(np.zeros((2, 3, 4), object), r"has values of type object, not numbers.*\. Convert", id="object"),
    pytest.param(np.zeros((2, 3, 4), "M8[s]"), r"has values of type datetime64\[s\], not numbers", id="dates"),
    pytest.param(np.zeros((2, 3, 4), "U3"), r"has values of type <U3, not numbers", id="text"),
]


@pytest.mark.parametrize(("data", "sentence"), CHECKED)
def test_check_volume(data: Any, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        check_volume(data, "data")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float16", "float32", "float64"])
def test_check_volume_reads_nothing(dtype: str) -> None:
    def read() -> None:
        raise AssertionError("read")

    check_volume(
        da.map_blocks(lambda _: read(), da.zeros((4, 5, 6), dtype=dtype), dtype=dtype, meta=np.zeros(0)), "data"
    )


# Methods of an image


def test_volume_out_of_range() -> None:
    source = Image(da.zeros((2, 3, 4, 5)), "czyx", None, "pixel", (0.0, 0.0, 0.0), "brain")
    assert source.volume(1).shape == (3, 4, 5)
    with pytest.raises(ArgumentError, match=r"^brain has no channel 2: it has 2\. Choose one of 0 to 1\.$") as caught:
        source.volume(2)
    assert caught.value.setting == "channel"
    with pytest.raises(ArgumentError, match=r"^brain has no channel -1"):
        source.volume(-1)
    with pytest.raises(ArgumentError, match=r"^brain has no time point 1: it has 1") as caught:
        source.volume(0, 1)
    assert caught.value.setting == "time"


def test_the_log_prints_nothing_by_default() -> None:
    handlers = logging.getLogger("napari_cropeq").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)


def test_describe_is_json(tmp_path: Path) -> None:
    described = {"axes": "CZYX", "Channel": {"Name": ["vessels", "nuclei"]}, **OME_SIZES}
    path = write_tiff(tmp_path / "a.ome.tif", values(2, 6, 40, 50), metadata=described)
    assert json.loads(json.dumps(open_image(path).describe())) == {
        "name": "a",
        "axes": "czyx",
        "shape": [2, 6, 40, 50],
        "dtype": "uint16",
        "voxel_size": [2.0, 0.5, 0.5],
        "unit": "micrometer",
        "translate": [0.0, 0.0, 0.0],
        "channels": ["vessels", "nuclei"],
        "path": str(path),
    }


def test_a_path_may_be_text_and_start_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_tiff(tmp_path / "Stack.TIFF", stack())
    source = open_image("~/Stack.TIFF")
    assert (source.name, source.path) == ("Stack", str(tmp_path / "Stack.TIFF"))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        pytest.param(text, unit, id=repr(text))
        for text, unit in {
            "µm": "micrometer",
            "μm": "micrometer",
            "um": "micrometer",
            "microns": "micrometer",
            "Micrometre": "micrometer",
            "nanometers": "nanometer",
            "mm": "millimeter",
            "Å": "angstrom",
            "inch": "inch",
            "pixels": "pixel",
            "reference frame": "pixel",
            "": "pixel",
            None: "pixel",
        }.items()
    ],
)
def test_units(text: str | None, unit: str) -> None:
    assert metadata.full_unit(text) == unit


def test_units_convert_without_rounding() -> None:
    assert metadata.in_one_unit([300.0, 0.3, 0.3], ["nanometer", "micrometer", "micrometer"]) == (
        (0.3, 0.3, 0.3),
        "micrometer",
    )
    assert metadata.in_one_unit([1.0, 1.0, 1.0], ["pixel", "micrometer", "micrometer"]) is None


def test_large_pages_are_read_in_parts() -> None:
    assert tiff._chunk(512, 1) == 512
    assert tiff._chunk(20000, 1) == 2048
    assert tiff._chunk(20000, 300) == 1800  # whole tiles
    assert tiff._chunk(20000, 5000) == 5000
