"""Boxes, tiles, and the relative positions of the source grid and the SR grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_cropeq.core.geometry import (
    FWHM_PER_SIGMA,
    Acquisition,
    Box,
    check_shape,
    guess_axial,
    mirror,
    source_positions,
    sr_length,
)
from napari_cropeq.core.tiles import TileGrid, divide, hull, pick, read_box
from napari_cropeq.errors import ArgumentError, ImageError, VoxelSizeError

NAN, INF = math.nan, math.inf


def along(axial: int, value: float, others: float) -> tuple[float, float, float]:
    z, y, x = (value if a == axial else others for a in range(3))
    return z, y, x


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize(
    ("step", "lateral", "factor"),
    [
        pytest.param(4.0, 2.0, 2.0, id="2"),
        pytest.param(1.0, 0.411, 1 / 0.411, id="paper"),
        pytest.param(5.0, 2.0, 2.5, id="5x2x2um"),
        pytest.param(0.3, 0.1, 3.0, id="float-rounding"),
    ],
)
def test_acquisition(axial, step, lateral, factor):
    acquisition = Acquisition(along(axial, step, lateral), axial)
    assert acquisition.factor == pytest.approx(factor, rel=1e-12)
    assert acquisition.lateral == tuple(a for a in range(3) if a != axial)
    assert acquisition.lateral_step == lateral
    assert acquisition.fwhm == step, "by default the slice profile is as wide as a step"
    assert acquisition.fwhm_px == pytest.approx(factor)
    assert acquisition.sr_voxel_size == pytest.approx((lateral,) * 3)
    shape = [int(n) for n in along(axial, 30, 70)]
    assert acquisition.sr_shape(shape) == tuple(math.floor(30 * factor + 1e-6) if a == axial else 70 for a in range(3))
    assert acquisition.sr_offset == pytest.approx(along(axial, (1 / factor - 1) / 2, 0))


def test_a_given_slice_profile():
    acquisition = Acquisition((1.0, 0.411, 0.411), fwhm=2.2)
    assert acquisition.fwhm == 2.2
    assert acquisition.fwhm_px == pytest.approx(2.2 / 0.411)
    assert FWHM_PER_SIGMA == pytest.approx(2.354820045)


def test_lateral_steps_may_differ_by_one_per_cent():
    acquisition = Acquisition((4.0, 0.99, 1.0))
    assert acquisition.lateral_step == pytest.approx(0.995)
    assert acquisition.sr_voxel_size == (pytest.approx(0.995), 0.99, 1.0), "lateral steps stay as they are"


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("factor", [2, 2.433, 2.5, 4, 7.333])
@pytest.mark.parametrize("slices", [4, 7, 30, 101])
def test_both_grids_cover_the_same_extent(axial, factor, slices):
    acquisition = Acquisition(along(axial, factor, 1.0), axial)
    z = acquisition.sr_shape([slices] * 3)[axial]
    fine, first = acquisition.sr_voxel_size[axial], acquisition.sr_offset[axial] * factor
    assert first - fine / 2 == pytest.approx(-factor / 2), "the lower face of the first voxel"
    upper = first + (z - 0.5) * fine
    true = (slices - 0.5) * factor
    assert true - fine < upper <= true + 1e-6, "the upper face, short of the source's by less than a voxel"


@pytest.mark.parametrize(
    ("length", "factor", "expected"),
    [
        pytest.param(30, 2, 60, id="integer"),
        pytest.param(48, 2.433, 116, id="floor"),
        pytest.param(30, 0.3 / 0.1, 90, id="just-below-an-integer"),
        pytest.param(10, 0.7 / 0.1, 70, id="rounding-of-0.7/0.1"),
        pytest.param(3, 5 / 3, 5, id="thirds"),
        pytest.param(5839, 2.433, 14206, id="long"),
        pytest.param(10, 2.09999, 20, id="no-false-rounding-up"),
    ],
)
def test_sr_length(length, factor, expected):
    assert sr_length(length, factor) == expected == math.floor(length * factor + 1e-6)


def test_source_positions_are_at_the_centres_of_intervals():
    assert source_positions(0, 4, 2).tolist() == [-0.25, 0.25, 0.75, 1.25]
    assert source_positions(-2, 1, 4).tolist() == [-0.875, -0.625, -0.375]
    inside = source_positions(0, 5 * 3, 3)
    assert inside.mean() == pytest.approx(2.0), "the centre of five samples"


REFUSED = [
    pytest.param((0, 1, 1), {}, r"^The voxel size \(0, 1, 1\) is not three positive numbers", id="zero"),
    pytest.param((-4, 1, 1), {}, r"^The voxel size \(-4, 1, 1\)", id="negative"),
    pytest.param((4, NAN, 1), {}, r"^The voxel size \(4, nan, 1\)", id="nan"),
    pytest.param((INF, 1, 1), {}, r"^The voxel size \(inf, 1, 1\)", id="inf"),
    pytest.param((4, 1), {}, r"^The voxel size \(4, 1\)", id="two-numbers"),
    pytest.param((1, 1, 1), {}, "^The volume is isotropic: the axial step", id="isotropic"),
    pytest.param((1.009, 1, 1), {}, "^The volume is isotropic: the axial step", id="isotropic-within-1-percent"),
    pytest.param((1, 2, 2), {}, "finer axially than laterally", id="inverted"),
    pytest.param((4, 1, 1), {"axial": 1}, r"lateral steps \(4 and 1 micrometer\)", id="wrong-axis"),
    pytest.param(
        (4, 1, 1.011), {}, "The lateral steps .1 and 1.011 micrometer. differ", id="lateral-steps-over-1-percent"
    ),
    pytest.param((4, 0.989, 1), {}, "differ by more than 1 %", id="lateral-steps-under-1-percent"),
    pytest.param((1000, 1, 1), {}, "The axial step is 1000 times the lateral step, more than 32 times", id="absurd"),
    pytest.param((1e300, 1e-300, 1e-300), {}, "more than 32 times", id="overflowing"),
    pytest.param((4, 1, 1), {"axial": 3}, r"^The axial axis cannot be 3\. Choose 0, 1 or 2", id="axis-3"),
    pytest.param((4, 1, 1), {"axial": -1}, r"^The axial axis cannot be -1", id="axis-below-0"),
    pytest.param(
        (4, 1, 1), {"fwhm": -1}, r"slice profile \(-1 micrometer\) is not a positive length", id="fwhm-negative"
    ),
    pytest.param((4, 1, 1), {"fwhm": NAN}, r"\(nan micrometer\) is not a positive length", id="fwhm-nan"),
    pytest.param((4, 1, 1), {"fwhm": INF}, r"\(inf micrometer\) is not a positive length", id="fwhm-inf"),
    pytest.param((4, 1, 1), {"fwhm": 40}, "larger than 8 axial steps of 4 micrometer", id="fwhm-absurd"),
]


@pytest.mark.parametrize(("voxel_size", "options", "message"), REFUSED)
def test_refused_acquisitions(voxel_size, options, message):
    with pytest.raises((VoxelSizeError, ArgumentError), match=message) as caught:
        Acquisition(voxel_size, **options)
    error = caught.value
    assert error.problem.endswith(".") and error.remedy.endswith(".") and "\n" not in str(error)
    assert error.setting in (*options, "voxel_size")


@pytest.mark.parametrize(
    ("voxel_size", "axial"),
    [((5, 2, 2), 0), ((2, 5, 2), 1), ((2, 2, 5), 2), ((1, 1, 1), 0)],
    ids=["z", "y", "x", "isotropic"],
)
def test_guess_axial(voxel_size, axial):
    assert guess_axial(voxel_size) == axial


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
def test_thin_and_small_sources_are_refused(axial):
    acquisition = Acquisition(along(axial, 4, 1), axial)
    check_shape([int(n) for n in along(axial, 4, 64)], acquisition, 64)
    with pytest.raises(ImageError, match=f"The volume has 3 slices along {'zyx'[axial]}, fewer than 4"):
        check_shape([int(n) for n in along(axial, 3, 64)], acquisition, 64)
    with pytest.raises(ImageError, match="lateral side of the volume has 63 voxels, fewer than 64"):
        check_shape([int(n) for n in along(axial, 30, 63)], acquisition, 64)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 50])
def test_mirror_folds_as_often_as_needed(length):
    margin = 173
    expected = np.pad(np.arange(length), margin, mode="reflect" if length > 1 else "edge")
    assert np.array_equal(mirror(np.arange(-margin, length + margin), length), expected)


def test_box():
    box = Box((1, 2, 3), (4, 6, 8))
    assert (box.shape, box.size) == ((3, 4, 5), 60)
    assert Box.whole((3, 4, 5)) == Box((0, 0, 0), (3, 4, 5))
    voxels = np.arange(10 * 11 * 12).reshape(10, 11, 12)
    assert np.array_equal(voxels[box.slices], voxels[1:4, 2:6, 3:8])
    assert box.grow((1, 0, 2)) == Box((0, 2, 1), (5, 6, 10))
    assert box.relative_to((1, 2, 3)) == Box.whole((3, 4, 5))
    assert box.relative_to((-1, 0, 1)) == Box((2, 2, 2), (5, 6, 7))


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        pytest.param(Box((2, 3, 4), (9, 9, 9)), Box((2, 3, 4), (4, 6, 8)), id="overlap"),
        pytest.param(Box((0, 0, 0), (9, 9, 9)), Box((1, 2, 3), (4, 6, 8)), id="around"),
        pytest.param(Box((2, 3, 4), (3, 4, 5)), Box((2, 3, 4), (3, 4, 5)), id="inside"),
        pytest.param(Box((4, 2, 3), (9, 9, 9)), None, id="touching"),
        pytest.param(Box((1, 2, 9), (9, 9, 12)), None, id="apart"),
    ],
)
def test_intersection(other, shared):
    box = Box((1, 2, 3), (4, 6, 8))
    assert box.intersect(other) == other.intersect(box) == shared


SHAPES = [(1, 1, 1), (7, 13, 29), (64, 64, 64), (65, 63, 129), (5, 300, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tile", [(64, 64, 64), (3, 5, 7), (32, 16, 64), (1, 1000, 1)], ids=str)
def test_tiles_cover_every_voxel_once_and_are_never_shifted(shape, tile):
    grid = TileGrid(shape, tile)
    times = np.zeros(shape, int)
    boxes = list(grid.touching(Box.whole(shape)))
    assert len(boxes) == grid.count == math.prod(grid.counts) == len(set(boxes))
    for box in boxes:
        times[box.slices] += 1
        assert all(start % side == 0 for start, side in zip(box.start, tile, strict=True)), "the grid is not shifted"
        assert all(b - a == t or b == n for a, b, t, n in zip(box.start, box.stop, tile, shape, strict=True)), (
            "only a last tile is short"
        )
    assert (times == 1).all()


def test_tiles_touching_a_region():
    grid = TileGrid((70, 80, 90), (10, 20, 30))
    region = Box((9, 20, 29), (11, 40, 61))
    touching = set(grid.touching(region))
    assert touching == {box for box in grid.touching(Box.whole((70, 80, 90))) if box.intersect(region)}
    assert list(grid.indices(region))[:3] == [(0, 1, 0), (0, 1, 1), (0, 1, 2)], "last axis fastest"


def test_an_infinite_grid():
    grid = TileGrid(None, (10, 10, 10))
    assert list(grid.touching(Box((-3, 0, 5), (1, 1, 6)))) == [
        Box((-10, 0, 0), (0, 10, 10)),
        Box((0, 0, 0), (10, 10, 10)),
    ]
    with pytest.raises(ValueError, match="An infinite grid has no number of tiles"):
        _ = grid.count


def test_divide_starts_at_the_first_voxel_of_the_box():
    box = Box((5, -7, 9), (12, 8, 30))
    parts = list(divide(box, (4, 10, 8)))
    assert parts[0] == Box((5, -7, 9), (9, 3, 17))
    assert sum(part.size for part in parts) == box.size
    assert all(part.intersect(box) == part for part in parts)
    assert all(a.intersect(b) is None for i, a in enumerate(parts) for b in parts[:i])
    assert hull(parts) == box


def test_hull_and_pick():
    assert hull([Box((0, 5, 2), (1, 6, 9)), Box((-3, 7, 4), (0, 8, 5))]) == Box((-3, 5, 2), (1, 8, 9))
    assert pick((0, 2), 16, 0) == (16, 0, 16)
    assert pick((1,), 3, -1) == (-1, 3, -1)


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("factor", [2, 2.433, 7.333])
def test_the_box_to_read(axial, factor):
    """Axially from the first tap of the first SR sample to the last tap of the last one; laterally the box itself."""
    acquisition = Acquisition(along(axial, factor, 1), axial)
    box = Box((10, 20, 30), (50, 41, 70))
    read = read_box(box, acquisition)
    positions = source_positions(box.start[axial], box.stop[axial], factor)
    for a in range(3):
        if a == axial:
            assert read.start[a] == math.floor(positions[0]) - 19
            assert read.stop[a] == math.floor(positions[-1]) + 20 + 1
        else:
            assert (read.start[a], read.stop[a]) == (box.start[a], box.stop[a])
