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


@dataclass
class Seen:
    """What a program has read, by the letters of the axes; None where it has no such notion."""

    voxels: np.ndarray
    axes: str
    scale: dict[str, float | None] | None = None
    translation: dict[str, float] | None = None
    units: dict[str, str | None] | None = None
    channels: list[str] | None = None
    coarse: tuple[dict[str, float], ...] | None = None  # scale and translation of the second level


SPACE = {"z": 0.5, "y": 0.5, "x": 0.5}  # the slices of the source are 2.5 apart
PLACE = {"z": 9.0, "y": -3.0, "x": 0.25}  # the source begins at z = 10, which is 1 deeper
COARSE = {"z": 1.0, "y": 1.0, "x": 1.0}  # a coarse voxel lies at every second one

STACKS = {
    "times and channels": {
        "axes": "tczyx",
        "channel_names": ("DAPI", "GFP"),
        "channel_colors": ("#0000ff", "#00ff00"),
        "time_step": 1.5,
        "time_unit": "second",
    },
    "plain": {"axes": "zyx", "unit": "nanometer", "dtype": "float32"},
}


@pytest.fixture(scope="module", params=STACKS)
def result(request, tmp_path_factory) -> tuple[Path, Seen]:
    """Return a folder with the same result as OME-Zarr and OME-TIFF, each with two levels, and what is to be seen."""
    folder, options = tmp_path_factory.mktemp("results"), STACKS[request.param]
    leading = (2,) * (len(options["axes"]) - 3)
    stacks = [textured_volume((4, 20, 270), seed) for seed in range(2 ** len(leading))]
    data = np.stack(stacks).reshape(*leading, 4, 20, 270)
    computed = a_result(data, voxel_size=(2.5, 0.5, 0.5), translate=(10.0, -3.0, 0.25), **options)
    for name in ("stack.ome.zarr", "stack.ome.tif"):
        list(export(computed, folder / name))
    voxels = [computed.compute(index, Box.whole(computed.sr_shape)) for index in computed.leading_indices]
    time, origin, second = ({"t": value} if leading else {} for value in (1.5, 0.0, "second"))
    units = dict.fromkeys("zyx", options.get("unit", "micrometer")) | second
    voxels = np.stack(voxels).reshape(*leading, *computed.sr_shape)
    channels = list(options.get("channel_names", ())) or None
    expected = Seen(voxels, options["axes"], SPACE | time, PLACE | origin, units, channels)
    expected.coarse = COARSE | time, PLACE | origin
    return folder, expected


def ome_zarr_py(folder: Path) -> Seen:
    reader = pytest.importorskip("ome_zarr.reader", reason="installed by scripts/setup only: see there")
    location = pytest.importorskip("ome_zarr.io").parse_url(folder / "stack.ome.zarr")
    (node,) = reader.Reader(location)()
    axes = {axis["name"]: axis.get("unit") for axis in node.metadata["axes"]}
    levels = node.metadata["coordinateTransformations"]
    fine, coarse = ([dict(zip(axes, step[step["type"]], strict=True)) for step in level] for level in levels)
    return Seen(node.data[0].compute(), "".join(axes), *fine, axes, node.metadata.get("channel_names"), tuple(coarse))


def ngff_zarr(folder: Path) -> Seen:
    found = pytest.importorskip("ngff_zarr").from_ngff_zarr(folder / "stack.ome.zarr")
    fine, coarse = found.images
    channels = [channel.label for channel in found.metadata.omero.channels] if found.metadata.omero else None
    placed = fine.scale, fine.translation, fine.axes_units
    return Seen(np.asarray(fine.data), "".join(fine.dims), *placed, channels, (coarse.scale, coarse.translation))


def bioio_ome_zarr(folder: Path) -> Seen:
    reader = pytest.importorskip("bioio_ome_zarr", reason="installed by scripts/setup only: see there").Reader
    image = pytest.importorskip("bioio").BioImage(folder / "stack.ome.zarr", reader=reader)
    units = {axis: str(image.dimension_properties._asdict()[axis.upper()].unit) for axis in "zyx"}
    return Seen(*plain(image), lowered(image.scale), units=units, channels=image.channel_names)


def bioio_ome_tiff(folder: Path) -> Seen:
    reader = pytest.importorskip("bioio_ome_tiff").Reader
    image = pytest.importorskip("bioio").BioImage(folder / "stack.ome.tif", reader=reader)
    return Seen(*plain(image), lowered(image.physical_pixel_sizes), channels=image.channel_names)


