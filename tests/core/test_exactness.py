"""Tiles have the same bits as the whole, from raw voxels to SR voxels."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import make_predictor, random_network, textured_volume
from napari_cropeq.core import network_grid
from napari_cropeq.core.call_size import Calls, CanonicalTile
from napari_cropeq.core.devices import exactness
from napari_cropeq.core.devices.exactness import Exactness, in_batches, unreliable
from napari_cropeq.core.devices.transfer import convert
from napari_cropeq.core.geometry import TAPS, Acquisition, Box
from napari_cropeq.core.host import exact_convolutions
from napari_cropeq.core.network import PaddedNetwork, ValidNetwork, build_network, shrink
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.tiles import TileGrid, divide
from napari_cropeq.errors import OutOfMemoryError

FACTORS = [pytest.param(f, id=f"factor{f}") for f in (2, 2.433, 2.5, 4)]
KINDS = ("valid", "subpixel")
PLANES = {0: ("x", "y", "both"), 1: ("x", "z", "both"), 2: ("y", "z", "both")}
AXIAL_PLANES = [pytest.param(a, p, id=f"axial{'zyx'[a]}-{p}") for a, ps in PLANES.items() for p in ps]
TILES = [pytest.param(t, id="x".join(map(str, t))) for t in ((64, 64, 64), (33, 20, 17), (9, 40, 90), (200, 12, 23))]


def thin(axial: int, slices: int = 8, lateral: tuple[int, int] = (24, 36)) -> tuple[int, int, int]:
    shape = list(lateral)
    shape.insert(axial, slices)
    return shape[0], shape[1], shape[2]


@functools.cache
def with_whole(shape: tuple[int, int, int], factor: float, **options) -> tuple[Predictor, np.ndarray]:
    """Return a predictor and its whole result, computed once for all tests that compare tiles with it."""
    predictor = make_predictor(textured_volume(shape), factor, **options)
    whole = predictor(Box.whole(predictor.sr_shape))
    whole.flags.writeable = False
    return predictor, whole


def assemble(predictor: Predictor, boxes) -> np.ndarray:
    out = np.full(predictor.sr_shape, np.nan, np.float32)
    for box in boxes:
        out[box.slices] = predictor(box)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("axial", "planes"), AXIAL_PLANES)
@pytest.mark.parametrize("factor", FACTORS)
def test_tiles_concatenated_are_the_whole(kind, factor, axial, planes, tile):
    predictor, whole = with_whole(thin(axial), factor, axial=axial, planes=planes, kind=kind)
    box = Box.whole(predictor.sr_shape)
    assert predictor.exactness.bit_exact
    assert np.array_equal(assemble(predictor, TileGrid(predictor.sr_shape, tile).touching(box)), whole)
    assert not np.array_equal(whole, predictor.interpolated(box)), "the network has an effect"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filters", [8, 16, 32, 64])
@pytest.mark.parametrize("offset", [(0, 0, 0), (1, 2, 3), (13, 5, 17), (20, 30, 40)], ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 1, 40), (16, 6, 16)], ids=str)
def test_any_box_is_the_crop_of_the_whole(kind, filters, offset, size):
    predictor, whole = with_whole((12, 40, 60), 2.433, filters=filters, kind=kind)
    stop = [min(o + s, n) for o, s, n in zip(offset, size, predictor.sr_shape, strict=True)]
    box = Box(offset, (stop[0], stop[1], stop[2]))
    if all(a < b for a, b in zip(box.start, box.stop, strict=True)):
        assert np.array_equal(predictor(box), whole[box.slices])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_rows_per_call_do_not_matter(kind, monkeypatch, factor, rows):
    predictor = make_predictor(textured_volume((10, 7, 70)), factor, kind=kind)
    box = Box.whole(predictor.sr_shape)
    whole = predictor(box)
    monkeypatch.setattr(network_grid.NetworkGrid, "_rows", lambda *_: rows)
    assert np.array_equal(predictor(box), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_matter(kind, threads):
    predictor = make_predictor(textured_volume((10, 9, 70)), 2.5, kind=kind)
    whole = predictor(Box.whole(predictor.sr_shape))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        boxes = list(divide(Box.whole(predictor.sr_shape), (11, 4, 30)))
        assert np.array_equal(assemble(predictor, boxes), whole)
    finally:
        torch.set_num_threads(before)


CANONICAL = [
    pytest.param(CanonicalTile(), id="cpu"),
    pytest.param(CanonicalTile(20, 24, 5), id="one-by-one"),
    pytest.param(CanonicalTile(20, 24, 5, together=4), id="several"),
]


def with_canonical(predictor: Predictor, tile: CanonicalTile) -> set[tuple[int, ...]]:
    """Let a predictor use one tile, as on a device whose kernels depend on the shape; return the shapes it uses."""
    predictor.exactness, predictor._canonical = Exactness("cpu", 1e-7), Calls(tile)
    shapes, inner = set(), predictor.network.predict
    predictor.network.predict = lambda image: (shapes.add(tuple(image.shape)), inner(image))[1]
    return shapes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("planes", ["x", "both"])
@pytest.mark.parametrize("tile", CANONICAL)
def test_canonical_tiles_give_the_same_voxels_for_any_box(kind, planes, tile):
    predictor = make_predictor(textured_volume((14, 20, 70)), 2.433, planes=planes, kind=kind)
    free = predictor(Box.whole(predictor.sr_shape))
    shapes = with_canonical(predictor, tile)
    whole = predictor(Box.whole(predictor.sr_shape))
    assert np.array_equal(assemble(predictor, divide(Box.whole(predictor.sr_shape), (31, 13, 50))), whole)
    assert np.array_equal(whole, free)
    rows, *plane = tile.input_shape(predictor.network)
    assert {tuple(shape[1:]) for shape in shapes} == {(1, *plane)}, "one shape of tiles"
    assert {shape[0] // rows for shape in shapes} <= {1, 2, 4} and max(shapes)[0] == rows * tile.together


def test_out_of_memory_reduces_the_tiles_in_a_call_and_never_the_tile():
    """torch itself raises the error, for an allocation that fails on every machine."""
    predictor = make_predictor(textured_volume((14, 20, 70)), 2.433)
    free = predictor(Box.whole(predictor.sr_shape))
    shapes = with_canonical(predictor, CanonicalTile(20, 24, 5, together=4))
    predict = predictor.network.predict

    def scarce(batch):
        if len(batch) > 5:
            torch.empty(2**55)
        return predict(batch)

    predictor.network.predict = scarce
    assert np.array_equal(predictor(Box.whole(predictor.sr_shape)), free)
    assert shapes == {(5, 1, *CanonicalTile(20, 24, 5).input_shape(predictor.network)[1:])}
    assert predictor._canonical.size.together == 1
    predictor.network.predict = lambda batch: torch.empty(2**55)
    with pytest.raises(OutOfMemoryError):
        predictor(Box.whole(predictor.sr_shape))


GPUS = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "xpu": torch.xpu.is_available}
CPU_AGREES = 1e-4  # share of the range of intensities


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("planes", ["x", "both"])
@pytest.mark.parametrize("device", GPUS)
def test_tiles_on_a_gpu_are_the_whole_and_near_to_that_of_the_cpu(device, planes, kind):
    if not GPUS[device]():
        pytest.skip(f"needs {device}")
    one = make_predictor(textured_volume((14, 20, 70)), 2.433, planes=planes, kind=kind)
    other = Predictor(one.network, one.acquisition, one.source, one.normalisation, planes, device, correction=2.0)
    near = Predictor(one.network, one.acquisition, one.source, one.normalisation, planes, "cpu", correction=2.0)
    box = Box.whole(one.sr_shape)
    whole = other(box)
    assert np.array_equal(assemble(other, divide(box, (31, 13, 50))), whole)
    assert np.abs(whole - near(box)).max() < CPU_AGREES * (one.normalisation.high - one.normalisation.low)
    assert other.side_by_side in (1, 2) and np.array_equal(other(box, dtype=np.uint16), convert(whole, np.uint16))


MEMORIES = [
    pytest.param("valid", 32, 0, (64, 64, 16), id="cpu"),
    pytest.param("valid", 256, 139 * 2**30, (256, 256, 16), id="h200-paper"),
    pytest.param("valid", 256, 12 * 2**30, (128, 128, 16), id="12-gb-paper"),
    pytest.param("subpixel", 32, 8 * 2**30, (256, 256, 16), id="8-gb-default"),
    pytest.param("subpixel", 32, 2**28, (64, 64, 16), id="little"),
]


@pytest.mark.parametrize(("kind", "filters", "memory", "size"), MEMORIES)
def test_canonical_tiles_are_as_large_as_memory_allows(kind, filters, memory, size):
    sizes = [(256, 256, 16), (128, 128, 16)]
    tile = CanonicalTile.of(build_network(kind, filters, 7, 3, 4 if kind == "subpixel" else 1), sizes, memory)
    assert (tile.axial, tile.side, tile.rows, tile.together) == (*size, 1)


TOGETHER = [
    pytest.param("valid", 0.0, 8, id="any-number"),
    pytest.param("subpixel", 0.0, 8, id="on-the-source-grid"),
    pytest.param("valid", 1e-3, 1, id="depends-on-the-number"),
]


@pytest.mark.parametrize(("kind", "change", "together"), TOGETHER)
def test_a_device_is_asked_how_many_canonical_tiles_go_at_once(kind, change, together, monkeypatch):
    network = random_network(kind, 4, blocks=2)
    predict = type(network).predict
    monkeypatch.setattr(type(network), "predict", lambda self, image: predict(self, image) + change * len(image))
    tile = CanonicalTile(8, 12, 3)
    build = (kind, 4, 2, 3, network.subpositions)
    in_batches.cache_clear()
    found = in_batches(tile, build, torch.device("cpu"), torch.float32)
    in_batches.cache_clear()
    assert found == replace(tile, together=together)


def test_what_a_device_is_tried_with_is_drawn_on_the_cpu(monkeypatch):
    """A GPU has random numbers of its own: it would compute another network than the CPU, and be refused."""
    drawn, inner = [], torch.nn.init.normal_
    monkeypatch.setattr(torch.nn.init, "normal_", lambda x, **how: drawn.append(x.device.type) or inner(x, **how))
    network, image = exactness._trial(("valid", 4, 2, 3, 1), torch.device("meta"), torch.float32)
    assert set(drawn) == {"cpu"} and image.device.type == network.tail.weight.device.type == "meta"


FLAGS = [
    pytest.param("cuda", torch.backends.cudnn, id="cuda"),
    pytest.param("xpu", torch.backends.mkldnn, id="xpu"),
]


@pytest.mark.parametrize(("kind", "backend"), FLAGS)
def test_convolutions_are_in_float32_whatever_the_process_has_chosen(kind, backend):
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("needs torch 2.9, which has a precision for all of torch")
    before = torch.backends.fp32_precision
    try:
        torch.backends.fp32_precision = "tf32"
        chosen = backend.conv.fp32_precision, backend.deterministic
        with exact_convolutions(torch.device(kind)):
            assert (backend.conv.fp32_precision, backend.deterministic) == ("ieee", True)
        assert (backend.conv.fp32_precision, backend.deterministic) == chosen
    finally:
        torch.backends.fp32_precision = before


NOISE = [
    pytest.param(lambda image, calls: 0 * image, "", id="reliable"),
    pytest.param(lambda image, calls: calls * 1e-6, "computes other bits each time", id="other-bits"),
    pytest.param(lambda image, calls: -0.5 * (calls > 2), "differ from those of the CPU by up to", id="other-values"),
]


@pytest.mark.parametrize(("noise", "words"), NOISE)
def test_an_unreliable_device_is_found(noise, words, monkeypatch):
    """The first two calls are those of the device, the third is that of the CPU."""
    predict, calls = ValidNetwork.predict, []

    def changed(self, image):
        calls.append(image)
        found = predict(self, image)
        return found + noise(found, len(calls))

    monkeypatch.setattr(ValidNetwork, "predict", changed)
    unreliable.cache_clear()
    text = unreliable(("valid", 4, 2, 3, 1), torch.device("cpu"), torch.float32)
    unreliable.cache_clear()
    assert (words in text) if words else not text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("axial", "planes"), [(0, "x"), (1, "both"), (2, "z")])
@pytest.mark.parametrize("factor", FACTORS)
def test_float64_tiles_to_1e_12(kind, factor, axial, planes):
    predictor = make_predictor(
        textured_volume(thin(axial, 6, (13, 26))), factor, axial, planes, kind=kind, dtype=torch.float64
    )
    predictor.exactness = Exactness("cpu", 0.0)  # free shapes
    box = Box.whole(predictor.sr_shape)
    whole = predictor(box)
    tiles = np.empty_like(whole)
    for part in divide(box, (9, 23, 14)):
        tiles[part.slices] = predictor(part)
    assert np.abs(tiles - whole).max() <= 1e-12 * (predictor.normalisation.high - predictor.normalisation.low)


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("factor", FACTORS)
def test_a_cropped_volume_agrees_far_from_its_border(factor, axial):
    """The crop's new border affects 16 / factor + 23 slices axially and 16 px laterally, and nothing beyond."""
    whole = textured_volume(thin(axial, 64, (5, 70)))
    first = 8  # slices cut off: a multiple that keeps the sampling phase for every factor below
    start = [0, 0, 0]
    start[axial] = first if factor != 2.433 else 0
    plane = 1 if axial == 2 else 2
    start[plane] = 10
    crop = np.ascontiguousarray(whole[tuple(slice(s, None) for s in start)])
    one = make_predictor(whole, factor, axial, "zyx"[plane])
    other = Predictor(one.network, one.acquisition, crop, one.normalisation, "zyx"[plane], "cpu")
    shift = [round(s * factor) if a == axial else s for a, s in enumerate(start)]
    margin = [0, 0, 0]
    margin[axial] = int(np.ceil((16 / factor + TAPS + 3) * factor)) if start[axial] else 0
    margin[plane] = 16
    inner = Box((margin[0], margin[1], margin[2]), other.sr_shape)
    outer = inner.relative_to([-s for s in shift])
    assert np.array_equal(other(inner), one(outer))
    all_of_it = Box((0, 0, 0), other.sr_shape)
    assert not np.array_equal(other(all_of_it), one(all_of_it.relative_to([-s for s in shift])))


