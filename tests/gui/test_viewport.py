"""The part of a layer that is in view, and the order of its tiles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.gui.layers.viewport import box_of_corners, box_view, corners_of, view_of
from napari_cropeq.view.view import View, nearest_first

SHAPE = (9, 20, 30)
IN_PLANE = [[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]]
AFFINE = np.array([[1, 0, 0, 5], [0, 1, 0.2, -3], [0, 0, 1, 2], [0, 0, 0, 1]], float)
ORDERS = list(itertools.permutations(range(3)))


@pytest.fixture
def viewer() -> ViewerModel:
    """Return a viewer without a window, which has everything that a view depends on."""
    return ViewerModel()


def test_a_viewer_without_a_window_has_the_same_view(make_napari_viewer):
    """The tests below rely on this: size and camera of the canvas are part of the model."""
    window, model = make_napari_viewer(show=False), ViewerModel()
    views = []
    for viewer in (window, model):
        layer = viewer.add_image(np.zeros(SHAPE), scale=(2.5, 1, 1))
        viewer.canvas.size = (300, 400)
        viewer.dims.set_current_step(0, 4)
        viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 8, 9), 40.0
        seen = on_canvas(viewer, layer)
        views.append(view_of(viewer, layer))
        assert len(seen) and (seen >= views[-1].box.start).all() and (seen < views[-1].box.stop).all()
    assert views[0] == views[1]


PLACES = [
    pytest.param({"scale": (2.5, 1, 1)}, id="scale"),
    pytest.param({"scale": (2.433, 1, 1), "translate": (10, -20, 30)}, id="translate"),
    pytest.param({"scale": (2.5, 1, 1), "units": ["um"] * 3}, id="units"),
]
TURNED = [
    pytest.param({"scale": (2.5, 1, 1), "rotate": IN_PLANE}, id="rotate"),
    pytest.param({"scale": (4, 1, 1), "shear": (0, 0, 0.4)}, id="shear"),
    pytest.param({"scale": (2, 1, 1), "affine": AFFINE}, id="affine"),
]


def on_canvas(viewer, layer) -> np.ndarray:
    """Return the voxels (n, 3) of the last three axes whose centres are on the canvas, checked one by one."""
    camera, displayed = viewer.scene.camera, list(viewer.dims.displayed)
    height, width = viewer.canvas.size
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape[-3:]), indexing="ij"), -1).reshape(-1, 3)
    at = layer.world_to_data(viewer.dims.point)
    full = np.concatenate([np.tile(np.round(at[:-3]), (len(grid), 1)), grid], axis=1)
    world = np.array([layer.data_to_world(i) for i in full])
    inside = (np.abs(world[:, displayed] - camera.center[-2:]) * camera.zoom <= (height / 2, width / 2)).all(axis=1)
    hidden = [a for a in range(viewer.dims.ndim) if a not in displayed][-1] - (layer.ndim - 3)
    inside &= grid[:, hidden] == round(at[hidden + layer.ndim - 3])
    return grid[inside]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("options", PLACES)
@pytest.mark.parametrize("zoom", [0.5, 3.0, 40.0])
def test_the_view_is_what_the_canvas_shows(viewer, order, options, zoom):
    layer = viewer.add_image(np.zeros(SHAPE), **options)
    viewer.dims.order = order
    viewer.scene.camera.zoom = zoom
    viewer.dims.set_current_step(order[0], 4)
    view, seen = view_of(viewer, layer), on_canvas(viewer, layer)
    assert (seen >= view.box.start).all() and (seen < view.box.stop).all()
    if len(seen):
        assert (seen.min(axis=0) - view.box.start <= 1).all()
        assert (view.box.stop - seen.max(axis=0) <= 2).all()
    assert view.box.shape[order[0]] == 1
    assert view.across == order[0]


@pytest.mark.parametrize("options", TURNED)
@pytest.mark.parametrize("zoom", [3.0, 40.0])
def test_the_view_of_a_layer_rotated_in_its_plane_contains_what_the_canvas_shows(viewer, options, zoom):
    layer = viewer.add_image(np.zeros(SHAPE), **options)
    viewer.scene.camera.zoom = zoom
    view, seen = view_of(viewer, layer), on_canvas(viewer, layer)
    assert len(seen) and (seen >= view.box.start).all() and (seen < view.box.stop).all()
    assert view.across == 0


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_layers_in_other_units_have_the_same_view(viewer, ndisplay):
    layers = [
        viewer.add_image(np.zeros(SHAPE), scale=(2.5 * n, n, n), units=[unit] * 3)
        for unit, n in (("um", 1), ("nm", 1000), ("mm", 0.001))
    ]
    viewer.reset_view()
    viewer.dims.set_current_step(0, 4)
    viewer.dims.ndisplay = ndisplay
    viewer.scene.camera.zoom *= 4
    views = [view_of(viewer, layer) if ndisplay == 2 else box_view(viewer, layer, 6) for layer in layers]
    assert views[0].box == views[1].box == views[2].box
    assert views[0].box.size < 6 * 20 * 30 / 4
    if ndisplay == 2:
        assert views[0].box.start[0] == 4
        return
    drawn = np.array([[4, 5, 10], [4, 5, 20], [4, 14, 20], [4, 14, 10]], float)
    for layer in layers:
        region = corners_of(viewer, drawn, layer)
        for other in layers:
            assert box_view(viewer, other, 4, region).box == Box((2, 5, 10), (6, 15, 21))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (1, 0, 3, 2, 4), (0, 1, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("multiscale", [False, True], ids=["one level", "levels"])
def test_the_view_through_time_and_channels(viewer, order, multiscale):
    data = np.zeros((3, 2, *SHAPE))
    layer = viewer.add_image([data, data[..., ::2, ::2]] if multiscale else data, multiscale=multiscale)
    viewer.dims.order = order
    viewer.dims.set_current_step((0, 1), (2, 1))
    viewer.scene.camera.zoom = 60.0
    view, seen = view_of(viewer, layer), on_canvas(viewer, layer)
    assert view.leading == (2, 1) and view.across == order[2] - 2
    assert len(seen) and (seen >= view.box.start).all() and (seen < view.box.stop).all()
    assert view.box.size <= 2.2 * len(seen) + 40, "no more than what is shown, at the finest level"


def test_no_view_beside_the_layer(viewer):
    layer = viewer.add_image(np.zeros(SHAPE))
    viewer.scene.camera.center = (0, 5000, 5000)
    assert view_of(viewer, layer) is None
    viewer.scene.camera.center = (0, 10, 10)
    assert view_of(viewer, layer) is not None
    viewer.dims.ndisplay = 3
    assert view_of(viewer, layer) is None, "a 3D display has no such rectangle"


@pytest.mark.parametrize(
    ("span", "box", "limited"),
    [
        pytest.param(90.0, ((3, 0, 5), (4, 91, 106)), False, id="a voxel is more than a pixel"),
        pytest.param(400.0, ((3, 150, 150), (4, 250, 350)), True, id="zoomed out: as many voxels as pixels"),
        pytest.param(5000.0, ((3, 450, 400), (4, 550, 600)), True, id="far out"),
    ],
)
def test_no_more_voxels_than_pixels(span, box, limited):
    centre = {90.0: (45, 55), 400.0: (200, 250), 5000.0: (500, 500)}[span]
    half = span / 2 if span != 90.0 else 45
    low = [3.2, centre[0] - half, centre[1] - half - (5 if span == 90 else 0)]
    high = [3.2, centre[0] + half, centre[1] + half + (5 if span == 90 else 0)]
    view = box_of_corners(np.array([low, high]), (8, 1000, 1000), (1, 2), (100, 200))
    assert (view.box, view.limited) == (Box(*box), limited)
    assert all(a <= c < b for a, c, b in zip(view.box.start, view.centre, view.box.stop, strict=True))


def test_a_view_through_leading_axes():
    corners = np.array([[2.0, 1.0, 3.2, 0.0, 0.0], [2.0, 1.0, 3.2, 9.6, 40.0]])
    view = box_of_corners(corners, (4, 2, 8, 20, 30), (3, 4), (800, 800))
    assert view == View((2, 1), Box((3, 0, 0), (4, 11, 30)), (3.0, 4.8, 20.0), 0)


BOXES = [
    pytest.param((4, 10, 15), 4, None, ((2, 8, 13), (6, 12, 17)), id="around the centre"),
    pytest.param((0, 0, 29), 6, None, ((0, 0, 24), (6, 6, 30)), id="moved inside at the border"),
    pytest.param((4, 10, 15), 64, None, ((0, 0, 0), SHAPE), id="no larger than the volume"),
    pytest.param((4, 99, 15), 4, None, None, id="beside the volume"),
    pytest.param(
        (4, 1, 1), 5, [[0, 5, 10], [0, 5, 20], [0, 14, 20], [0, 14, 10]], ((0, 5, 10), (5, 15, 21)), id="rectangle"
    ),
    pytest.param((2, 1, 1), 3, [[5, 10], [14, 20]], ((1, 5, 10), (4, 15, 21)), id="2D rectangle at the centre's depth"),
]


@pytest.mark.parametrize(("centre", "size", "region", "expected"), BOXES)
def test_the_box_of_a_3d_display(viewer, centre, size, region, expected):
    layer = viewer.add_image(np.zeros(SHAPE), scale=(2, 1, 1), translate=(100, 0, 0))
    viewer.dims.ndisplay = 3
    viewer.scene.camera.center = layer.data_to_world(centre)
    if region is not None:
        region = np.array(region, float)
        if region.shape[1] == 3:
            region = np.array([layer.data_to_world(corner) for corner in region])
    view = box_view(viewer, layer, size, region)
    assert (None if view is None else view.box) == (None if expected is None else Box(*expected))
    assert view is None or view.across is None


def test_tiles_are_ordered_nearest_first():
    grid = TileGrid((64, 128, 256), (32, 16, 64))
    view = View((), Box((10, 20, 0), (11, 100, 256)), (10.0, 60.0, 130.0))
    indices = nearest_first(grid, view)
    assert set(indices) == set(grid.indices(view.box))
    centres = (np.array(indices) + 0.5) * grid.tile - 0.5
    distance = np.linalg.norm(centres - view.centre, axis=1)
    assert (np.diff(distance) >= 0).all()
