"""The Verify widget in a real window: it checks the current view and shows the difference in place."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from conftest import random_network, work_threads
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.evidence.verify.slices import Slices
from window import TIMEOUT, cells, dock, model_for

SHAPE = (12, 40, 48)
LARGE = (12, 72, 80)  # to train on
TURN = np.array([[1, 0, 0, 5], [0, 1, 0.1, -3], [0, 0, 1, 2], [0, 0, 0, 1]], float)


def open_panel(viewer, tile: int = 20, filters: int = 8):
    panel = dock(viewer, "Trust")
    panel.session.use_model(model_for(filters=filters), "a model")
    panel.tile.value = tile
    return panel


def checked(qtbot, panel, button: str = "verify") -> None:
    """Press a button and wait for the end of the check."""
    panel.buttons[button].native.click()
    qtbot.waitUntil(lambda: not panel.busy, timeout=TIMEOUT)
    qtbot.wait(50)
    assert not panel.complaining, panel.message.text()


def differences(viewer) -> list:
    return [layer for layer in viewer.layers if "check" in layer.metadata.get("napari-cropeq", {})]


def padded_model(path):
    """Write a zero-padded network with random weights and return its path."""
    Model(random_network("padded"), Acquisition((2.5, 1, 1)), [Normalisation(0.0, 3000.0)]).save(path)
    return path


VIEWS = [
    pytest.param((0, 1, 2), 2, {}, 12, id="lateral"),
    pytest.param((1, 0, 2), 2, {}, 20, id="axial"),
    pytest.param((2, 1, 0), 2, {}, 20, id="axial-turned"),
    pytest.param((1, 0, 2), 2, {"affine": TURN, "translate": (3, 1, 2)}, 20, id="affine"),
    pytest.param((0, 1, 2), 3, {}, 12, id="3d"),
]


@pytest.mark.parametrize(("order", "ndisplay", "options", "step"), VIEWS)
def test_the_tiles_in_view_are_exact_and_the_difference_is_in_place(viewer, qtbot, order, ndisplay, options, step):
    layer = viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells", **options)
    viewer.dims.order, viewer.dims.ndisplay = order, ndisplay
    viewer.dims.set_point(order[0], float(step))
    viewer.reset_view()
    panel = open_panel(viewer)
    checked(qtbot, panel)
    assert panel.message.text().endswith("all voxels are equal to the last bit.")
    assert panel.found.agreement.exact and panel.found.agreement.voxels == panel.found.box.size > 100
    [shown] = differences(viewer)
    assert not np.asarray(shown.data).any() and tuple(shown.contrast_limits) == (0, 1)
    # A voxel of the difference has the position of the SR voxel.
    corner = np.array(panel.found.box.start) + panel.found.difference.shape - np.ones(3)
    factor = panel.found.slices.predictor.acquisition.factor
    axial = (corner[0] + 0.5) / factor - 0.5
    expected = layer.data_to_world((axial, corner[1], corner[2]))
    last = np.array(panel.found.difference.shape) - 1
    assert np.allclose(shown.data_to_world(last), expected)
    assert shown.units == layer.units


def test_the_seams_of_a_padded_network_are_found_and_shown(viewer, qtbot, tmp_path):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    viewer.dims.order = (1, 0, 2)
    panel = open_panel(viewer)
    checked(qtbot, panel)
    panel.padded.value = padded_model(tmp_path / "p.safetensors")
    checked(qtbot, panel, "against_padded")
    assert "The tiles of a zero-padded network are not exact" in panel.message.text()
    exact, seams = differences(viewer)
    assert not exact.data.any() and seams.data.max() > 1
    assert tuple(seams.contrast_limits) == pytest.approx((0, panel.found.agreement.largest))
    checked(qtbot, panel)
    assert len(differences(viewer)) == 2, "the layer of the last check is replaced"
    assert [la.name for la in viewer.layers if la in panel.layer.sources()] == ["cells"], "a difference is not a source"


def test_a_padded_network_is_trained_once_and_saved(viewer, qtbot, preferences_file, tmp_path, monkeypatch):
    viewer.add_image(cells(LARGE), scale=(2.5, 1, 1), name="cells")
    panel = open_panel(viewer, filters=4)  # the padded network has 66 layers with as many
    panel.session.model.training["recipe"] = asdict(TrainingConfig(patch=40, validation=4))
    panel.minutes.min = 0.0
    panel.minutes.value = 0.005
    checked(qtbot, panel, "against_padded")
    assert panel.found.slices.kind == "padded"
    monkeypatch.setattr("napari_cropeq.run.train_to_file.Training", None)
    checked(qtbot, panel, "against_padded")


def test_one_wrong_voxel_in_view_is_reported(viewer, qtbot, monkeypatch):
    tiled = Slices.tiled

    def with_a_seam(self, box, tile):
        for number, (part, voxels) in enumerate(tiled(self, box, tile)):
            if number == 1:
                voxels = voxels.copy()
                voxels.flat[0] = np.nextafter(voxels.flat[0], np.float32(np.inf))
            yield part, voxels

    monkeypatch.setattr(Slices, "tiled", with_a_seam)
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = open_panel(viewer)
    checked(qtbot, panel)
    assert ": 1 voxel" in panel.message.text() and "please report it" in panel.message.text()
    assert np.count_nonzero(differences(viewer)[0].data) == 1


def test_the_channel_in_view_is_checked(viewer, qtbot):
    data = np.stack([cells(SHAPE), cells(SHAPE, seed=3)])
    layer = viewer.add_image(data, scale=(1, 2.5, 1, 1), name="cells", axis_labels=("c", "z", "y", "x"))
    viewer.dims.set_current_step(0, 1)
    panel = open_panel(viewer)
    checked(qtbot, panel)
    assert panel.found.slices.described["channel"] == 1 and differences(viewer)[0].ndim == 3
    assert layer in viewer.layers


def away(viewer, panel) -> None:
    viewer.scene.camera.center = (0, 9e3, 9e3)


def without_model(viewer, panel) -> None:
    panel.session.model = None


def of_another_factor(viewer, panel) -> None:
    panel.session.use_model(model_for(factor=4.0), "another")


def both(viewer, panel) -> None:
    panel.planes.value = "both"


def no_layer(viewer, panel) -> None:
    viewer.layers.clear()


def thin(viewer, panel) -> None:
    panel.layer.value.scale = (1, 1, 1)


REFUSED = [
    pytest.param(away, "'cells' is not in view", id="nothing-in-view"),
    pytest.param(without_model, "There is no model yet", id="no-model"),
    pytest.param(of_another_factor, "factor 4", id="factor"),
    pytest.param(both, "The mean of both planes cannot be checked", id="both"),
    pytest.param(no_layer, "No layer is chosen", id="no-layer"),
    pytest.param(thin, "isotropic", id="isotropic"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_a_check_that_cannot_run_shows_an_error(viewer, qtbot, spoil, message):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = open_panel(viewer)
    spoil(viewer, panel)
    panel.buttons["verify"].native.click()
    assert panel.complaining and message in panel.message.text(), panel.message.text()
    assert not differences(viewer) and not panel.busy


def test_a_valid_network_is_not_a_padded_one(viewer, qtbot, tmp_path):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = open_panel(viewer)
    model_for().save(tmp_path / "m.safetensors")
    panel.padded.value = tmp_path / "m.safetensors"
    panel.buttons["against_padded"].native.click()
    qtbot.waitUntil(lambda: panel.complaining, timeout=TIMEOUT)
    assert "not zero-padded" in panel.message.text()


@pytest.mark.parametrize("end", ["stop", "dock", "window"])
def test_a_check_can_be_stopped_at_any_time(viewer, qtbot, preferences_file, no_thread_is_left, end):
    viewer.add_image(cells(LARGE), scale=(2.5, 1, 1), name="cells")
    panel = open_panel(viewer)
    panel.minutes.value = 60
    panel.buttons["against_padded"].native.click()
    qtbot.waitUntil(lambda: panel.message.text().startswith("Training"), timeout=TIMEOUT)
    if end == "stop":
        panel.buttons["stop"].native.click()
        qtbot.waitUntil(lambda: not panel.busy, timeout=TIMEOUT)
        qtbot.waitUntil(lambda: panel.message.text() == "Stopped.", timeout=TIMEOUT)
    elif end == "dock":
        viewer.window.remove_dock_widget("all")
    else:
        viewer.close()
    qtbot.waitUntil(lambda: not work_threads(), timeout=TIMEOUT)


def test_tiles_are_smaller_than_the_view(viewer, qtbot):
    """With one tile the check would pass without comparing anything, even for a zero-padded network."""
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = open_panel(viewer)
    panel.tile.value = 4096
    panel.buttons["verify"].native.click()
    assert not panel.complaining and panel.tile.value <= max(SHAPE) // 2
    qtbot.waitUntil(lambda: panel.found is not None, timeout=TIMEOUT)
    assert panel.found.agreement.exact