def plain(image) -> tuple[np.ndarray, str]:
    """Return the voxels of bioio, which adds the axes that an image lacks, and the axes, without these."""
    if image.shape[:2] == (1, 1):
        return image.data[0, 0], "zyx"
    return image.data, image.dims.order.lower()


def lowered(sizes) -> dict[str, float | None]:
    return {axis.lower(): size for axis, size in sizes._asdict().items()}


def through_tensorstore(folder: Path) -> Seen:
    path = folder / "stack.ome.zarr" / "0"
    store = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}).result()
    return Seen(store.read().result(), "".join(store.domain.labels))


LENGTHS = {"µm": "micrometer", "nm": "nanometer"}


def ome_types(folder: Path) -> Seen:
    xml = pytest.importorskip("ome_types").from_tiff(folder / "stack.ome.tif", validate=True)
    (image,) = xml.images
    pixels, first = image.pixels, image.pixels.planes[0]
    scale = {axis: getattr(pixels, f"physical_size_{axis}") for axis in "zyx"} | {"t": pixels.time_increment}
    place = {axis: getattr(first, f"position_{axis}") for axis in "zyx"}
    units = {axis: LENGTHS[getattr(pixels, f"physical_size_{axis}_unit").value] for axis in "zyx"}
    assert units == {axis: LENGTHS[getattr(first, f"position_{axis}_unit").value] for axis in "zyx"}
    assert pixels.time_increment is None or pixels.time_increment_unit.value == "s"
    assert [p.position_z for p in pixels.planes[: pixels.size_z]] == [9.0 + 0.5 * n for n in range(pixels.size_z)]
    voxels = tifffile.imread(folder / "stack.ome.tif")  # ome-types reads no voxels
    axes = "".join(a for a in "tczyx" if getattr(pixels, f"size_{a}") > 1)
    return Seen(voxels, axes, scale, place, units, [channel.name for channel in pixels.channels])


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
def test_others_see_the_same(result: tuple[Path, Seen], read: Callable[[Path], Seen]) -> None:
    folder, expected = result
    seen = read(folder)
    assert seen.axes == expected.axes
    np.testing.assert_array_equal(seen.voxels, expected.voxels, strict=True)
    for name in ("scale", "translation", "units"):
        assert_same(getattr(seen, name), getattr(expected, name))
    if expected.channels is not None:
        assert seen.channels in (None, expected.channels)
    for found, wanted in zip(seen.coarse or (), expected.coarse or (), strict=seen.coarse is not None):
        assert_same(found, wanted)


def assert_same(found: dict | None, expected: dict | None) -> None:
    """Check all axes that a program has a value for: those in space always, if it has any."""
    if found is None or expected is None:
        return
    assert {axis: found[axis] for axis in "zyx"} == {axis: expected[axis] for axis in "zyx"}
    assert found.get("t") in (None, expected.get("t"))


def test_the_hyperstack_of_the_docs(result: tuple[Path, Seen], monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageJ by itself opens neither BigTIFF nor OME-XML: the docs have a script that converts a result."""
    folder, expected = result
    (script,) = (block.split("```")[0] for block in (DOCS / "volume.md").read_text().split("```python\n")[1:])
    monkeypatch.chdir(folder)
    exec(script.replace("stack_SR", "stack"), {"__name__": "__main__"})
    with tifffile.TiffFile(folder / "stack_imagej.tif") as file:
        assert file.is_imagej and not file.is_bigtiff
        (series,) = file.series
        several = expected.axes == "tczyx"
        assert series.axes == ("TZCYX" if several else "ZYX")
        voxels = expected.voxels.swapaxes(1, 2) if several else expected.voxels
        np.testing.assert_array_equal(series.asarray(), voxels, strict=True)
        stored = file.imagej_metadata
        assert stored["slices"] == 20
        assert (stored["spacing"], stored["unit"]) == (0.5, expected.units["x"])
        if several:
            assert stored["hyperstack"]
            assert (stored["frames"], stored["channels"], stored["finterval"]) == (2, 2, 1.5)
        for axis in "XY":  # pixels per unit
            pixels, length = file.pages.first.tags[f"{axis}Resolution"].value
            assert pixels / length == 2.0
