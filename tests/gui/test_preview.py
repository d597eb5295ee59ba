"""The preview in a real window: fast, with the same bits as an export, and nothing is left behind."""

from __future__ import annotations

import gc
import sys
import threading

import dask.array as da
import numpy as np
import pytest
import torch
from qtpy.compat import isalive
from qtpy.QtCore import Qt

from conftest import a_source, our_threads, work_threads
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import AccessError
from napari_cropeq.formats.open import open_image
from napari_cropeq.gui.layers.viewport import view_of, view_signals
from napari_cropeq.gui.session import Session
from napari_cropeq.run.export import export
from napari_cropeq.view import overview
from window import TIMEOUT, cells, dock, model_for, settle, small

SHAPE = (12, 72, 80)
SR_SHAPE = (30, 72, 80)
TURN = [[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]]
AFFINE = np.array([[1, 0, 0, 5], [0, 1, 0.1, -3], [0, 0, 1, 2], [0, 0, 0, 1]], float)


def begin(viewer, qtbot, model=None, **options):
    """Open the Preview, press its button, and wait until the view is complete."""
    panel = dock(viewer, "Preview")
    panel.session.use_model(model or model_for(**options), "a model")
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    return panel


def shown(layer) -> np.ndarray:
    """Return the slice that napari shows, whole where the layer has one level."""
    return np.asarray(layer._slice.image.raw)


