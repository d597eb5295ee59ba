"""``cropeq mip``: projections of a result and of its interpolated source, the figure, and refused arguments."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import dask.array as da
import numpy as np
import pytest
import tifffile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import ndimage

from conftest import a_result, a_source, textured_volume
from files import a_model, a_stack, everything
from napari_cropeq.cli.main import main
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.tiles import pick
from napari_cropeq.evidence.evaluate.truth import Degraded
from napari_cropeq.evidence.evaluate.upscaling import cubic, cubic_box
from napari_cropeq.evidence.mip import projection as projecting
from napari_cropeq.evidence.mip.figure import bar_length, colored, draw_projection
from napari_cropeq.evidence.mip.projection import PERCENTILES, Projection, block_size, limits_of
from napari_cropeq.evidence.mip.regions import Zoom, chosen_slab
from napari_cropeq.formats.image import Image, acquisition_of
from napari_cropeq.formats.open import open_image
from napari_cropeq.run.export import export

SIZES = {0: (2.5, 1.0, 1.0), 1: (1.0, 2.433, 1.0), 2: (1.0, 1.0, 4.0)}
CHUNKS = {"zarr": (8, 16, 12), "pages": (1, 999, 999), "whole": (999, 999, 999)}


def chunked(data: np.ndarray, chunks: tuple[int, ...], size, axes: str = "zyx", **options) -> Image:
    leading = (1,) * (data.ndim - 3)
    lazy = da.from_array(data, chunks=(*leading, *map(min, chunks, data.shape[-3:])), name=False)
    return a_source(lazy, axes, size, **options)


def pair(axial: int = 0, chunks: str = "zarr", channels: int = 0, dtype=np.uint16) -> tuple[Image, Image]:
    """Return a volume on the SR grid of a source, used as its result, and the source."""
    size, shape = SIZES[axial], [21, 26, 33]
    source = chunked(stacked(tuple(shape), channels).astype(dtype), CHUNKS[chunks], size, axes_of(channels))
    acquisition = acquisition_of(source)
    data = stacked(acquisition.sr_shape(shape), channels, seed=7).astype(dtype)
    return chunked(data, CHUNKS[chunks], acquisition.sr_voxel_size, axes_of(channels)), source


def axes_of(channels: int) -> str:
    return "czyx" if channels else "zyx"


def stacked(shape, channels: int, seed: int = 0) -> np.ndarray:
    every = [textured_volume(shape, seed + number) for number in range(channels or 1)]
    return np.stack(every) if channels else every[0]


def run(projection: Projection) -> Projection:
    shares = list(projection.run())
    assert shares == sorted(shares) and shares[-1] == 1
    return projection


def lying(volume: np.ndarray, along: int, axial: int) -> np.ndarray:
    """Return numpy's projection with a horizontal axial axis."""
    image = volume.max(axis=along)
    lateral = 3 - along - axial
    return image if lateral < axial else image.T


def full_cubic(source: Image, channel: int = 0) -> np.ndarray:
    acquisition = acquisition_of(source)
    data = source.volume(channel).compute().astype(np.float32)
    return cubic(Degraded(data, acquisition, acquisition.sr_shape(data.shape), 0))


