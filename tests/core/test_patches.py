"""Planes and patches: their content, and the reads that they need."""

from __future__ import annotations

import itertools
import time

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from conftest import Recorded, blobs, textured_volume
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.network import build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training import plane_pool as planes
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.patches import PatchSampler, min_lateral
from napari_cropeq.core.training.plane_pool import HELD_OUT, Orientation, Plane, PlaneReader, Volume, inscribed
from napari_cropeq.errors import ImageError
from napari_cropeq.formats.chunk_cache import ChunkCache

Z4 = Acquisition((4.0, 1.0, 1.0))
KINDS = ("subpixel", "valid", "padded")


def sampler(source, acquisition: Acquisition = Z4, kind: str = "subpixel", scale=None, **options) -> PatchSampler:
    config = TrainingConfig(
        **({"minutes": None, "patches": 8, "match_noise": False, "network": kind, "filters": 1} | options)
    )
    network = build_network(kind, 1, config.depth, 3, subpositions_for(kind, acquisition.factor))
    volumes = source if isinstance(source, list) else [Volume(source, scale or Normalisation.measure(source))]
    return PatchSampler(volumes, acquisition, network, config)


@pytest.fixture
def opened():
    """Return a function that makes samplers, and close them all at the end."""
    made = []

    def make(*arguments, **options):
        made.append(sampler(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def along(axial: int, factor: float, fwhm: float = 0.0) -> Acquisition:
    size = [1.0, 1.0, 1.0]
    size[axial] = factor
    return Acquisition((size[0], size[1], size[2]), axial, fwhm)


def smooth_volume(shape: tuple[int, int, int]) -> np.ndarray:
    """Return float32 structures (z, y, x) so smooth that the degradation below hardly changes them."""
    noise = np.random.default_rng(1).normal(size=shape)
    return ndimage.gaussian_filter(noise, 5).astype(np.float32)


def interpolation(pairs, halo: int):
    """Return the interpolation of each pair, without the network: (N, 1, rows, columns)."""
    if pairs.base is not None:
        return pairs.base
    side = pairs.image.shape[-1]
    return pairs.image[..., halo : side - halo, halo : side - halo]


PROFILES = [
    pytest.param(1.05, 0.02, 0.004, id="hardly-degraded"),
    pytest.param(2.433, 0.5, 0.004, id="paper-step"),
    pytest.param(4.0, 0.5, 0.008, id="step-4"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotations", ["right", "any"])
@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize(("factor", "fwhm", "tolerance"), PROFILES)
def test_image_and_target_are_aligned(opened, factor, fwhm, tolerance, axial, rotations, kind):
    source = np.moveaxis(smooth_volume((6, 290, 310)), 0, axial)
    drawn = opened(source, along(axial, factor, fwhm), kind, rotations=rotations)
    pairs = drawn.draw(16)
    base = interpolation(pairs, drawn.halo)
    assert base.shape == pairs.target.shape and pairs.target.shape[-1] == 32
    error = (base - pairs.target).square().mean().sqrt()
    assert error < tolerance
    for one, other in (((..., slice(1, None), slice(None)), (..., slice(None, -1), slice(None))),
                       ((..., slice(None), slice(1, None)), (..., slice(None), slice(None, -1)))):  # fmt: skip
        assert (base[one] - pairs.target[other]).square().mean().sqrt() > 2 * error, "a shift by one px would show"


@pytest.mark.parametrize("factor", [2, 2.433, 2.5, 4])
def test_training_and_inference_give_the_network_the_same_input(factor):
    """A network with random weights gives the same result for a plane in training and as a source."""
    rng = np.random.default_rng(0)
    sharp = ndimage.gaussian_filter(rng.random((200, 80)), 1).astype(np.float32)
    acquisition = along(0, factor)
    plane = Plane.make(sharp, acquisition.factor, acquisition.blur_px / 2.3548200450309493)
    network = build_network("subpixel", 2, 7, 3, subpositions_for("subpixel", factor))
    network.tail.weight.data.normal_()
    drawn = PatchSampler(
        [Volume(np.repeat(sharp[None], 4, axis=0), Normalisation(0.0, 1.0))],
        acquisition, network, TrainingConfig(minutes=None, patches=8, match_noise=False),
    )  # fmt: skip
    drawn.close()
    drawn._place = lambda plane, rng: (9, 20)  # type: ignore[method-assign]
    drawn.rng = np.random.default_rng(0)
    pairs = drawn._pairs(iter([plane]), drawn.rng)
    stack = np.repeat(plane.coarse[:, None, :], 2, axis=1)
    predictor = Predictor(network, acquisition, stack, Normalisation(0.0, 1.0), device="cpu")
    start, stop = drawn.axial_grid.inside(9, drawn.inputs)
    voxels = predictor(Box((start, 0, 20), (stop, 1, 20 + drawn.columns)))[:, 0]
    interpolated = predictor.interpolated(Box((start, 0, 20), (stop, 1, 20 + drawn.columns)))[:, 0]
    # Training varies brightness: find the change from the target.
    target = pairs.target[0, 0].numpy()
    gain, shift = np.polyfit(plane.sharp[start:stop, 20 : 20 + drawn.columns].ravel(), target.ravel(), 1)
    assert pairs.base[0, 0].numpy() == pytest.approx(interpolated * gain + shift, abs=1e-5)
    bright = (stack * gain + shift).astype(np.float32)
    trained = pairs.output(network)[0, 0].detach().numpy()
    again = Predictor(network, acquisition, bright, Normalisation(0.0, 1.0), device="cpu")
    assert trained == pytest.approx(again(Box((start, 0, 20), (stop, 1, 20 + drawn.columns)))[:, 0], abs=1e-4)
    assert not np.allclose(trained, voxels, atol=1e-2) or gain == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotations", ["right", "any"])
@pytest.mark.parametrize("side", [70, 200, 400])
def test_no_padding_by_zeros_or_edges(opened, side, rotations, kind):
    """In a bright volume no patch is dark at a border, even if it crosses the border or is rotated."""
    source = (10_000 + textured_volume((6, side, side + 3)) / 10).astype(np.float32)
    drawn = opened(source, along(0, 5.0, 10.0), kind, Normalisation(0.0, 10_000.0), rotations=rotations)
    pairs = drawn.draw(60)
    for part in (pairs.image, pairs.target, interpolation(pairs, drawn.halo)):
        assert 0.8 - 0.1 <= part.min() and part.max() < 1.2 * 1.06 + 0.1


@pytest.mark.parametrize(("factor", "side"), [pytest.param(2.0, 192, id="2"), pytest.param(5.0, 420, id="5")])
@pytest.mark.parametrize("kind", KINDS)
def test_patches_and_their_blur_lie_inside_a_large_slice(opened, factor, side, kind):
    drawn = opened(textured_volume((5, side, side)), along(0, factor), kind)
    step, rng = drawn.axial_grid.step, np.random.default_rng(0)
    plane = drawn._held_out[0]
    places = [drawn._place(plane, rng) for _ in range(500)]
    rows = [first * step for first, _ in places]
    reach = drawn.axial_halo * step + 3 * factor / 2.3548
    assert min(rows) >= reach - 1 and max(rows) + drawn.inputs * step + reach <= len(plane.sharp) + 1
    assert min(c for _, c in places) == drawn.halo
    assert max(c for _, c in places) + drawn.columns + drawn.halo == side


@pytest.mark.parametrize(
    ("size", "expected"),
    [pytest.param((2, 1, 1), 64, id="2"), pytest.param((5, 1, 1), 64, id="5"), pytest.param((8, 1, 1), 85, id="8"),
     pytest.param((32, 1, 1), 338, id="32")],
)  # fmt: skip
def test_the_smallest_side_is_large_enough(opened, size, expected):
    acquisition = Acquisition(size)
    assert min_lateral(acquisition) == expected
    source = textured_volume((5, expected, expected + 2))
    assert opened(source, acquisition).draw(4).target.isfinite().all()
    with pytest.raises(ImageError, match=f"lateral side .* has {expected - 1} voxels, fewer than {expected}"):
        opened(source[:, 1:], acquisition)


def test_half_of_the_patches_lie_where_the_structure_is(opened):
    source = np.zeros((5, 256, 256), np.float32)
    source[:, 200:230, 20:50] = np.random.default_rng(0).random((5, 30, 30)) + 1
    shares = []
    for gradient in (0.0, 0.5, 1.0):
        drawn = opened(source, kind="valid", gradient=gradient)
        shares.append(np.mean([float(t.std()) > 0.05 for t in drawn.draw(200).target]))
    assert shares[0] < 0.35 < shares[1] < 0.9 < shares[2]


@pytest.mark.parametrize("angle", [0.1, 12, 45, 77, 90.5, 133, 300])
@pytest.mark.parametrize("shape", [(100, 100), (60, 200), (300, 90)], ids=str)
def test_a_rotated_plane_has_no_border(shape, angle):
    flat = np.ones(shape)
    flat[[0, -1]] = flat[:, [0, -1]] = 0.0
    turned = Orientation(angle, False).apply(flat)
    assert turned.shape == inscribed(shape, angle)
    assert turned == pytest.approx(np.ones(turned.shape), abs=0.15), "but for the ringing, the border does not show"


def test_planes_are_rotated():
    """By the angle, counter-clockwise like np.rot90."""
    y, x = np.mgrid[:120, :140]
    wave = np.sin(0.2 * x + 0.1 * y)
    for angle in (90.0, 180.0, 270.0):
        near = Orientation(angle + 1e-4, False).apply(wave)
        exact = Orientation(angle, False).apply(wave)
        margin = [(e - n) // 2 for e, n in zip(exact.shape, near.shape, strict=True)]
        part = exact[margin[0] : margin[0] + near.shape[0], margin[1] : margin[1] + near.shape[1]]
        assert near == pytest.approx(part, abs=0.12), "half a px at most, if sizes differ by an odd number"


@pytest.mark.parametrize("oblique", [False, True])
def test_the_held_out_rotation_is_never_drawn(oblique):
    reader = PlaneReader([], Z4, oblique, (10, 10), (0,))
    drawn = [reader.draw_orientation((300, 300)) for _ in range(3000)]
    assert not any(o.flip == HELD_OUT.flip and abs(o.angle - HELD_OUT.angle) < 7 for o in drawn)
    assert {o.flip for o in drawn} == {True, False}
    if oblique:
        assert np.histogram([o.angle for o in drawn], bins=18, range=(0, 360))[0].min() > 60
    else:
        assert len(set(drawn)) == 7, "of eight right-angled orientations"


def test_rotation_by_any_angle_needs_room():
    reader = PlaneReader([], Z4, True, (200, 64), (0,))
    assert all(reader.draw_orientation((210, 210)).right for _ in range(100))


CHUNKS = [
    pytest.param((1, 100, 110), 1, id="slices"),
    pytest.param((4, 40, 50), 4, id="chunks"),
    pytest.param((30, 100, 110), 8, id="one-deep-chunk"),
]


@pytest.mark.parametrize(("chunks", "thick"), CHUNKS)
def test_neighbouring_slices_are_read_together(chunks, thick, opened):
    voxels = textured_volume((30, 100, 110))
    source = Recorded(voxels)
    source.chunks = da.from_array(voxels, chunks=chunks).chunks
    drawn = opened(source, scale=Normalisation(0.0, 4000.0))
    for _ in range(40):
        drawn.draw(1)
    boxes = [key[0] for key in source.keys[8:]]  # the first are slices for noise and validation
    assert max(b.stop - b.start for b in boxes) == thick
    assert all(b.start // chunks[0] == (b.stop - 1) // chunks[0] for b in boxes), "no box spans two chunks"


def test_only_windows_of_wide_slices_are_read_and_some_are_cached(monkeypatch, opened):
    monkeypatch.setattr(planes, "WINDOW", 128)
    monkeypatch.setattr(planes, "POOL_BYTES", 6 * 110_000)
    source = Recorded(textured_volume((60, 300, 280)))
    drawn = opened(source, Acquisition((2.0, 1.0, 1.0)), scale=Normalisation(0.0, 4000.0))
    for _ in range(200):
        drawn.draw(1)
        assert sum(p.nbytes for p in drawn._planes._pool) <= 7 * 110_000
    assert max(source.sizes) <= 128 * 128, "never a whole slice or volume"
    assert len({key[0].start for key in source.keys}) > 25, "over time the whole volume is used"


def test_a_huge_lazy_source_takes_little_memory(opened):
    """In a volume of 200 GB only windows are computed, and no chunk twice at the same time."""
    reading, twice = set(), []

    def block(block_info=None):
        place = tuple(block_info[None]["chunk-location"])
        twice.extend([place] if place in reading else [])
        reading.add(place)
        time.sleep(0.001)
        rng = np.random.default_rng(place)
        out = rng.integers(0, 4000, block_info[None]["chunk-shape"]).astype(np.uint16)
        reading.discard(place)
        return out

    volume = da.map_blocks(block, dtype=np.uint16, chunks=((8,) * 250, (512,) * 14, (512,) * 14))
    assert volume.nbytes > 200e9
    drawn = opened(ChunkCache(volume), Acquisition((2.0, 1.0, 1.0)), scale=Normalisation(0.0, 4000.0))
    for _ in range(12):
        drawn.draw(4)
    assert not twice
    assert sum(p.nbytes for p in drawn._planes._pool) <= planes.POOL_BYTES


def test_draws_depend_on_the_seed_alone(opened):
    source = blobs((20, 128, 128))

    def images(seed: int, start: int = 0):
        drawn = sampler(source, seed=seed)
        if start:
            drawn.close()
            network = build_network("subpixel", 1, 7, 3, 4)
            config = TrainingConfig(minutes=None, patches=8, match_noise=False, seed=seed)
            drawn = PatchSampler([Volume(source, Normalisation.measure(source))], Z4, network, config, start)
        batches = []
        for n in range(12):
            batches.append(drawn.draw(2).image.numpy())
            time.sleep(0.003 * (n % 2))  # timing must not matter
        held = drawn.held_out(5).image.numpy()
        drawn.close()
        return np.concatenate(batches), held

    (one, held), (two, again), (other, _), (later, same) = images(1), images(1), images(2), images(1, start=96)
    assert np.array_equal(one, two) and np.array_equal(held, again)
    assert not np.array_equal(one, other) and not np.array_equal(one, later)
    assert np.array_equal(held, same), "validation patches stay the same when a training continues"


def test_each_channel_has_its_own_scale_and_noise(opened, rng):
    dark = rng.normal(100, 5, (8, 100, 110)).astype(np.float32)
    bright = rng.normal(5000, 50, (8, 100, 110)).astype(np.float32)
    volumes = [
        Volume(v, Normalisation(0.0, high), n) for n, (v, high) in enumerate(((dark, 200.0), (bright, 10_000.0)))
    ]
    drawn = opened(volumes, match_noise=True, patches=None, minutes=1.0)
    variances = [float(drawn.noise[n].variance(np.array([0.5]))[0]) for n in range(2)]
    assert variances == pytest.approx([0.025**2, 0.005**2], rel=0.15)
    seen = set()
    for _ in range(30):
        drawn.draw(1)
        seen |= {plane.channel for plane in drawn._planes._pool}
        time.sleep(0.005)
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ("options", "variance"),
    [pytest.param({}, (0, 1e-9), id="none"), pytest.param({"poisson": 0.02}, (2e-3, 9e-3), id="poisson"),
     pytest.param({"uniform": 0.1}, (5e-4, 2e-3), id="uniform")],
)  # fmt: skip
def test_noise_is_added_to_the_low_resolution_image_only(opened, options, variance):
    flat = np.full((6, 128, 128), 0.5, np.float32)
    flat[:, 0, 0] = 1
    drawn = opened(flat, scale=Normalisation(0.0, 1.0), gradient=0.0, **options)
    pairs = drawn.draw(64)
    centre = pairs.image[:, 0, 20:-20, 20:-20]
    spread = float(centre.var(dim=(1, 2)).mean()) if options else float(centre.var(dim=(1, 2)).median())
    assert variance[0] <= spread <= variance[1]
    assert float(pairs.target.var(dim=(1, 2, 3)).median()) < 1e-9


def test_an_error_of_the_source_is_raised_where_patches_are_drawn(opened):
    class Broken(Recorded):
        def __getitem__(self, key):
            if len(self.keys) > 9:
                raise OSError("the disk went away")
            return super().__getitem__(key)

    drawn = opened(Broken(textured_volume((30, 100, 110))), scale=Normalisation(0.0, 4000.0))
    with pytest.raises(OSError, match="the disk went away"):
        for _ in itertools.repeat(None, 50):
            drawn.draw(1)
