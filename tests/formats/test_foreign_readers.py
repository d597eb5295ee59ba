"""Results as other programs read them: the same voxels, at the same place, with the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import tifffile

from conftest import a_result, textured_volume
from napari_cropeq.core.geometry import Box
from napari_cropeq.run.export import export

DOCS = Path(__file__).parents[2] / "docs"
AXES, CHANNELS, UNIT = "tczyx", ["DAPI", "GFP"], "micrometer"
SCALE = (1.5, 1.0, 0.5, 0.5, 0.5)  # of the result: the source has slices 2.5 µm apart
TRANSLATION = (
    0.0,
    0.0,
    9.0,
    -3.0,
    0.25,
)  # the source begins at 10 µm, 1 µm deeper


@dataclass
class Seen:
    """What a program has read; None where it has no such notion."""

    voxels: np.ndarray
    axes: str = AXES
    scale: tuple[float, ...] | None = None
    translation: tuple[float, ...] | None = None
    units: tuple[str | None, ...] | None = None  # along z, y and x
    channels: list[str] | None = None
    coarse: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # scale and translation of the second level


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a folder with the same result as OME-Zarr and OME-TIFF, each with two levels, and its voxels."""
    folder = tmp_path_factory.mktemp("results")
    stacks = [textured_volume((4, 20, 270), seed) for seed in range(4)]
    result = a_result(
        np.stack(stacks).reshape(2, 2, 4, 20, 270),
        AXES,
        (2.5, 0.5, 0.5),
        translate=(10.0, -3.0, 0.25),
        channel_names=tuple(CHANNELS),
        channel_colors=("#0000ff", "#00ff00"),
        time_step=1.5,
        time_unit="second",
    )
    for name in ("stack.ome.zarr", "stack.ome.tif"):
        list(export(result, folder / name))
    voxels = [result.compute(index, Box.whole(result.sr_shape)) for index in result.leading_indices]
    return folder, np.stack(voxels).reshape(2, 2, *result.sr_shape)


def ome_zarr_py(folder: Path) -> Seen:
    reader = pytest.importorskip("ome_zarr.reader", reason="installed by scripts/setup only: see there")
    location = pytest.importorskip("ome_zarr.io").parse_url(folder / "stack.ome.zarr")
    (node,) = reader.Reader(location)()
    axes = node.metadata["axes"]
    placed = [
        tuple(tuple(step[step["type"]]) for step in level) for level in node.metadata["coordinateTransformations"]
    ]
    units = tuple(axis.get("unit") for axis in axes[-3:])
    names = "".join(axis["name"] for axis in axes)
    return Seen(node.data[0].compute(), names, *placed[0], units, node.metadata["channel_names"], placed[1])


def ngff_zarr(folder: Path) -> Seen:
    package = pytest.importorskip("ngff_zarr")
    found = package.from_ngff_zarr(folder / "stack.ome.zarr")
    image = found.images[0]
    placed = [tuple(tuple(d[a] for a in image.dims) for d in (i.scale, i.translation)) for i in found.images]
    units = tuple(image.axes_units[axis] for axis in "zyx")
    channels = [channel.label for channel in found.metadata.omero.channels]
    return Seen(np.asarray(image.data), "".join(image.dims), *placed[0], units, channels, placed[1])


def bioio_ome_zarr(folder: Path) -> Seen:
    reader = pytest.importorskip("bioio_ome_zarr", reason="installed by scripts/setup only: see there").Reader
    image = pytest.importorskip("bioio").BioImage(folder / "stack.ome.zarr", reader=reader)
    units = tuple(str(image.dimension_properties._asdict()[axis].unit) for axis in "ZYX")
    return Seen(image.data, image.dims.order.lower(), tuple(image.scale), None, units, image.channel_names)


def bioio_ome_tiff(folder: Path) -> Seen:
    reader = pytest.importorskip("bioio_ome_tiff").Reader
    image = pytest.importorskip("bioio").BioImage(folder / "stack.ome.tif", reader=reader)
    scale = (SCALE[0], 1.0, *image.physical_pixel_sizes)  # it reads no time step
    return Seen(image.data, image.dims.order.lower(), scale, channels=image.channel_names)


def through_tensorstore(folder: Path) -> Seen:
    path = folder / "stack.ome.zarr" / "0"
    store = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}).result()
    return Seen(store.read().result(), "".join(store.domain.labels))