def close(image: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether float32 images are equal up to rounding."""
    return image.shape == expected.shape and np.allclose(image, expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("voxels", [2**23, 3000, 50], ids=["one-block", "some-blocks", "many-blocks"])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("axial", "along"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_projections_equal_those_of_the_whole_volumes(monkeypatch, axial, along, chunks, voxels):
    monkeypatch.setattr(projecting, "VOXELS", voxels)
    result, source = pair(axial, chunks)
    if voxels == 50:  # blocks of a voxel or so take long
        result, source = (chunked(s.data[:8, :9, :10].compute(), CHUNKS[chunks], SIZES[axial]) for s in (source,) * 2)
        acquisition = acquisition_of(source)
        data = textured_volume(acquisition.sr_shape(source.data.shape), 5)
        result = chunked(data, CHUNKS[chunks], acquisition.sr_voxel_size)
    projection = run(Projection(result, source, along=along))
    (image,), (interpolated,) = projection.result, projection.cubic
    assert image.dtype == np.uint16 and image.shape == projection.shape
    assert np.array_equal(image, lying(result.data.compute(), along, axial))
    assert close(interpolated, lying(full_cubic(source), along, axial))


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.uint32], ids=lambda kind: kind.__name__)
def test_any_intensities(kind):
    """Also if all are below zero, and if float32 would round."""
    result, source = pair(dtype=np.float64)
    far = {np.float32: -9000.0, np.int16: -9000.0, np.uint32: 2.0**31}[kind]
    data = (result.data.compute() + far).astype(kind)
    projection = run(Projection(chunked(data, CHUNKS["zarr"], (1.0, 1.0, 1.0)), source))
    assert projection.result[0].dtype == kind and np.array_equal(projection.result[0], data.max(axis=2).T)


def test_interpolation_precedes_projection():
    result, source = pair()
    projection = run(Projection(result, source, along=1))
    late = source.data.compute().max(axis=1, keepdims=True).astype(np.float32)
    acquisition = acquisition_of(source)
    late = cubic(Degraded(late, acquisition, acquisition.sr_shape(late.shape), 0))[:, 0].T
    assert np.abs(late - projection.cubic[0]).max() > 10, "the two do not commute"


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("slices", [5, 40, 300])
def test_a_box_of_the_interpolation_equals_that_of_the_whole(axial, slices):
    """Also far from both ends, where only nearby slices are read."""
    shape = [3, 3, 3]
    shape[axial] = slices
    data = textured_volume(tuple(shape)).astype(np.float32)
    acquisition = acquisition_of(a_source(data, voxel_size=SIZES[axial]))
    whole = cubic(Degraded(data, acquisition, acquisition.sr_shape(shape), 0))
    lines = [positions(n, acquisition.factor if a == axial else 1) for a, n in enumerate(shape)]
    places = np.meshgrid(*lines, indexing="ij")
    spline = ndimage.map_coordinates(data.astype(np.float64), places, order=3, mode="mirror")
    assert np.abs(whole - spline).max() < 1e-3
    length = whole.shape[axial]
    for start, stop in ((0, 1), (0, length), (length // 2, length // 2 + 3), (length - 1, length)):
        box = Box(pick([axial], start, 1), pick([axial], stop, 3))
        assert close(cubic_box(data, acquisition, box), whole[box.slices])


def positions(samples: int, factor: float) -> np.ndarray:
    return (np.arange(math.floor(samples * factor + 1e-6)) + 0.5) / factor - 0.5


def test_the_slab():
    result, source = pair()
    projection = run(Projection(result, source, slab=(5, 9)))
    assert np.array_equal(projection.result[0], result.data.compute()[:, :, 5:9].max(axis=2).T)
    assert close(projection.cubic[0], full_cubic(source)[:, :, 5:9].max(axis=2).T)


BLOCKS = [
    pytest.param((500, 64, 64), (1, 64, 64), (500, 64, 64), id="pages"),
    pytest.param((1000, 2048, 2048), (128, 128, 128), (512, 128, 128), id="chunks-along-the-axial-axis"),
    pytest.param((100, 2048, 4096), (32, 64, 64), (100, 1280, 64), id="then-across"),
    pytest.param((512, 4096, 4096), (512, 512, 512), (512, 512, 32), id="a-chunk-that-is-too-large"),
    pytest.param((9, 8000, 8000), (1, 8000, 8000), (1, 8000, 1048), id="a-page-that-is-too-large"),
]


@pytest.mark.parametrize(("region", "chunk", "expected"), BLOCKS)
def test_blocks_are_bounded(region, chunk, expected):
    """Blocks grow in whole chunks: axially, then along the lines of the picture, then along the projected axis."""
    size = block_size(region, chunk, (0, 1, 2))
    assert math.prod(size) <= projecting.VOXELS
    assert size == expected


class Made:
    """A volume (z, y, x) whose voxels are generated as they are read."""

    dtype, ndim = np.dtype(np.uint16), 3

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def __getitem__(self, key):
        z, y, x = np.ogrid[key]
        return ((7 * z + 3 * y + x) % 1000).astype(np.uint16)


def test_memory_is_bounded(monkeypatch):
    """To a few blocks, for volumes of any size."""
    monkeypatch.setattr(projecting, "VOXELS", 2**17)
    monkeypatch.setattr(projecting, "CAP", 2**20)
    monkeypatch.setattr("napari_cropeq.core.normalisation.SAMPLE_VOXELS", 2**16)
    shape, size = (80, 300, 300), (2.0, 1.0, 1.0)
    meta = np.empty((0, 0, 0), np.uint16)
    source, result = (
        a_source(da.from_array(Made(s), chunks=(16, 50, 75), name=False, meta=meta), voxel_size=v)
        for s, v in ((shape, size), ((160, *shape[1:]), (1.0, 1.0, 1.0)))
    )
    projection = Projection(result, source)
    next(projection.run())  # imports and tables
    tracemalloc.start()
    try:
        run(projection)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < math.prod(shape), "half of the source, a quarter of the result"


def test_limits_are_percentiles_of_the_interpolation():
    result, source = pair(channels=2)
    projection = run(Projection(result, source))
    for channel, limits in enumerate(projection.limits):
        image = full_cubic(source, channel).max(axis=2)
        assert limits == pytest.approx(np.percentile(image, (0.5, 99.8)), rel=1e-6)
    assert projection.limits[0] != projection.limits[1]


FLAT = [
    pytest.param([5.0] * 99 + [9.0], (5.0, 9.0), id="one-voxel-differs"),
    pytest.param([5.0] * 99, (5.0, 6.0), id="flat"),
]


@pytest.mark.parametrize(("values", "expected"), FLAT)
def test_limits_of_nearly_flat_projections(monkeypatch, values, expected):
    monkeypatch.setattr(projecting, "PERCENTILES", (5, 95))
    assert limits_of(np.array([values], np.float32)) == expected


COLORS = [
    pytest.param([2.0], [(0.5, 0.5, 0.5)], id="gray"),
    pytest.param([2.0, 0.0], [(0, 0.5, 0.5)], id="first-in-cyan"),
    pytest.param([0.0, 2.0], [(0.5, 0, 0.5)], id="second-in-magenta"),
    pytest.param([2.0, 2.0], [(0.5, 0.5, 1)], id="added"),
    pytest.param([9.0, 9.0], [(1, 1, 1)], id="clipped-above"),
    pytest.param([-9.0, 1.0], [(0.25, 0, 0.25)], id="clipped-below"),
]


@pytest.mark.parametrize(("values", "expected"), COLORS)
def test_colors(values, expected):
    images = [np.array([[value]]) for value in values]
    picture = colored(images, [(0.0, 4.0)] * len(images))
    assert picture.shape == (1, 1, 3) and picture[0].tolist() == [list(color) for color in expected]


BARS = [
    pytest.param(100, 1.0, "micrometer", "20 µm", 20, id="fifth"),
    pytest.param(116, 0.411, "micrometer", "10 µm", 10 / 0.411, id="paper-step"),
    pytest.param(29, 0.411, "micrometer", "2 µm", 2 / 0.411, id="zoomed"),
    pytest.param(400, 0.008, "micrometer", "0.5 µm", 62.5, id="below-one"),
    pytest.param(29, 0.004, "micrometer", "0.02 µm", 5, id="far-below-one"),
    pytest.param(2000, 8.0, "nanometer", "5000 nm", 625, id="nm"),
    pytest.param(256, 0.9, "millimeter", "50 mm", 50 / 0.9, id="mm"),
    pytest.param(100, 1.0, "angstrom", "20 Å", 20, id="angstrom"),
    pytest.param(40, 10000.0, "micrometer", "100000 µm", 10, id="long"),
    pytest.param(100, 0.3, "pixel", "20 voxels", 20, id="voxels"),
    pytest.param(4, 1.0, "pixel", "1 voxel", 1, id="one-voxel"),
    pytest.param(1, 1.0, "pixel", "1 voxel", 1, id="no-less"),
]


@pytest.mark.parametrize(("width", "step", "unit", "text", "voxels"), BARS)
def test_scale_bars(width, step, unit, text, voxels):
    length = bar_length(width, step, unit)
    assert length.text == text and length.voxels == pytest.approx(voxels)


@pytest.mark.parametrize("unit", ["micrometer", "pixel"])
def test_scale_bars_are_about_a_fifth(unit):
    for width in range(10, 5000, 7):
        length = bar_length(width, 1.0, unit)
        digits = length.text.split()[0].strip("0.")
        assert digits in ("1", "2", "5") and 0.12 < length.voxels / width < 0.33


def test_the_zoom_has_the_most_structure():
    source = chunked(textured_volume((16, 40, 44)), CHUNKS["zarr"], (4.0, 1.0, 1.0))
    data = np.full((64, 40, 44), 1000, np.uint16)
    data[20:52, 5:37, :] = textured_volume((32, 32, 44)) * 3
    projection = run(Projection(chunked(data, CHUNKS["zarr"], (1.0, 1.0, 1.0)), source, whole=True))
    zoom = projection.zoom
    assert zoom.size == 32 and abs(zoom.axial - 20) <= 1 and abs(zoom.lateral - 5) <= 1
    assert np.array_equal(zoom.of(projection.result[0]), data.max(axis=2).T[zoom.lateral :, zoom.axial :][:32, :32])


SIDES = [
    pytest.param((510, 75), 64, (64, 64), id="a-wide-stack"),
    pytest.param((510, 20), 64, (64, 20), id="a-wide-and-shallow-one"),
    pytest.param((20, 510), 64, (20, 64), id="a-deep-one"),
    pytest.param((900, 600), 200, (200, 200), id="a-large-one"),
    pytest.param((40, 64), 32, (32, 32), id="a-small-one"),
    pytest.param((3, 4), 2, (2, 2), id="a-tiny-one"),
]


@pytest.mark.parametrize(("shape", "size", "shown"), SIDES)
def test_the_zoom_is_large_enough_for_structure(shape, size, shown):
    """A third of the 45 SR voxels of a shallow stack would be 15: too few to see anything."""
    change = np.zeros(shape)
    change[-1, -1] = 1
    zoom = Zoom.on_most(change)
    assert zoom.size == size and zoom.of(change).shape == zoom.shape(shape) == shown
    assert zoom.of(change).sum() == 1
    zoom.check(shape, ("y", "z"))  # what is reported can be given


def volume_of(bright: float, shape: tuple[int, int, int] = (10, 30, 400)) -> np.ndarray:
    """Return a volume with a share of bright voxels."""
    return (1000 * (np.random.default_rng(0).random(shape) < bright)).astype(np.uint16) + 7


DEPTHS = [
    pytest.param([0.02], 400, (0, 400), id="sparse"),
    pytest.param([0.5], 400, (192, 208), id="dense"),
    pytest.param([0.5], 401, (192, 208), id="dense-and-odd"),
    pytest.param([0.5], 40, (0, 40), id="dense-and-thin"),
    pytest.param([0.02, 0.5], 400, (192, 208), id="one-of-two-channels-is-dense"),
]


@pytest.mark.parametrize(("bright", "length", "expected"), DEPTHS)
def test_a_dense_volume_is_projected_in_a_slab(bright, length, expected):
    """By default; else the structures of the whole depth would hide each other."""
    slab = chosen_slab([volume_of(share) for share in bright], PERCENTILES, length)
    assert (slab.start, slab.stop) == expected
    assert slab.is_thinned == (expected != (0, length))
    assert slab.crossed == pytest.approx(max(bright) * length, rel=0.1)


def test_the_slab_of_a_dense_volume_is_told_and_can_be_the_whole(tmp_path, capsys):
    data = volume_of(0.5, (8, 20, 90))
    a_stack(tmp_path / "a.ome.tif", data)
    a_stack(tmp_path / "SR.ome.tif", np.repeat(data, 4, axis=0), size=(1, 1, 1))
    words = ["mip", str(tmp_path / "SR.ome.tif"), str(tmp_path / "a.ome.tif"), "-o", str(tmp_path / "out.png")]
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["slab"] == [37, 53] and report["slab_chosen"]
    assert report["bright_voxels_crossed"] == pytest.approx(45, rel=0.1)
    assert err == (
        "In the whole depth of a, 90 SR voxels along x, structures hide each other: 37 to 53 are projected "
        "(--slab, --whole).\n"
    )
    assert main([*words, "--whole", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["slab"] == [0, 90] and not report["slab_chosen"] and report["bright_voxels_crossed"] is None
    with pytest.raises(SystemExit):
        main([*words, "--whole", "--slab", "1", "2"])


@pytest.mark.parametrize("whole", [False, True], ids=["slab", "whole"])
def test_the_caption_says_that_a_slab_was_chosen(whole):
    data = volume_of(0.5, (8, 20, 90))
    source = chunked(data, CHUNKS["whole"], (4.0, 1.0, 1.0))
    result = chunked(np.repeat(data, 4, axis=0), CHUNKS["whole"], (1.0, 1.0, 1.0))
    projection = run(Projection(result, source, whole=whole))
    assert projection.slab.is_thinned != whole
    texts = [text.get_text() for text in draw_projection(projection).texts]
    voxels = "all 90 SR voxels" if whole else "SR voxels 37 to 53 of 90"
    assert any(text.endswith(f"{voxels}, 1 µm each") for text in texts), texts
    assert any("structures hide each other" in text for text in texts) != whole


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_shown_channels(channels):
    result, source = pair(channels=channels)
    assert Projection(result, source).channels == [0, 1][:channels]
    chosen = run(Projection(result, source, channels=[channels - 1]))
    assert np.array_equal(chosen.result[0], result.data[-1].compute().max(axis=2).T)
    assert close(chosen.cubic[0], full_cubic(source, channels - 1).max(axis=2).T)


SHAPES = [
    pytest.param((8, 20, 24), id="nearly-square"),
    pytest.param((5, 200, 24), id="wide"),
    pytest.param((1, 200, 24), id="wide-and-shallow"),
    pytest.param((8, 40, 1500), id="more-voxels-than-pixels"),
    pytest.param((300, 10, 24), id="deep"),
    pytest.param((40, 3, 24), id="small-and-deep"),
    pytest.param((8, 20, 90), id="with-a-chosen-slab"),
]


@pytest.mark.parametrize("unit", ["micrometer", "pixel"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_stretched_and_no_text_overlaps(shape, unit):
    """Names may be long and contain characters that start a formula in matplotlib."""
    names = (r"actin $\nothing$ 488 nm excitation, second antibody", "W" * 60)
    options = {"unit": unit, "channel_names": names}
    source = chunked(stacked(shape, 2), CHUNKS["whole"], (4.0, 1.0, 1.0), "czyx", **options)
    result = chunked(stacked((4 * shape[0], *shape[1:]), 2), CHUNKS["whole"], (1.0, 1.0, 1.0), "czyx", **options)
    along = 1 if shape[2] == 1500 else 2
    slab = None if shape[2] == 90 else (0, 9)
    projection = run(Projection(result, source, along=along, slab=slab))
    figure = draw_projection(projection)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    wholes, zooms = figure.axes[::2], figure.axes[1::2]
    zoomed = projection.zoom.shape(projection.shape)[:: -1 if projection.is_upright else 1]
    shapes = [*[projection.picture_shape] * 2, *[zoomed] * 2]
    for axes, shown in zip([*wholes, *zooms], shapes, strict=True):
        assert axes.images[0].get_array().shape == (*shown, 3)
        box = axes.get_window_extent(renderer)
        assert box.width / shown[1] == pytest.approx(box.height / shown[0], rel=1e-6)
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert len(boxes) == 2 + projection.slab.is_thinned + 2 + 4 + 3 + 4
    for number, box in enumerate(boxes):
        assert box.width > 5 and box.height > 5, texts[number]
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
        assert not [texts[other].get_text() for other in range(number) if box.overlaps(boxes[other])], texts[number]


def test_a_stack_much_wider_than_deep_is_drawn_upright():
    """The axial axis is vertical, and the pictures are above each other, so that they are large."""
    source = chunked(textured_volume((5, 200, 24)), CHUNKS["whole"], (4.0, 1.0, 1.0))
    result = chunked(textured_volume((20, 200, 24), 3), CHUNKS["whole"], (1.0, 1.0, 1.0))
    projection = run(Projection(result, source, zoom=Zoom(2, 30, 9)))
    before, near, after, close_up = draw_projection(projection).axes
    for axes, images in ((before, projection.cubic), (after, projection.result)):
        assert np.array_equal(axes.images[0].get_array(), colored(images, projection.limits).swapaxes(0, 1))
        mark = axes.patches[0]
        assert (*mark.get_xy(), mark.get_width(), mark.get_height()) == (29.5, 1.5, 9, 9)
    assert np.array_equal(near.images[0].get_array(), before.images[0].get_array()[2:11, 30:39])
    assert np.array_equal(close_up.images[0].get_array(), after.images[0].get_array()[2:11, 30:39])
    one, two = before.get_position(), after.get_position()
    assert (one.x0, one.x1) == (two.x0, two.x1) and one.y0 > two.y1 and one.width > 0.7
    report = projection.report()
    assert report["axes"] == {"horizontal": "y", "vertical": "z", "along": "x"} and report["shape"] == [20, 200]


def test_pictures_share_limits_and_the_rectangle_is_the_zoom():
    result, source = pair(channels=2)
    projection = run(Projection(result, source, zoom=Zoom(4, 3, 9)))
    before, near, after, close_up = draw_projection(projection).axes
    for axes, images in ((before, projection.cubic), (after, projection.result)):
        assert np.array_equal(axes.images[0].get_array(), colored(images, projection.limits))
        mark = axes.patches[0]
        assert (*mark.get_xy(), mark.get_width(), mark.get_height()) == (3.5, 2.5, 9, 9)
    assert np.array_equal(near.images[0].get_array(), before.images[0].get_array()[3:12, 4:13])
    assert np.array_equal(close_up.images[0].get_array(), after.images[0].get_array()[3:12, 4:13])
    bar = before.patches[1]
    assert bar.get_width() == pytest.approx(10) and before.texts[0].get_text() == "10 µm"


# The command, on a stack of two channels and its exported result.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an OME-TIFF of two channels, a model, and their export."""
    folder = tmp_path_factory.mktemp("mip")
    data = np.stack([textured_volume((8, 20, 40), seed) for seed in (1, 2)])
    a_stack(folder / "a.ome.tif", data, axes="CZYX")
    a_stack(folder / "nan.ome.tif", with_nan(data), axes="CZYX")
    a_stack(folder / "flat.ome.tif", np.full_like(data, 3), axes="CZYX")
    a_stack(folder / "one.ome.tif", data[0])
    a_stack(folder / "larger.ome.tif", np.stack([textured_volume((9, 20, 40))] * 2), axes="CZYX")
    a_stack(folder / "finer.ome.tif", data, size=(2.0, 0.5, 0.5), axes="CZYX")
    a_stack(folder / "isotropic.ome.tif", data, size=(1.0, 1.0, 1.0), axes="CZYX")
    tifffile.imwrite(folder / "unknown.ome.tif", data, metadata={"axes": "CZYX"}, photometric="minisblack", ome=True)
    model = a_model()
    model.save(folder / "m.safetensors")
    for name in ("SR.ome.zarr", "SR.ome.tif"):
        words = ["export", str(folder / "a.ome.tif"), "-m", str(folder / "m.safetensors"), "-o", str(folder / name)]
        assert main([*words, "--device", "cpu"]) == 0
    return folder


def with_nan(data: np.ndarray) -> np.ndarray:
    holed = data.astype(np.float32)
    holed[1, 3, 4, 5] = np.nan
    return holed


@pytest.mark.parametrize("result", ["SR.ome.zarr", "SR.ome.tif"])
def test_the_command(made, tmp_path, capsys, result):
    out = tmp_path / "out.png"
    words = ["mip", str(made / result), str(made / "a.ome.tif"), "-o", str(out)]
    assert main([*words, "--whole"]) == 0
    printed, err = capsys.readouterr()
    assert printed.startswith(f"{out}: 32 x 20 SR voxels, along x, ") and err == ""
    assert everything(tmp_path) == ["out.json", "out.png"]
    assert out.read_bytes().startswith(b"\x89PNG")
    words.append("--overwrite")
    assert main([*words, "--along", "y", "--channels", "1", "--slab", "2", "7", "--zoom", "3", "4", "6", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.pop("files") == [str(out), str(tmp_path / "out.json")]
    assert json.loads((tmp_path / "out.json").read_text()) == report
    expected = SuperResolution(open_image(made / "a.ome.tif"), a_model(), device="cpu")
    assert report["sr_shape"] == list(expected.sr_shape) == [32, 20, 40] and report["shape"] == [40, 32]
    assert report["axes"] == {"horizontal": "z", "vertical": "x", "along": "y"}
    assert report["voxel_size"] == [1, 1, 1] and report["unit"] == "micrometer" and report["factor"] == 4
    assert report["slab"] == [2, 7] and report["zoom"] == {"axial": 3, "lateral": 4, "size": 6}
    (channel,) = report["channels"]
    image = full_cubic(open_image(made / "a.ome.tif"), 1)[:, 2:7].max(axis=1)
    assert channel["channel"] == 1 and channel["limits"] == pytest.approx(np.percentile(image, (0.5, 99.8)), rel=1e-6)
    assert report["seconds"] > 0 and {"napari-cropeq", "numpy"} <= set(report["machine"]["versions"])


def test_projections_of_the_stored_result(made):
    projection = run(Projection(open_image(made / "SR.ome.zarr"), open_image(made / "a.ome.tif"), whole=True))
    expected = SuperResolution(open_image(made / "a.ome.tif"), a_model(), device="cpu")
    for channel, image in enumerate(projection.result):
        whole = expected.compute((channel,), Box.whole(expected.sr_shape))
        assert np.array_equal(image, whole.max(axis=2).T)


def test_a_given_voxel_size(made, tmp_path):
    words = ["mip", str(made / "SR.ome.zarr"), str(made / "unknown.ome.tif"), "-o", str(tmp_path / "out.png")]
    assert main([*words, "--voxel-size", "4", "1", "1"]) == 0


def test_more_channels_than_colors(tmp_path, capsys):
    result = a_result(np.stack([textured_volume((8, 20, 40))] * 3), "czyx", (4.0, 1.0, 1.0))
    source, out = tmp_path / "a.ome.tif", tmp_path / "out.png"
    a_stack(source, np.stack([textured_volume((8, 20, 40))] * 3), axes="CZYX")
    a_stack(tmp_path / "SR.ome.tif", np.zeros((3, *result.sr_shape), np.uint16), size=(1, 1, 1), axes="CZYX")
    words = ["mip", str(tmp_path / "SR.ome.tif"), str(source), "-o", str(out), "--whole"]
    assert main(words) == 0
    assert capsys.readouterr().err == "a has 3 channels: 0, 1 are shown (--channels).\n"
    assert main([*words, "--channels", "2,0", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


REFUSED = [
    pytest.param(
        "SR.ome.zarr larger.ome.tif", "has 32 x 20 x 40 voxels, but the SR grid of larger has 36 x 20 x 40", id="shape"
    ),
    pytest.param(
        "SR.ome.zarr finer.ome.tif",
        "are 1 x 1 x 1 micrometer, but those of the SR grid of finer are 0.5 x 0.5 x 0.5",
        id="voxels",
    ),
    pytest.param("a.ome.tif SR.ome.zarr", "The volume is isotropic", id="swapped"),
    pytest.param("SR.ome.zarr one.ome.tif", "The number of channels is 2 in the result and 1 in one.", id="channels"),
    pytest.param("SR.ome.zarr isotropic.ome.tif", "The volume is isotropic", id="isotropic"),
    pytest.param("SR.ome.zarr unknown.ome.tif", "The voxel size of unknown is not known", id="voxel-size"),
    pytest.param(
        "SR.ome.zarr flat.ome.tif", "The source is constant (flat, channel 0): every voxel is 3", id="constant"
    ),
    pytest.param("SR.ome.zarr nan.ome.tif", "1 voxel in nan, channel 1 is NaN or infinite", id="nan"),
    pytest.param("SR.ome.zarr none.ome.tif", "There is no file", id="no-source"),
    pytest.param("none.ome.zarr a.ome.tif", "There is no file", id="no-result"),
    pytest.param("--channels 2", "a has no channel 2", id="no-such-channel"),
    pytest.param("--channels=-1", "a has no channel -1", id="negative-channel"),
    pytest.param("--channels 1,1", "The channels 1, 1 cannot be drawn", id="a-channel-twice"),
    pytest.param("--channels 0,1,0", "The channels 0, 1, 0 cannot be drawn", id="three-channels"),
    pytest.param("--time 1", "has no time point 1: it has 1", id="no-such-time"),
    pytest.param(
        "--along z",
        "z is the axial axis; a projection along it does not show the axial direction. Choose y or x.",
        id="axial",
    ),
    pytest.param("--slab 4 41", "The slab 4 to 41 is empty, or not within the 40 SR voxels along x.", id="slab-beyond"),
    pytest.param("--slab 4 4", "The slab 4 to 4 is empty", id="slab-of-nothing"),
    pytest.param("--slab=-1 4", "The slab -1 to 4 is empty, or not within", id="slab-before"),
    pytest.param("--along y --slab 0 21", "not within the 20 SR voxels along y", id="slab-of-the-other-axis"),
    pytest.param("--zoom 0 0 33", "The side of the zoom (33 SR voxels) is not between 1 and 32", id="zoom-too-large"),
    pytest.param("--zoom 0 0 0", "The side of the zoom (0 SR voxels) is not between 1 and 32", id="zoom-of-nothing"),
    pytest.param(
        "--zoom 23 0 10",
        "from 23 along z and 0 along y is not within the projection. Start at 0 to 22",
        id="zoom-axial",
    ),
    pytest.param("--zoom 0 11 10", "Start at 0 to 22 and 0 to 10, or make it smaller.", id="zoom-lateral"),
    pytest.param("-o OUT/out.tif", "The name 'out.tif' does not end in .png", id="no-png"),
    pytest.param("-o OUT/none/out.png", "none does not exist or is not writable", id="no-folder"),
    pytest.param("-o OUT/folder.png", "folder.png is a folder. Choose another name for the picture.", id="a-folder"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_unsuitable_arguments_are_refused_before_any_work(made, tmp_path, capsys, words, message):
    (tmp_path / "folder.png").mkdir()
    given = words.replace("OUT", str(tmp_path)).replace("=-", " -").split()
    files = [given.pop(0), given.pop(0)] if not given[0].startswith("-") else ["SR.ome.zarr", "a.ome.tif"]
    output = [] if "-o" in given else ["-o", str(tmp_path / "out.png")]
    if given[:1] == ["--channels"]:
        given = [f"--channels={given[1]}"]
    assert main(["mip", *(str(made / name) for name in files), *output, *given]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert everything(tmp_path) == ["folder.png"]


@pytest.mark.parametrize("name", ["out.png", "out.json"])
def test_an_existing_picture_or_json_is_not_replaced_silently(made, tmp_path, capsys, name):
    (tmp_path / name).write_text("of another program")
    words = ["mip", str(made / "SR.ome.zarr"), str(made / "a.ome.tif"), "-o", str(tmp_path / "out.png")]
    assert main(words) == 1
    expected = f"{tmp_path / name} exists already. Choose another name, or replace it with --overwrite."
    assert capsys.readouterr().err == f"cropeq: {expected}\n"
    assert everything(tmp_path) == [name] and (tmp_path / name).read_text() == "of another program"
    assert main([*words, "--overwrite"]) == 0
    assert everything(tmp_path) == ["out.json", "out.png"]


UNFINISHED = [
    pytest.param("SR.partial.ome.zarr", id="by-its-own-name"),
    pytest.param("SR.ome.zarr", id="by-the-name-it-will-have"),
]


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_store_is_refused(made, tmp_path, capsys, name):
    result = SuperResolution(open_image(made / "a.ome.tif"), a_model(), device="cpu")
    steps = export(result, tmp_path / "SR.ome.zarr", tile=8)
    next(steps), next(steps)
    steps.close()
    started = everything(tmp_path)
    assert "SR.partial.ome.zarr" in started and "SR.ome.zarr" not in started
    assert main(["mip", str(tmp_path / name), str(made / "a.ome.tif"), "-o", str(tmp_path / "out.png")]) == 1
    assert "SR.partial.ome.zarr is an unfinished output." in capsys.readouterr().err
    assert everything(tmp_path) == started


def test_nan_outside_the_sample(monkeypatch):
    """A sample of a large volume may miss NaN; it is found when its block is read."""
    monkeypatch.setattr("napari_cropeq.core.normalisation.SAMPLE_VOXELS", 1000)
    result, source = pair(dtype=np.float32)
    data = result.data.compute()
    data[1, 2, 3] = np.nan
    holed = chunked(data, CHUNKS["zarr"], (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="1 voxel in stack is NaN or infinite"):
        run(Projection(holed, source))


@pytest.mark.parametrize("stands", [False, True], ids=["new", "replaced"])
def test_a_failed_write_leaves_no_files(made, tmp_path, capsys, stands):
    out = tmp_path / "out.png"
    words = ["mip", str(made / "SR.ome.zarr"), str(made / "a.ome.tif"), "-o", str(out), "--overwrite"]
    assert not stands or main(words) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 2 * stands
    with files_of_at_most(1000):
        assert main(words) == 1
    assert f"The disk is full, so {out} cannot be written." in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk does."""
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
