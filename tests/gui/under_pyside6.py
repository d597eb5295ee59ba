"""The five widgets at work under PySide6, which napari's installer brings; test_pyside6 runs them.

One process has one Qt, and the other tests have PyQt6.
"""

from __future__ import annotations

import numpy as np
import pytest
from qtpy import API_NAME

from files import a_model, a_stack
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.formats.image import open_image
from window import TIMEOUT, cells, dock, model_for, small, trained

pytestmark = pytest.mark.skipif(API_NAME != "PySide6", reason="run by test_pyside6")


def opened(viewer, name: str):
    """Open a widget over a small volume."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    panel = dock(viewer, name)
    panel.session.use_model(model_for(), "a model")
    return panel


def test_train(viewer, qtbot):
    train = opened(viewer, "Train")
    small(train, patches=64)
    model = trained(qtbot, train)
    assert model.training["patches"] >= 64 and train.message.text().startswith("Trained on")


def test_preview(viewer, qtbot):
    panel = opened(viewer, "Preview")
    panel.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: panel.result.layer in viewer.layers and not panel.result.looking, timeout=TIMEOUT)
    layer, result = panel.result.layer, panel.result.result
    plane = viewer.dims.current_step[0]
    expected = result.compute((), Box((plane, 0, 0), (plane + 1, *result.sr_shape[1:])))[0]
    qtbot.waitUntil(lambda: np.array_equal(layer._slice.image.raw, expected), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: "of the view" in panel.message.text(), timeout=TIMEOUT)
    panel.curtain.native.click()
    assert panel.compare.curtain and not panel.complaining, panel.message.text()


def test_volume(viewer, qtbot, tmp_path):
    panel = opened(viewer, "Volume")
    panel.destination.value = tmp_path / "out.ome.zarr"
    panel.buttons["start"].native.click()
    qtbot.waitUntil(lambda: panel.message.text().startswith("Saved") or panel.complaining, timeout=TIMEOUT)
    assert not panel.complaining, panel.message.text()
    result = panel.result.result
    whole = result.compute((), Box.whole(result.sr_shape))
    assert np.array_equal(np.asarray(open_image(tmp_path / "out.ome.zarr").data), whole)


def test_batch(viewer, qtbot, tmp_path):
    model, stack = a_model(), a_stack(tmp_path / "a.ome.tif")
    panel = dock(viewer, "Batch")
    panel.session.use_model(model, "a model")
    panel.fields.images.value, panel.fields.files.value = "files", [stack]
    panel.fields.destination.value = tmp_path / "out"
    panel.buttons["start"].native.click()
    qtbot.waitUntil(lambda: panel.message.text().startswith("1 done") or panel.complaining, timeout=TIMEOUT)
    assert not panel.complaining, panel.message.text()
    result = SuperResolution(open_image(stack), model, device="cpu")
    whole = result.compute((), Box.whole(result.sr_shape))
    assert np.array_equal(np.asarray(open_image(tmp_path / "out" / "a_SR.ome.zarr").data), whole)


def test_verify(viewer, qtbot):
    panel = opened(viewer, "Verify")
    panel.tile.value = 20
    panel.buttons["verify"].native.click()
    qtbot.waitUntil(lambda: panel.found is not None or panel.complaining, timeout=TIMEOUT)
    assert panel.message.text().endswith("all voxels are equal to the last bit.")
    assert panel.found.agreement.exact and not np.asarray(panel.found.difference).any()