def ome_types(folder: Path) -> Seen:
    xml = pytest.importorskip("ome_types").from_tiff(folder / "stack.ome.tif", validate=True)
    (image,) = xml.images
    pixels, first = image.pixels, image.pixels.planes[0]
    scale = (pixels.time_increment, 1.0, *(getattr(pixels, f"physical_size_{axis}") for axis in "zyx"))
    place = (0.0, 0.0, *(getattr(first, f"position_{axis}") for axis in "zyx"))
    units = {getattr(pixels, f"physical_size_{axis}_unit").value for axis in "zyx"}
    units |= {getattr(first, f"position_{axis}_unit").value for axis in "zyx"}
    assert units == {"µm"}
    assert pixels.time_increment_unit.value == "s"
    assert [p.position_z for p in pixels.planes[: pixels.size_z]] == [9.0 + 0.5 * n for n in range(pixels.size_z)]
    voxels = tifffile.imread(folder / "stack.ome.tif")  # ome-types reads no voxels
    return Seen(voxels, AXES, scale, place, (UNIT,) * 3, [channel.name for channel in pixels.channels])


def through_tifffile(folder: Path) -> Seen:
    """As Bio-Formats, and with it Fiji, finds the planes: a BigTIFF of OME-XML, whose pyramid is in SubIFDs."""
    with tifffile.TiffFile(folder / "stack.ome.tif") as file:
        assert file.is_bigtiff and file.is_ome and not file.is_imagej
        (series,) = file.series
        assert [level.shape[-2:] for level in series.levels] == [(20, 270), (10, 135)]
        return Seen(series.asarray(), series.axes.lower())


OLD_KEYWORD = "ignore:As of version 0.4.0, the parser argument is ignored:DeprecationWarning"  # of bioio-ome-tiff
READERS = [
    pytest.param(ome_zarr_py, id="ome-zarr-py"),
    pytest.param(ngff_zarr, id="ngff-zarr"),
    pytest.param(bioio_ome_zarr, id="bioio-ome-zarr"),
    pytest.param(through_tensorstore, id="tensorstore"),
    pytest.param(bioio_ome_tiff, id="bioio-ome-tiff", marks=pytest.mark.filterwarnings(OLD_KEYWORD)),
    pytest.param(ome_types, id="ome-types"),
    pytest.param(through_tifffile, id="tifffile"),
]


@pytest.mark.parametrize("read", READERS)
def test_others_see_the_same(results: tuple[Path, np.ndarray], read: Callable[[Path], Seen]) -> None:
    folder, voxels = results
    seen = read(folder)
    assert seen.axes == AXES
    np.testing.assert_array_equal(seen.voxels, voxels, strict=True)
    assert seen.scale in (None, SCALE)
    assert seen.translation in (None, TRANSLATION)
    assert seen.units in (None, (UNIT,) * 3)
    assert seen.channels in (None, CHANNELS)
    assert seen.coarse in (None, ((1.5, 1.0, 1.0, 1.0, 1.0), TRANSLATION))  # a coarse voxel lies at every second one


def test_the_hyperstack_of_the_docs(results: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Old versions of ImageJ open neither BigTIFF nor OME-XML: the docs have a script that converts a result."""
    folder, voxels = results
    (script,) = (block.split("```")[0] for block in (DOCS / "volume.md").read_text().split("```python\n")[1:])
    monkeypatch.chdir(folder)
    exec(script.replace("stack_SR", "stack"), {"__name__": "__main__"})
    with tifffile.TiffFile(folder / "stack_imagej.tif") as file:
        assert file.is_imagej and not file.is_bigtiff
        (series,) = file.series
        assert series.axes == "TZCYX"
        np.testing.assert_array_equal(series.asarray(), voxels.swapaxes(1, 2))
        stored = file.imagej_metadata
        assert stored["hyperstack"] and (stored["frames"], stored["slices"], stored["channels"]) == (2, 20, 2)
        assert (stored["spacing"], stored["unit"], stored["finterval"]) == (0.5, "um", 1.5)
        for axis in "XY":  # pixels per unit
            pixels, length = file.pages.first.tags[f"{axis}Resolution"].value
            assert pixels / length == 2.0