@pytest.mark.parametrize("kind", KINDS)
def test_a_thin_stack_is_mirrored_many_times(kind):
    predictor = make_predictor(textured_volume((4, 20, 40)), 5, kind=kind)
    whole = predictor(Box.whole(predictor.sr_shape))
    assert np.isfinite(whole).all()
    assert np.array_equal(assemble(predictor, divide(Box.whole(predictor.sr_shape), (6, 7, 9))), whole)


@pytest.mark.parametrize(
    ("blocks", "kernel"), [pytest.param(b, k, id=f"{b}blocks-{k}x{k}") for b in (1, 3, 7) for k in (3, 5, 7)]
)
def test_shrink_is_equation_2(blocks, kernel):
    network = ValidNetwork(4, blocks, kernel)
    side = network.shrink + 5
    expected = 2 * (2 * blocks + 2) * (kernel // 2)
    assert network.shrink == shrink(2 * blocks + 2, kernel) == expected
    assert network(torch.zeros(1, 1, side, side + 2)).shape == (1, 1, 5, 7)
    assert network.predict(torch.zeros(1, 1, side, side + 2)).shape == (1, 1, 5, 7)


def test_the_paper_network():
    network = ValidNetwork(64)
    assert (network.layers, network.receptive_field, network.shrink, network.halo) == (16, 33, 32, 16)
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 32, 32)
    padded = PaddedNetwork(4)
    assert (padded.layers, padded.receptive_field) == (66, 133)
    assert padded(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("kind", ["valid", "padded"])
def test_training_and_inference_paths_agree(kind):
    network = random_network(kind, 16)
    image = torch.rand(2, 1, 50, 60)
    assert torch.allclose(network(image), network.predict(image), atol=1e-5)


@pytest.mark.parametrize("kind", ["valid", "padded"])
def test_an_untrained_network_is_the_interpolation(kind):
    source = textured_volume((10, 20, 60))
    acquisition = Acquisition((2.5, 1, 1))
    net = ValidNetwork(8) if kind == "valid" else PaddedNetwork(8, 2)
    predictor = Predictor(net, acquisition, source, Normalisation.measure(source), device="cpu")
    box = Box.whole(predictor.sr_shape)
    assert np.array_equal(predictor(box), predictor.interpolated(box))


def test_the_padded_network_shows_seams():
    """The padded baseline fails the same test, so the test is able to fail."""
    predictor = make_predictor(textured_volume((20, 10, 90)), 2, kind="padded")
    assert not predictor.exactness.bit_exact
    predictor.exactness = Exactness("cpu", 0.0)  # let it use free shapes
    whole = predictor(Box.whole(predictor.sr_shape))
    tiles = assemble(predictor, divide(Box.whole(predictor.sr_shape), (32, 10, 32)))
    difference = np.abs(tiles - whole)
    assert difference.max() > 1
    border = np.zeros_like(difference, bool)
    for edge in (32, 64):
        border[:, :, edge - 3 : edge + 3] = True
    assert difference[border].mean() > 2 * difference[~border].mean(), "seams lie along tile borders"