VIEWS = [
    pytest.param(order, step, zoom, id=f"{''.join('zyx'[a] for a in order)}-{step}-{zoom}")
    for order, step, zoom in [
        ((0, 1, 2), 3, 1.0),
        ((0, 1, 2), 17, 6.0),
        ((0, 2, 1), 29, 3.0),
        ((1, 0, 2), 0, 1.0),
        ((1, 2, 0), 71, 4.0),
        ((2, 0, 1), 40, 1.0),
        ((2, 1, 0), 79, 9.0),
    ]
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the exported volumes of :func:`cells`, by dtype."""
    folder = tmp_path_factory.mktemp("export")
    out = {}
    for dtype in ("source", "float32"):
        result = SuperResolution(a_source(cells(SHAPE)), model_for(), dtype=dtype, device="cpu")
        for _ in export(result, folder / f"{dtype}.ome.zarr"):
            pass
        out[dtype] = open_image(folder / f"{dtype}.ome.zarr").volume().compute()
    return out


@pytest.mark.parametrize("dtype", ["source", "float32"])
def test_previews_have_the_bits_of_the_exported_file(viewer, qtbot, exported, dtype):
    """One window for all views: every tile they leave behind is compared, and what the screen shows at the end."""
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(), "a model")
    offset = panel.session.model.acquisition.sr_offset
    panel.open_result(dtype)
    panel.buttons["preview"].native.click()
    for order, step, zoom in (view.values for view in VIEWS):
        viewer.dims.order = order
        viewer.dims.set_point(order[0], offset[order[0]] * 2.5 + step)
        viewer.scene.camera.zoom = zoom
        settle(viewer, qtbot, panel)
        view = view_of(viewer, panel.result.layer)
        assert view.box.start[order[0]] == step
        seen = np.asarray(panel.result.layer.data[view.box.slices])
        assert np.array_equal(seen, exported[dtype][view.box.slices])
        held = [(s, tile) for s in panel.result.worker.finished_stores for tile in s]
        assert any(s.grid.box(t[1]).intersect(view.box) for s, t in held), "tiles, not the interpolation"
    assert panel.result.dtype == dtype and exported[dtype].dtype == panel.result.layer.dtype
    for store in panel.result.worker.finished_stores:
        for leading, index in store:
            box = store.grid.box(index)
            assert np.array_equal(store.read((leading, index), box), exported[dtype][box.slices])


PLACES = [
    pytest.param({"scale": (2.5, 1, 1), "translate": (10, -20, 30)}, id="translate"),
    pytest.param({"scale": (2.5, 1, 1), "rotate": TURN}, id="rotate"),
    pytest.param({"scale": (2.5, 1, 1), "shear": (0, 0, 0.1)}, id="shear"),
    pytest.param({"scale": (2.5, 1, 1), "affine": AFFINE}, id="affine"),
    pytest.param({"scale": (2500, 1000, 1000), "units": ["nm"] * 3}, id="units"),
]


@pytest.mark.parametrize("options", PLACES)
def test_the_preview_is_exactly_on_top_of_its_source(viewer, qtbot, options):
    source = viewer.add_image(cells(SHAPE), name="cells", **options)
    lateral = np.linalg.norm(source.data_to_world((0, 0, 1)) - np.array(source.data_to_world((0, 0, 0))))
    panel = begin(viewer, qtbot, factor=source.scale[0] / np.mean([source.scale[1], lateral]))
    layer, result = panel.result.layer, panel.result.result
    for index in ((0, 0, 0), (29, 71, 79), (15, 30, 40)):
        position = [(index[0] + 0.5) / result.acquisition.factor - 0.5, *index[1:]]
        assert np.allclose(layer.data_to_world(index), source.data_to_world(position))
    view = panel.result.follower.view
    expected = result.compute((), view.box)
    assert np.array_equal(np.asarray(layer.data[view.box.slices]), expected)


@pytest.mark.parametrize("multiscale", [False, True], ids=["one level", "levels"])
def test_time_channels_and_levels(viewer, qtbot, multiscale):
    data = np.stack([np.stack([cells(SHAPE, seed) for seed in (1, 2)]), np.stack([cells(SHAPE, s) for s in (3, 4)])])
    scale = (1, 1, 2.5, 1, 1)
    viewer.add_image([data, data[..., ::2, ::2]] if multiscale else data, multiscale=multiscale, scale=scale)
    panel = begin(viewer, qtbot)
    result, layer = panel.result.result, panel.result.layer
    for leading in ((1, 0), (0, 1)):
        viewer.dims.set_current_step((0, 1), leading)
        settle(viewer, qtbot, panel)
        view = panel.result.follower.view
        assert view.leading == leading
        assert np.array_equal(np.asarray(layer.data[(*leading, *view.box.slices)]), result.compute(leading, view.box))


def test_several_layers_are_previewed_side_by_side(viewer, qtbot):
    layers = [viewer.add_image(cells(SHAPE, seed), scale=(2.5, 1, 1), name=f"cells {seed}") for seed in (1, 2)]
    panel = begin(viewer, qtbot)
    first = panel.result
    panel.layer.value = next(layer for layer in layers if layer is not first.source_layer)
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    assert panel.result is not first and first.alive and panel.result.alive
    assert len(viewer.layers) == 4


def test_the_view_is_followed_until_switched_off(viewer, qtbot):
    viewer.add_image(cells((12, 300, 400)), scale=(2.5, 1, 1), name="cells")
    viewer.scene.camera.zoom = 8
    panel = begin(viewer, qtbot, filters=4)
    first = panel.result.follower.view
    done, total = panel.result.state.in_view
    assert done == total > 0
    assert panel.message.text() == "All of the view is computed; identical to the export."
    assert panel.message.toolTip().startswith(f"{total} of {total} tiles; bit-exact on cpu.")
    viewer.scene.camera.center = (0, 40, 50)
    settle(viewer, qtbot, panel)
    assert panel.result.follower.view.box != first.box and panel.result.state.in_view[0] > 0
    panel.follow.value = False
    second, computed = panel.result.follower.view, panel.result.state.computed
    viewer.scene.camera.center = (0, 250, 350)
    qtbot.wait(300)
    assert panel.result.follower.view is second and panel.result.state.computed == computed
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    assert panel.result.follower.view is not second and panel.result.state.computed > computed


def test_going_back_computes_nothing(viewer, qtbot):
    viewer.add_image(cells((12, 300, 400)), scale=(2.5, 1, 1), name="cells")
    viewer.scene.camera.zoom = 8
    panel = begin(viewer, qtbot, filters=4)
    home = viewer.scene.camera.center
    viewer.scene.camera.center = (0, 40, 50)
    settle(viewer, qtbot, panel)
    computed = panel.result.state.computed
    viewer.scene.camera.center = home
    settle(viewer, qtbot, panel)
    done, total = panel.result.state.in_view
    assert done == total > 0 and panel.result.state.computed == computed
    other = model_for(filters=8)
    first = panel.session.model
    panel.session.use_model(other, "another")
    settle(viewer, qtbot, panel)
    panel.session.use_model(first, "the first again")
    settle(viewer, qtbot, panel)
    done, total = panel.result.state.in_view
    assert done == total > 0 and panel.result.state.computed == 0, "kept for each model"


def test_only_the_centre_is_computed_when_zoomed_out(viewer, qtbot):
    viewer.add_image(da.zeros((8, 4000, 4000), chunks=(1, 500, 500), dtype=np.uint16) + 1, scale=(2.5, 1, 1), name="a")
    viewer.layers[0].data = da.from_array(np.arange(8, dtype=np.uint16)[:, None, None], chunks=1) + da.zeros(
        (8, 4000, 4000), chunks=(1, 500, 500), dtype=np.uint16
    )
    viewer.reset_view()
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(filters=4), "a model")
    panel.buttons["preview"].native.click()
    qtbot.waitUntil(
        lambda: panel.result.follower.view is not None and panel.result.state.in_view[0] > 0, timeout=TIMEOUT
    )
    assert panel.result.follower.view.limited
    assert max(panel.result.follower.view.box.shape) <= max(viewer.canvas.size)
    qtbot.waitUntil(lambda: "Zoom in for the rest" in panel.message.text(), timeout=TIMEOUT)
    viewer.scene.camera.zoom = 2
    qtbot.waitUntil(lambda: not panel.result.follower.view.limited, timeout=TIMEOUT)
    panel.buttons["stop"].native.click()


def test_a_large_volume_is_never_empty(viewer, qtbot, monkeypatch):
    """The interpolation of the view is shown until tiles or an overview are ready."""
    monkeypatch.setattr(overview, "VOXELS", 1000)
    viewer.add_image(cells((40, 72, 80)) + 100, scale=(2.5, 1, 1), name="cells")
    panel = dock(viewer, "Preview")
    model = model_for(filters=32, blocks=7)
    torch.nn.init.zeros_(model.network.tail.weight)  # the SR is the interpolation, nowhere 0
    model.correction = 0.0
    panel.session.use_model(model, "a model")
    panel.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: panel.result.layer is not None and panel.result.layer in viewer.layers, timeout=TIMEOUT)
    seen = []
    while panel.result.looking:
        seen.append(np.count_nonzero(shown(panel.result.layer)) / shown(panel.result.layer).size)
        qtbot.wait(20)
    settle(viewer, qtbot, panel)
    view, result = panel.result.follower.view, panel.result.result
    assert np.array_equal(np.asarray(panel.result.layer.data[view.box.slices]), result.compute((), view.box))
    assert seen[0] > 0 and seen == sorted(seen) and seen[len(seen) // 2] == 1, "filled long before the last tile"
    planes = panel.result.worker.in_view._interpolated[0]
    assert len(planes), "the plane was interpolated meanwhile"
    for tile in planes:
        assert np.array_equal(
            planes.read(tile, planes.grid.box(tile[1])), result.interpolated((), planes.grid.box(tile[1]))
        )


def broken_source():
    """Return a volume whose right half cannot be read."""

    def block(block_info=None):
        (_, _), (_, _), (x, _) = block_info[None]["array-location"]
        if x >= 200:
            raise AccessError("A chunk cannot be read.", "Check the disk.")
        return cells((12, 72, 100), seed=x)

    return da.map_blocks(block, chunks=((12,), (72,), (100,) * 4), dtype=np.uint16, meta=np.zeros((0, 0, 0), np.uint16))


def test_unreadable_parts_are_reported_and_the_rest_is_computed(viewer, qtbot, monkeypatch):
    monkeypatch.setattr("napari_cropeq.compute.super_resolution.sample", lambda source: np.arange(3000.0))
    monkeypatch.setattr(overview, "VOXELS", 1000)
    source = viewer.add_image(da.zeros((12, 72, 400), dtype=np.uint16), scale=(2.5, 1, 1), contrast_limits=(0, 3000))
    source.visible = False  # napari would raise the error as well
    source.data = broken_source()
    viewer.dims.order = (0, 1, 2)
    viewer.reset_view()
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(filters=4), "a model")
    panel.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: "Check the disk" in panel.message.text(), timeout=TIMEOUT)
    settle(viewer, qtbot, panel)
    assert panel.result.alive
    done, total = panel.result.state.in_view
    assert 0 < done < total
    result, store = panel.result.result, panel.result.worker.in_view.store
    assert all(
        np.array_equal(store.read(t, store.grid.box(t[1])), result.compute((), store.grid.box(t[1]))) for t in store
    )
    assert max(store.grid.box(t[1]).stop[2] for t in store) <= 200


def test_preview_and_volume_use_each_others_tiles(viewer, qtbot, monkeypatch, tmp_path):
    boxes = []
    compute = SuperResolution.compute

    def counted(self, leading, box, *more):
        boxes.append(box)
        return compute(self, leading, box, *more)

    monkeypatch.setattr(SuperResolution, "compute", counted)
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    viewer.fit_to_view()
    for z in range(0, 30, 6):  # all of it: each plane completes tiles
        viewer.dims.set_point(0, z - 0.75)
        settle(viewer, qtbot, panel)
    volume = dock(viewer, "Volume")
    qtbot.waitUntil(lambda: "Result" in volume.estimate.text(), timeout=TIMEOUT)  # measured on a separate box
    boxes.clear()
    volume.destination.value = tmp_path / "out.ome.zarr"
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert boxes == [], "no voxel was computed twice"
    viewer.dims.order = (1, 0, 2)
    settle(viewer, qtbot, panel)
    done, total = panel.result.state.in_view
    assert done == total > 0 and boxes == [], "tiles of the volume are not computed again"


def test_another_model_is_shown_if_the_view_is_followed(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot, filters=8)
    first = panel.result
    panel.session.use_model(model_for(filters=4), "another")
    settle(viewer, qtbot, panel)
    assert panel.result is not first and not first.alive
    view = panel.result.follower.view
    seen = np.asarray(panel.result.layer.data[view.box.slices])
    assert np.array_equal(seen, panel.result.result.compute((), view.box))
    names = ["cells", "cells SR (a model)", "cells SR (another)"]
    assert [layer.name for layer in viewer.layers] == names, "the first result stays"
    assert panel.result.layer.visible and not first.layer.visible, "hidden, because it is of another model"
    panel.buttons["stop"].native.click()
    second = panel.result
    panel.session.use_model(model_for(filters=8), "not followed")
    assert panel.result is second


def test_live_while_training(viewer, qtbot, monkeypatch):
    """One layer shows the newest weights, and at the end those of the model."""
    monkeypatch.setattr("napari_cropeq.gui.training_run.SNAPSHOT_SECONDS", 0.2)
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train, panel = dock(viewer, "Train"), dock(viewer, "Preview")
    small(train, minutes=0.05)
    panel.live.value = True
    train.buttons["start"].native.click()
    models = set()

    def watched() -> bool:
        if panel.result is not None:
            models.add(panel.result.model.fingerprint)
        return train._job is None

    qtbot.waitUntil(watched, timeout=TIMEOUT)
    settle(viewer, qtbot, panel)
    assert len(models) > 2
    assert panel.result.model is train.session.model
    assert [layer.name for layer in viewer.layers] == ["cells", f"cells SR ({panel.session.model_label})"]
    assert panel.session.model_label.startswith("custom, ")
    view, whole = panel.result.follower.view, SuperResolution(panel.result.result.source, train.session.model)
    assert np.array_equal(np.asarray(panel.result.layer.data[view.box.slices]), whole.compute((), view.box))
    assert not panel.result.worker.in_view._outdated, "old weights are no longer shown"
    assert not panel.result.live, "it shows the model from now on"
    panel.live.value = False
    assert panel.session.live_wanted == 0


def test_flip_and_curtain(viewer, qtbot):
    source = viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = dock(viewer, "Preview")
    panel.buttons["flip"].native.click()
    assert "Press Preview first" in panel.message.text()
    panel.session.use_model(model_for(), "a model")
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    sr = panel.result.layer
    panel.buttons["flip"].native.click()
    assert source.visible and not sr.visible
    panel.buttons["flip"].native.click()
    assert sr.visible and not source.visible
    panel.curtain.value = True
    assert panel.compare.curtain and source.visible and sr.visible
    panel.buttons["flip"].native.click()
    assert not panel.curtain.value
    assert "of the view" in panel.message.text(), "the state stays visible"
    panel.buttons["flip"].native.click()
    panel.buttons["flip"].native.click()
    assert not sr.visible or not source.visible
    panel.buttons["preview"].native.click()
    assert sr.visible, "Preview shows the SR"
    viewer.window.remove_dock_widget("all")
    assert source.visible and sr.visible


@pytest.mark.parametrize("voxels", [2**24, 1000], ids=["whole overview", "sampled overview"])
def test_comparison_with_interpolation(viewer, qtbot, monkeypatch, voxels):
    monkeypatch.setattr(overview, "VOXELS", voxels)
    source = viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells", colormap="magenta")
    panel = begin(viewer, qtbot)
    sr = panel.result.layer
    panel.curtain.value = True
    panel.compare.position = 0.3
    panel.reference.native.setFocus()
    qtbot.keyClick(panel.reference.native, Qt.Key.Key_Down)
    assert panel.reference.value == "interpolation"
    assert [layer.name for layer in viewer.layers] == ["cells", "cells interpolated", sr.name]
    other = panel.compare.other
    assert other is viewer.layers["cells interpolated"] and other.visible and sr.visible
    assert panel.curtain.value and panel.compare.curtain and panel.compare.position == 0.3
    assert viewer.layers.selection.active is not other and other not in panel.layer.choices
    for key in ("scale", "translate", "units", "axis_labels"):
        assert np.array_equal(getattr(other, key), getattr(sr, key))
    panel.show_axial_view()
    settle(viewer, qtbot, panel)
    view, result = panel.result.follower.view, panel.result.result
    assert view.across == 1
    assert np.array_equal(np.asarray(other.data[view.box.slices]), result.interpolated((), view.box))
    assert np.array_equal(shown(other), result.interpolated((), Box.whole(SR_SHAPE))[:, view.box.start[1]])
    sr.contrast_limits, sr.colormap = (100, 900), "green"
    assert tuple(other.contrast_limits) == (100, 900) and other.colormap.name == "green"
    panel.flip()
    assert other.visible and not sr.visible and not panel.curtain.value
    panel.session.use_model(model_for(filters=4), "another")
    settle(viewer, qtbot, panel)
    sr = panel.result.layer
    names = ["cells", "cells SR (a model)", "cells interpolated", "cells SR (another)"]
    assert [layer.name for layer in viewer.layers] == names, "the same layer, below the new result"
    assert not other.visible and sr.visible
    panel.flip()
    assert panel.compare.other is other and other.visible and not sr.visible
    view = panel.result.follower.view
    assert np.array_equal(np.asarray(other.data[view.box.slices]), result.interpolated((), view.box))
    sr.contrast_limits = (50, 800)
    assert tuple(other.contrast_limits) == (50, 800)
    viewer.layers.remove("cells interpolated")
    assert panel.reference.value == "acquired voxels"
    panel.curtain.value = True
    assert panel.compare.other is source
    panel.reference.value = "interpolation"
    panel.reference.value = "acquired voxels"
    assert panel.compare.other is source and panel.compare.curtain
    assert not viewer.layers["cells interpolated"].visible
    panel.reference.value = "interpolation"
    viewer.window.remove_dock_widget("all")
    assert "cells interpolated" not in viewer.layers and source.visible


def test_3d_shows_the_whole_result_once_it_is_complete(viewer, qtbot):
    viewer.add_image(cells((24, 100, 120)), scale=(2.5, 1, 1), name="cells")
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(filters=4), "a model")
    panel.box_size.value = 32
    viewer.dims.ndisplay = 3
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    result, names = panel.result, ["cells", "cells SR (a model)"]
    assert {layer.name for layer in viewer.layers} == {*names, "cells SR (a model) box"}
    volume = dock(viewer, "Volume")
    volume.destination.value = None
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: volume.message.text().startswith("All "), timeout=TIMEOUT)
    assert volume.result is result
    assert [layer.name for layer in viewer.layers] == names and result.layer.visible
    viewer.scene.camera.center = (30, 20, 20)
    settle(viewer, qtbot, panel)
    assert [layer.name for layer in viewer.layers] == names
    assert panel.message.text() == "All of the view is computed; identical to the export."
    assert np.array_equal(np.asarray(result.layer.data), result.result.compute((), Box.whole(result.result.sr_shape)))
    corners = np.array([[30, 10, 20], [30, 10, 60], [30, 50, 60], [30, 50, 20]], float)
    panel.region.value = viewer.add_shapes([corners], shape_type="rectangle", name="region")
    settle(viewer, qtbot, panel)
    assert result.shown.box.layer.data.shape == (32, 41, 41), "a region that is chosen is shown"
    panel.show_axial_view()
    settle(viewer, qtbot, panel)
    assert result.layer.visible and result.follower.view.across == 1 and len(viewer.layers) == 3


def test_one_model_has_one_layer_until_its_result_is_complete(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells", blending="additive")
    panel = begin(viewer, qtbot, filters=8)
    panel.session.use_model(model_for(filters=4), "another")
    settle(viewer, qtbot, panel)
    first, volume = panel.result, dock(viewer, "Volume")
    volume.planes.value = "both"
    volume.open_result()
    assert volume.result is first, "automatic is both"
    volume.dtype.value, volume.destination.value = "float32", None
    for planes, names in [("both", []), ("x", ["cells SR (another) [1]"])]:
        volume.planes.value = planes
        volume.buttons["start"].native.click()
        qtbot.waitUntil(lambda: volume.message.text().startswith("All "), timeout=TIMEOUT)
        shown_names = [layer.name for layer in viewer.layers]
        assert shown_names == ["cells", "cells SR (a model)", "cells SR (another)", *names]
        result = volume.result
        assert [layer for layer in viewer.layers if layer.visible] == [result.layer] and result.layer.dtype == "f4"
        assert result.layer.metadata["napari-cropeq"] == result.result.describe()
        whole = result.result.compute((), Box.whole(SR_SHAPE))
        assert np.array_equal(np.asarray(result.layer.data), whole)
        volume.say("")
    assert first.layer is not volume.result.layer, "a complete result keeps its layer"


@pytest.mark.parametrize("blending", ["additive", "translucent"])
def test_a_source_does_not_shine_through_its_sr(viewer, qtbot, blending):
    source = viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), blending=blending, name="cells")
    panel = begin(viewer, qtbot)
    assert source.visible == (blending == "translucent") and panel.result.layer.visible
    viewer.layers.remove(panel.result.layer)
    assert source.visible, "shown again"


def test_an_error_is_cleared_with_another_layer_and_names_are_up_to_date(viewer, qtbot):
    viewer.add_image(np.zeros((20, 30)), name="flat")
    panel = dock(viewer, "Preview")
    panel.buttons["preview"].native.click()
    assert "'flat'" in panel.message.text() and panel.complaining
    layer = viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel.layer.value = layer
    assert not panel.complaining and panel.message.text() == ""
    layer.name = "renamed"
    names = panel.layer.native
    assert "renamed" in [names.itemText(number) for number in range(names.count())]


def test_a_box_in_3d(viewer, qtbot):
    viewer.add_image(cells((24, 100, 120)), scale=(2.5, 1, 1), name="cells")
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(filters=4), "a model")
    panel.box_size.value = 32
    viewer.dims.ndisplay = 3
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    result, box = panel.result, panel.result.shown.box.layer
    assert box in viewer.layers and not result.layer.visible
    assert box.data.shape == (32, 32, 32) and not box.multiscale
    view = result.follower.view
    assert np.array_equal(np.asarray(box.data), result.result.compute((), view.box))
    assert np.allclose(box.data_to_world((0, 0, 0)), result.layer.data_to_world(view.box.start))
    viewer.scene.camera.center = (30, 20, 20)
    settle(viewer, qtbot, panel)
    assert result.shown.box.layer is box and result.follower.view.box != view.box
    assert np.array_equal(shown(box).reshape(32, 32, 32), result.result.compute((), result.follower.view.box))
    assert np.allclose(box.data_to_world((0, 0, 0)), result.layer.data_to_world(result.follower.view.box.start))
    corners = np.array([[30, 10, 20], [30, 10, 60], [30, 50, 60], [30, 50, 20]], float)
    drawn = viewer.add_shapes([corners], shape_type="rectangle", name="region")
    panel.region.value = drawn
    settle(viewer, qtbot, panel)
    assert box.data.shape == (32, 41, 41)
    viewer.dims.ndisplay = 2
    settle(viewer, qtbot, panel)
    assert box not in viewer.layers and result.layer.visible and result.follower.view.across == 0
    viewer.dims.ndisplay = 3
    settle(viewer, qtbot, panel)
    viewer.layers.remove(result.shown.box.layer)
    assert result.layer.visible and not result.follower.following and result.alive
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    assert result.shown.box.layer in viewer.layers
    viewer.window.remove_dock_widget("all")
    assert [layer.name for layer in viewer.layers] == ["cells", "cells SR (a model)", "region"]
    assert result.layer.visible


def connections(viewer) -> list[int]:
    """Return the number of callbacks of each event that the preview uses."""
    events = [*view_signals(viewer), viewer.layers.events.removed, viewer.layers.events.inserted]
    return [len(event.callbacks) for event in events]


ENDINGS = {
    "source removed": lambda viewer, panel: viewer.layers.remove(panel.result.source_layer),
    "preview removed": lambda viewer, panel: viewer.layers.remove(panel.result.layer),
    "dock closed": lambda viewer, panel: viewer.window.remove_dock_widget("all"),
}
MOMENTS = [(end, when) for end in ENDINGS for when in ("preparing", "working", "idle")]
MOMENTS.remove(("preview removed", "preparing"))  # there is no layer yet


@pytest.mark.parametrize(("end", "when"), MOMENTS)
def test_nothing_is_left_behind(viewer, qtbot, end, when):
    viewer.add_image(cells((30, 128, 128)), scale=(2.5, 1, 1), name="cells")
    first = dock(viewer, "Preview")  # creates what the window itself keeps
    viewer.window.remove_dock_widget("all")
    del first
    qtbot.wait(50)
    before, keys = connections(viewer), set(viewer.keymap)
    panel = dock(viewer, "Preview")
    docked = connections(viewer)
    panel.session.use_model(model_for() if when == "idle" else model_for(filters=32, blocks=7), "a model")
    panel.buttons["preview"].native.click()
    result = panel.result
    if when != "preparing":
        qtbot.waitUntil(lambda: result.layer in viewer.layers, timeout=TIMEOUT)
    if when == "idle":
        settle(viewer, qtbot, panel)
    ENDINGS[end](viewer, panel)
    qtbot.waitUntil(lambda: not work_threads(), timeout=5000)
    assert not result.alive and not result.busy
    qtbot.waitUntil(lambda: not isalive(result), timeout=5000)  # nor its timers
    assert connections(viewer) == (before if end == "dock closed" else docked)
    assert set(viewer.keymap) == keys
    if end != "dock closed":
        qtbot.waitUntil(
            lambda: "Preview stopped. Press Preview to restart." in panel.message.text() or when == "preparing",
            timeout=5000,
        )
        panel.curtain.value = True
        assert "Press Preview first" in panel.message.text() and not panel.curtain.value
    names = [layer.name for layer in viewer.layers]
    sr = "cells SR (a model)"
    assert names in (["cells"], [sr], ["cells", sr]) or (end, when) == ("source removed", "preparing")


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_closing_the_window_during_a_preview(viewer, qtbot, ndisplay):
    viewer.add_image(cells((30, 128, 128)), scale=(2.5, 1, 1), name="cells")
    viewer.dims.ndisplay = ndisplay
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(filters=64), "a model")
    panel.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: panel.result.layer in viewer.layers, timeout=TIMEOUT)
    assert work_threads()
    viewer.close()
    qtbot.waitUntil(lambda: not work_threads(), timeout=5000)


def test_previews_do_not_accumulate_threads(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot, filters=4)
    before = len(our_threads())
    for filters in (8, 4, 8):
        panel.session.use_model(model_for(filters=filters), "another")
        settle(viewer, qtbot, panel)
        assert len(work_threads()) == 1
    gc.collect()
    assert len(our_threads()) <= before
    assert [r for r in Session.of(viewer).results if r.alive] == [panel.result]


def test_the_memory_limit_in_the_preferences_is_used(viewer, qtbot):
    from napari.settings import get_plugin_settings

    viewer.add_image(cells((12, 300, 400)), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot, filters=4)
    assert panel.session.cache.nbytes > 0 and panel.session.cache.cap == 2 * 10**9
    get_plugin_settings("napari-cropeq").computing.cache_memory = 0.25
    assert panel.session.cache.cap == 250_000_000


def test_only_the_chunks_of_a_box_are_read(viewer, qtbot):
    """A tile in one corner does not read the opposite corner."""
    read, voxels = [], cells((12, 400, 400))

    class Watched:
        shape, dtype, ndim = (12, 400, 400), np.dtype(np.uint16), 3

        def __getitem__(self, key):
            if threading.current_thread().name == "cropeq":
                read.append(tuple((k.start, k.stop) for k in key))
            return voxels[key]

    data = da.from_array(Watched(), chunks=(12, 50, 50), name=False, asarray=True)
    viewer.add_image(data, scale=(2.5, 1, 1), contrast_limits=(0, 3000), name="cells")
    panel = begin(viewer, qtbot, filters=4)
    worker = panel.result.worker
    worker.look(None)
    result = worker.result
    for cached in (result.predictor, result._volumes):
        cached.cache_clear()
    read.clear()
    box = Box((0, 0, 0), (16, 32, 64))
    threading.Thread(target=lambda: result.compute((), box), name="cropeq").start()
    qtbot.waitUntil(lambda: not any(t is not panel.result._job._thread for t in work_threads()), timeout=TIMEOUT)
    assert read and max(stop for key in read for _, stop in key[1:]) <= 150


@pytest.fixture
def without_private_parts(viewer, monkeypatch):
    """A napari whose private canvas is hidden from this plugin, but not from napari's own code."""
    kept = type(viewer).window.fget

    class Window:
        def __init__(self, window) -> None:
            self._window = window

        def __getattr__(self, name):
            if name == "_qt_viewer" and sys._getframe(1).f_globals["__name__"].startswith("napari_cropeq"):
                raise AttributeError("'Window' object has no attribute '_qt_viewer'")
            return getattr(self._window, name)

    monkeypatch.setattr(type(viewer), "window", property(lambda self: Window(kept(self))))


@pytest.mark.usefixtures("without_private_parts")
def test_the_preview_needs_no_private_part_of_napari(viewer, qtbot):
    """Only the curtain does, and shows an error; preview, flip and closing work without it."""
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    assert not panel.complaining, panel.message.text()
    result = panel.result.layer
    done, total = panel.result.state.in_view
    assert done == total > 0 and "of the view" in panel.message.text()
    panel.curtain.native.click()
    assert panel.complaining and panel.message.text() == (
        "The curtain does not work with this version of napari ('Window' object has no attribute '_qt_viewer'). "
        "Compare with Flip, or use another version of napari."
    )
    assert not panel.curtain.value and result.visible
    panel.buttons["flip"].native.click()
    assert not panel.complaining and not result.visible
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    assert result.visible and "of the view" in panel.message.text()
    viewer.window.remove_dock_widget("all")
    assert panel.compare.closed
