"""The Train widget in a real window, driven by its buttons."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QLabel
from scipy import ndimage

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import PRESETS, TrainingConfig
from napari_cropeq.core.training.training import Thumbnail, Training
from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.parts.config_form import TrainingConfigForm
from napari_cropeq.gui.parts.thumbnails import Thumbnails
from napari_cropeq.gui.training_data import TrainingData
from napari_cropeq.gui.training_plan import checkpoint_path
from window import TIMEOUT, cells, data_of, dock, model_for, small, trained


def offered(train) -> tuple[bool, bool]:
    """Return whether the choices of channels and of time points are shown."""
    data = data_of(train)
    return data.source.channels.native.isVisibleTo(data), data.source.times.native.isVisibleTo(data)


def held_out_loss(train, model) -> float:
    """Return the validation loss of a model's weights, as a training that continues from them computes it."""
    data = train.source.data(train.viewer.dims.point)
    start = dataclasses.replace(model, state=None)
    config = TrainingConfig.read({**model.training["recipe"], "minutes": None, "patches": 1})
    training = Training(data.channels, model.acquisition, config, "cpu", start=start)
    return training._validate(training._weights.current)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_fills_the_form(qtbot, name):
    form = TrainingConfigForm(Colours.of("dark"))
    qtbot.addWidget(form)
    form.preset.value = next(other for other in PRESETS if other != name)
    form.fields["filters"].value = 7
    form.preset.value = name
    assert form.config() == TrainingConfig.preset(name)
    assert form.overrides() == {}
    assert form.config().preset_name == name
    form.set_budget(minutes=7)
    assert form.config().preset_name == name, "whatever the budget"
    form.fields["filters"].value = 7
    assert form.config().preset_name == "custom"


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrainingConfig)])
def test_every_setting_has_a_widget_that_sets_it(qtbot, name):
    """One widget for each field."""
    form = TrainingConfigForm(Colours.of("dark"))
    qtbot.addWidget(form)
    default = getattr(TrainingConfig.preset("fast"), name)
    if name in ("minutes", "patches"):
        form.set_budget(**{name: 7})
        assert getattr(form.config(), name) == 7
        return
    field = form.fields[name]
    others = [c for c in getattr(field, "choices", [not default]) if c != default]
    number = not isinstance(default, (bool, str)) and not hasattr(field, "choices")
    value = (
        (0.5 if isinstance(default, float) and default != 0.5 else 0.25 if default == 0.5 else 70)
        if number
        else others[0]
    )
    field.value = value
    assert getattr(form.config(), name) == value
    assert form.overrides() == {name: value}
    assert "1 changed" in form.text()
    assert "bold" in form._labels[name].styleSheet()
    form.restore.click()
    assert form.config() == TrainingConfig.preset("fast")
    assert form._labels[name].styleSheet() == ""
    assert form.text() == "▸ Advanced options"
    form.expand(animate=False)
    assert form.text() == "▾ Advanced options"


def test_the_device_chosen_is_the_one_used(viewer, qtbot):
    """Only available devices are offered; another one is refused when it is used."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    there = torch.cuda.is_available()
    assert train.device.choices == (("auto", "cpu", "cuda") if there else ("auto", "cpu"))
    train.device.choices = ["cuda"]
    small(train, patches=8)
    train.buttons["start"].native.click()
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    if there:
        assert train.session.model.training["device"] == "cuda"
    else:
        assert "The device is cuda, but" in train.message.text()


def test_curves_thumbnails_and_time_left_update(viewer, qtbot):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    small(train, minutes=0.08)
    seen = set()
    train.buttons["start"].native.click()

    def ended() -> bool:
        if train.thumbnails.shown is not None:
            seen.add(id(train.thumbnails.shown))
            thumbnails.append(train.thumbnails.shown)
        if "left" in train.bar.format():
            formats.append(train.bar.format())
        return train._job is None

    thumbnails, formats = [], []
    qtbot.waitUntil(ended, timeout=TIMEOUT)
    assert len(seen) > 1, "the thumbnails change while training"
    first, last = thumbnails[0], thumbnails[-1]
    assert first.input.shape == first.output.shape == first.truth.shape
    assert np.array_equal(first.truth, last.truth), "of one patch"
    assert not np.array_equal(first.output, last.output)
    assert all("patches/s" in text for text in formats) and formats
    x, y = train.curves._training.getData()
    assert len(x) == len(train.curves.points) > 1
    assert np.all(np.diff(x) > 0) and np.isfinite(y).all()
    patches, losses = train.curves._validation.getData()
    recorded = train.session.model.training["losses"]
    assert list(patches) == [p for p, *_ in recorded]
    assert list(losses) == pytest.approx([loss for *_, loss in recorded])
    train.curves.logarithmic.setChecked(True)
    assert np.allclose(train.curves._validation.getData()[1], np.log10(losses))


def test_learning_the_expected_error_adds_no_points(viewer, qtbot, monkeypatch):
    monkeypatch.setattr("napari_cropeq.core.training.training.LEAST_PATCHES", 60)
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train, texts = dock(viewer, "Train"), []
    small(train, patches=60)
    say = train.say
    train.say = lambda text, tooltip="": (texts.append(text), say(text, tooltip))
    model = trained(qtbot, train)
    assert any("Learning the expected error" in text for text in texts) and model.error_tail is not None
    assert np.all(np.diff([patches for patches, _ in train.curves.points]) > 0)


def test_the_curve_does_not_rise_because_the_first_batches_are_dark(viewer, qtbot):
    """Few bright cells in a dark volume: most patches are dark, with a low loss that says nothing."""
    viewer.add_image(few_cells(), scale=(3, 1, 1), name="dark")
    train = dock(viewer, "Train")
    small(train, patches=200)
    trained(qtbot, train)
    patches, losses = train.curves._training.getData()
    assert patches[0] >= 14 * 4, "not of the first batches"
    assert losses.max() < 1.3 * losses[0]


def few_cells() -> np.ndarray:
    """Return bright spots (z, y, x) in a few places of a dark volume, blurred along z."""
    rng = np.random.default_rng(1)
    volume = np.zeros((20, 128, 128), np.float32)
    for place in zip(*(rng.integers(4, n - 4, 20) for n in volume.shape), strict=True):
        volume[place] = rng.uniform(2e4, 9e4)
    return (ndimage.gaussian_filter(volume, (1, 1.6, 1.6)) + rng.poisson(20, volume.shape)).astype(np.uint16)


def test_a_training_says_how_much_better_than_interpolation_it_is(viewer, qtbot):
    """In dB; the losses, which say little to a user, are in the tooltip. No message has a NaN."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    small(train, patches=80)
    texts = []
    say = train.say
    train.say = lambda text, tooltip="": (texts.append((text, tooltip, train.bar.format())), say(text, tooltip))
    model = trained(qtbot, train)
    shown = [(text, tooltip) for text, tooltip, _ in texts if "patches," in text and "Trained" not in text]
    assert shown and not any("nan" in " ".join(three).lower() for three in texts)
    for text, tooltip in shown:
        assert re.match(r"[\d,]+ patches, (\d+\.\d dB|not) better than interpolation on held-out patches\.", text)
        assert re.search(
            r"error is \d+ % smaller than that of interpolation\. Loss: 0\.\d+ on training patches", tooltip
        )
        assert re.search(r"0\.\d+ by interpolation on held-out patches", tooltip)
    assert f"{model.training['gain']:.1f} dB better than" in train.message.text()
    assert train.message.toolTip() == "", "of another message"


def test_the_plot_has_a_line_for_interpolation(viewer, qtbot):
    """Over all patches, also on a logarithmic axis; the key is above the data, not on it."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    small(train, patches=80)
    model = trained(qtbot, train)
    patches, level = train.curves._interpolation.getData()
    best = min(loss for *_, loss in model.training["losses"])
    assert patches[0] < 20 and patches[-1] == 80
    assert level[0] == level[1] == pytest.approx(train.curves.interpolation) and level[0] > best
    train.curves.logarithmic.setChecked(True)
    assert np.allclose(train.curves._interpolation.getData()[1], np.log10(level))
    assert train.curves.plot.getPlotItem().legend is None
    key, plot = train.curves.key, train.curves.plot
    for name in ("training", "held-out", "interpolation"):
        assert name in key.text()
    assert key.isVisibleTo(train) and key.geometry().bottom() < plot.geometry().top()


def test_the_patches_say_what_they_are(qtbot):
    thumbnails = Thumbnails()
    qtbot.addWidget(thumbnails)
    texts = {label.text() for label in thumbnails.findChildren(QLabel)}
    assert {"slice as acquired", "super-resolved", "held-out truth"} <= texts


PATCHES = [
    pytest.param((32, 32), (96, 96), id="square"),
    pytest.param((68, 32), (96, 117), id="factor-2.433"),
    pytest.param((192, 32), (96, 117), id="factor-8"),
    pytest.param((20, 64), (64, 20), id="flat"),
    pytest.param((300, 200), (104, 128), id="large"),
]


@pytest.mark.parametrize("at", [0.02, 0.5, 0.98], ids=["top", "middle", "bottom"])
@pytest.mark.parametrize(("shape", "shown"), PATCHES)
def test_a_patch_is_shown_large_enough_to_be_seen(qtbot, shape, shown, at):
    """If it is much higher than wide, the part with contrast is shown."""
    patch = np.zeros(shape, np.float32)
    row = round(at * (shape[0] - 4))
    patch[row : row + 4, ::2] = 1
    thumbnails = Thumbnails()
    qtbot.addWidget(thumbnails)
    thumbnails.show_patch(Thumbnail(patch, patch, patch))
    for label in thumbnails._images.values():
        size, image = label.pixmap().size(), label.pixmap().toImage()
        assert (size.width(), size.height()) == shown
        pixels = [image.pixelColor(x, y).value() for x in range(shown[0]) for y in range(shown[1])]
        bright = np.mean(np.array(pixels) > 100)
        assert 1.5 / shown[1] < bright < 0.5, "the rows with contrast"


def test_continue_trains_further(viewer, qtbot, tmp_path):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    assert not train.buttons["continue"].enabled
    small(train, patches=40)
    first = trained(qtbot, train)
    assert (first.state.patches, first.state.steps) == (40, 10)
    train.config.set_budget(patches=20)
    second = trained(qtbot, train, "continue")
    assert (second.state.patches, second.state.steps) == (60, 15), "the budget in the form is added"
    assert second.state.group("exp_avg")
    train.file.value = tmp_path / "model.safetensors"
    train.buttons["save_model"].native.click()
    qtbot.waitUntil(lambda: train.message.text().startswith("Saved"), timeout=TIMEOUT)
    train.session.use_model(model_for(), "another")
    train.config.fields["filters"].value = 32
    train.buttons["load_model"].native.click()
    qtbot.waitUntil(lambda: train.message.text().startswith("Using"), timeout=TIMEOUT)
    assert train.config.fields["filters"].value == 8, "the form shows how the model was trained"
    assert trained(qtbot, train, "continue").state.patches == 80
    train.config.fields["filters"].value = 16
    train.buttons["continue"].native.click()
    qtbot.waitUntil(lambda: train.complaining, timeout=TIMEOUT)
    assert "8 filters" in train.message.text()


def interrupted(layer, patches: int) -> Checkpoint:
    """Write the checkpoint that a killed training of a layer leaves behind."""
    data = TrainingData.of([layer], [0], [0])
    config = TrainingConfig.preset("fast", filters=8, blocks=2, patches=60)
    training = Training(data.channels, Acquisition((3.0, 1.0, 1.0), fwhm=4.0), config, "cpu")
    for progress in training.run():
        if progress.patches == patches:
            break
    checkpoint = Checkpoint(checkpoint_path(layer), data.description)
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.keep(training, now=True)
    return checkpoint


def test_an_interrupted_training_is_resumed(viewer, qtbot):
    """Resume is offered only for that layer, completes with the same settings, and leaves nothing behind."""
    layer = viewer.add_image(cells(), name="cells")
    other = viewer.add_image(cells((14, 72, 80)), scale=(2.5, 1, 1), name="other")
    checkpoint = interrupted(layer, 20)
    train = dock(viewer, "Train")
    train.layer.value = other
    assert not train.buttons["resume"].native.isVisibleTo(train)
    train.layer.value = layer
    assert train.buttons["resume"].native.isVisibleTo(train)
    assert "interrupted" in train.message.text()
    model = trained(qtbot, train, "resume")
    assert model.state.patches == 60, "completed, not started again"
    assert (model.training["recipe"]["filters"], model.acquisition.fwhm) == (8, 4.0)
    assert model.training["losses"][0][0] <= 20, "its curve starts with the first training"
    assert np.allclose(layer.scale, (3, 1, 1)), "the voxel size of the first training"
    assert not checkpoint.exists
    assert not train.buttons["resume"].native.isVisibleTo(train)


def test_a_training_on_other_voxels_is_not_resumed(viewer, qtbot):
    layer = viewer.add_image(cells(), scale=(3, 1, 1), name="cells")
    checkpoint = interrupted(layer, 20)
    layer.data = cells(seed=2) * 2
    train = dock(viewer, "Train")
    train.buttons["resume"].native.click()
    qtbot.waitUntil(lambda: train.complaining, timeout=TIMEOUT)
    assert "other voxels" in train.message.text()
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    assert checkpoint.exists and train.session.model is None


def test_closing_the_dock_leaves_a_checkpoint(viewer, qtbot):
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    small(train, minutes=10)
    train.buttons["start"].native.click()
    qtbot.waitUntil(lambda: bool(train.curves.points), timeout=TIMEOUT)
    viewer.window.remove_dock_widget("all")
    assert checkpoint_path(layer).exists()


def texture(shape=(40, 128, 128)) -> np.ndarray:
    """Return an isotropic texture, blurred and sampled along z with FWHM and step of 3 px."""
    truth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(3 * shape[0], *shape[1:])), 1.0)
    return ndimage.gaussian_filter1d(truth, 3 / FWHM_PER_SIGMA, axis=0)[1::3].astype(np.float32)


@pytest.mark.parametrize(
    ("data", "honest"), [pytest.param(texture(), True, id="texture"), pytest.param(texture()[:14], False, id="thin")]
)
def test_a_suggestion_is_not_applied_automatically(viewer, qtbot, data, honest):
    viewer.add_image(data, scale=(3, 1, 1), metadata={"fwhm": 5.0}, name="texture")
    train = dock(viewer, "Train")
    data_of(train).profile.button.click()
    qtbot.waitUntil(lambda: data_of(train).profile.result is not None, timeout=TIMEOUT)
    assert train.source.fwhm.value == 5.0
    assert data_of(train).profile.plot.isVisibleTo(data_of(train)), "for the user to check"
    assert data_of(train).profile.apply.isVisibleTo(data_of(train)) == honest
    if not honest:
        assert "14 slices" in data_of(train).profile.found.text()
        data_of(train).profile.apply.click()
        assert train.source.fwhm.value == 5.0
        return
    found = data_of(train).profile.result
    assert 2.4 < found.low < 3 < found.high < 3.6
    text = data_of(train).profile.found.text()
    assert f"{found.low:.3g}" in text and f"{found.high:.3g}" in text
    data_of(train).profile.apply.click()
    assert train.source.fwhm.value == pytest.approx(found.fwhm, abs=1e-4)


def test_the_lateral_width_reaches_the_model(viewer, qtbot):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    row = data_of(train).source.lateral_fwhm.native
    assert row.visibleRegion().isEmpty(), "folded"
    data_of(train).profile.expand(animate=False)
    for widget in (row, data_of(train).profile.lateral_label):
        qtbot.waitUntil(lambda widget=widget: widget.visibleRegion().boundingRect() == widget.rect())
    assert data_of(train).profile.lateral_label.text() == "Lateral FWHM"
    train.source.lateral_fwhm.value = 1.5
    small(train, patches=4)
    assert trained(qtbot, train).acquisition.lateral_fwhm == 1.5


CHOICES = [
    pytest.param("shown", "shown", [[(2, 1)]], id="one-of-each"),
    pytest.param("all", "shown", [[(2, 0)], [(2, 1)]], id="all-channels"),
    pytest.param("shown", "all", [[(0, 1), (1, 1), (2, 1)]], id="all-times"),
    pytest.param("all", "all", [[(0, 0), (1, 0), (2, 0)], [(0, 1), (1, 1), (2, 1)]], id="everything"),
]


@pytest.mark.parametrize(("channels", "times", "expected"), CHOICES)
def test_channels_and_times_give_their_volumes(viewer, channels, times, expected):
    data = np.arange(3 * 2 * 4 * 70 * 70, dtype=np.uint32).reshape(3, 2, 4, 70, 70)
    viewer.add_image(data, scale=(1, 1, 2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    assert offered(train) == (True, True)
    viewer.dims.set_point((0, 1), (2, 1))
    train.source.channels.value, train.source.times.value = channels, times
    volumes = train.source.data(train.viewer.dims.point).channels
    every = (slice(None),) * 3
    assert [len(v) for v in volumes] == [len(v) for v in expected]
    for own, leading_indices in zip(volumes, expected, strict=True):
        for volume, leading in zip(own, leading_indices, strict=True):
            assert np.array_equal(volume[every], data[leading])


def test_channels_that_are_layers(viewer, qtbot):
    """A file's channels open as layers of one shape; each gets its own normalisation."""
    viewer.add_image(cells() * 3, scale=(2.5, 1, 1), name="bright")
    viewer.add_image(cells((12, 72, 90)), scale=(2.5, 1, 1), name="larger")
    layer = viewer.add_image(cells(seed=2), scale=(2.5, 1, 1), name="dark")
    train = dock(viewer, "Train")
    train.layer.value = layer
    assert offered(train) == (True, False)
    train.source.channels.value = "all"
    viewer.add_image(cells(seed=3), scale=(2.5, 1, 1), name="third")
    assert train.source.channels.value == "all", "the choice is kept while it exists"
    viewer.layers.remove("third")
    small(train, patches=8)
    model = trained(qtbot, train)
    dark, bright = model.normalisations
    assert bright.high > 2 * dark.high
    assert model.provenance["source"]["layers"] == ["dark", "bright"]
    viewer.layers.remove("bright")
    assert offered(train) == (False, False)
    assert train.source.channels.value == "shown"


LABELS = [
    pytest.param("c", True, id="c"),
    pytest.param("Channel", True, id="channel"),
    pytest.param("channels", True, id="channels"),
    pytest.param("t", False, id="t"),
    pytest.param("-4", False, id="none"),
]


@pytest.mark.parametrize(("label", "is_channels"), LABELS)
def test_one_leading_axis_is_time_unless_labelled_as_channels(viewer, label, is_channels):
    data = np.stack([cells(), cells(seed=2)])
    viewer.add_image(data, scale=(1, 2.5, 1, 1), axis_labels=(label, "z", "y", "x"), name="cells")
    train = dock(viewer, "Train")
    assert offered(train) == (is_channels, not is_channels)
    (train.source.channels if is_channels else train.source.times).value = "all"
    volumes = train.source.data(train.viewer.dims.point).channels
    assert [len(times) for times in volumes] == ([1, 1] if is_channels else [2])
    assert [v[:, :, :].max() for times in volumes for v in times] == [d.max() for d in data]


def turned_over(widget) -> QWheelEvent:
    """Turn the wheel over a widget, and return the event."""
    at = QPointF(5, 5)
    event = QWheelEvent(
        at, at, QPoint(0, 0), QPoint(0, 120), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(widget, event)
    return event


def test_a_wheel_over_a_field_changes_nothing(viewer, qtbot):
    """It scrolls the panel; only the field that is being edited receives it."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    train.config.preset.value = "paper"
    train.config.expand(animate=False)
    data = data_of(train)
    before = train.source.acquisition(), train.config.config(), train.config.preset.value, train.device.value
    fields = [f for kind in (QAbstractSpinBox, QComboBox) for panel in (train, data) for f in panel.findChildren(kind)]
    assert len(fields) > 20
    for field in fields:
        field.clearFocus()
        assert not turned_over(field).isAccepted()
    assert before == (train.source.acquisition(), train.config.config(), train.config.preset.value, train.device.value)
    box = data.source.fwhm.native
    viewer.window._qt_window.activateWindow()
    box.setFocus()
    qtbot.waitUntil(box.hasFocus)
    before = box.value()
    turned_over(box)
    assert box.value() > before


def test_stop_keeps_the_best_weights(viewer, qtbot):
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    small(train, minutes=10)
    train.buttons["start"].native.click()
    qtbot.waitUntil(lambda: bool(train.curves.points), timeout=TIMEOUT)
    train.buttons["stop"].native.click()
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    model = train.session.model
    assert model.training["patches"] >= train.curves.points[-1][0], "no progress is lost"
    best = min(loss for *_, loss in model.training["losses"])
    assert held_out_loss(train, model) <= best * 1.00001, "the best weights, not the last"
    assert train.buttons["start"].enabled
    assert not list(checkpoint_path(layer).parent.iterdir()), "no checkpoint is left after Stop"


BAD_TRAINING = [
    pytest.param({"scale": (1, 1, 1)}, "isotropic", id="isotropic"),
    pytest.param({"scale": (0.5, 1, 1), "axial": "z"}, "finer axially|lateral steps", id="inverted"),
    pytest.param({"scale": (3, 1, 1.05)}, "The lateral steps", id="lateral-steps"),
    pytest.param({"scale": (3, 1, 1), "units": ["mm", "um", "um"]}, "different units along z, y, x", id="mixed-units"),
    pytest.param(
        {"data": np.arange(19_200.0).reshape(3, 80, 80), "scale": (3, 1, 1)}, "The volume has 3 slices", id="thin"
    ),
    pytest.param({"data": cells((12, 40, 80)), "scale": (3, 1, 1)}, "lateral side of the volume has 40", id="small"),
    pytest.param({"data": np.full((8, 80, 80), 7.0), "scale": (3, 1, 1)}, "The image is constant", id="constant"),
    pytest.param({"data": np.full((8, 80, 80), np.nan), "scale": (3, 1, 1)}, "NaN", id="nan"),
    pytest.param({"data": cells() > 100, "scale": (3, 1, 1)}, "mask", id="bool"),
    pytest.param({"data": cells()[0]}, "2D", id="2d"),
]


@pytest.mark.parametrize(("options", "words"), BAD_TRAINING)
@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning", "ignore:.*NaN.*:RuntimeWarning")
def test_an_unsuitable_volume_shows_an_error(viewer, qtbot, options, words):
    options = dict(options)
    data, axial = options.pop("data", None), options.pop("axial", None)
    viewer.add_image(cells() if data is None else data, name="cells", contrast_limits=(0, 1), **options)
    train = dock(viewer, "Train")
    if axial:
        train.source.axial.value = axial
    train.buttons["start"].native.click()
    qtbot.waitUntil(lambda: bool(train.message.styleSheet()), timeout=TIMEOUT)
    text = train.message.text()
    assert any(word in text for word in words.split("|")), text
    assert "\n" not in text
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    assert train.session.model is None


@pytest.mark.parametrize("value", [0.0, -1.0], ids=["zero", "negative"])
def test_an_invalid_voxel_size_shows_an_error_and_does_not_change_the_layer(viewer, value):
    layer = viewer.add_image(cells(), scale=(3, 1, 1), name="cells")
    train = dock(viewer, "Train")
    train.source.voxel_size[0].value = value
    assert "is not three positive numbers" in data_of(train).message.text()
    assert np.allclose(layer.scale, (3, 1, 1))


def test_correcting_the_voxel_size_sets_the_layers_scale(viewer):
    layer = viewer.add_image(cells(), name="cells")
    train = dock(viewer, "Train")
    train.source.voxel_size[0].value = 4.0
    assert np.allclose(layer.scale, (4, 1, 1))
    assert (train.source.axial.value, train.source.fwhm.value) == ("z", 4.0)


BAD_MODELS = [
    pytest.param(b"", id="empty"),
    pytest.param(b"not a model at all", id="text"),
    pytest.param((1 << 60).to_bytes(8, "little") + b"{}", id="huge-header"),
]


@pytest.mark.parametrize("content", BAD_MODELS)
def test_a_bad_model_file_is_refused(viewer, qtbot, tmp_path, content):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    before = model_for()
    train.session.use_model(before, "a model")
    (tmp_path / "bad.safetensors").write_bytes(content)
    train.file.value = tmp_path / "bad.safetensors"
    train.buttons["load_model"].native.click()
    qtbot.waitUntil(lambda: train.complaining, timeout=TIMEOUT)
    assert "is not a readable napari-cropeq model" in train.message.text()
    assert train.session.model is before


def test_the_shown_time_point_is_trained_on(viewer, qtbot):
    """The index is that of the layer, even if other layers have another length and scale along time."""
    data = np.stack([cells() + 5000 * t for t in range(3)])
    viewer.add_image(np.zeros((9, 4, 5, 6)), name="other")
    layer = viewer.add_image(data, scale=(3, 2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    train.layer.value = layer
    viewer.dims.set_point(0, 6)
    small(train, minutes=0.02)
    train.buttons["start"].native.click()
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    assert train.session.model.provenance["source"]["times"] == [2]
    assert train.session.model.normalisations[0].low > 9000


def test_lengths_of_any_magnitude(viewer):
    layer = viewer.add_image(cells(), scale=(5e-6, 2e-6, 2e-6), units=["m"] * 3, name="cells")
    train = dock(viewer, "Train")
    assert [box.value for box in train.source.voxel_size] == pytest.approx([5e-6, 2e-6, 2e-6])
    assert train.source.fwhm.value == pytest.approx(5e-6)
    train.source.voxel_size[0].value = 4e-6
    assert np.allclose(layer.scale, (4e-6, 2e-6, 2e-6), rtol=1e-9)


def test_the_fields_follow_the_layer(viewer):
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    layer.scale = (5, 1, 1)
    assert (train.source.voxel_size[0].value, train.source.fwhm.value) == (5, 5)
    train.source.fwhm.value = 7.0
    layer.scale = (4, 1, 1)
    assert (train.source.voxel_size[0].value, train.source.fwhm.value) == (4, 7), "a width that the user set is kept"


def test_an_existing_model_is_not_overwritten(viewer, qtbot, tmp_path):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    train.session.use_model(model_for(), "a model")
    (tmp_path / "mine.safetensors").write_bytes(b"precious")
    train.file.value = tmp_path / "mine.safetensors"
    train.buttons["save_model"].native.click()
    assert "exists already" in train.message.text()
    assert (tmp_path / "mine.safetensors").read_bytes() == b"precious"
    train.file.value = tmp_path / "new.safetensors"
    for _ in range(2):  # a file that was saved from here may be replaced
        train.say("")
        train.buttons["save_model"].native.click()
        qtbot.waitUntil(lambda: train.message.text().startswith("Saved"), timeout=TIMEOUT)


def test_a_width_belongs_to_its_layer(viewer):
    """The width of another layer is not used, and one that the user set is not reset."""
    known = viewer.add_image(cells(), scale=(2.5, 1, 1), metadata={"fwhm": 6.0}, name="known")
    other = viewer.add_image(cells(), scale=(4, 1, 1), name="other")
    train = dock(viewer, "Train")
    train.layer.value = known
    assert train.source.fwhm.value == 6
    train.layer.value = other
    assert train.source.fwhm.value == 4
    train.layer.value = known
    train.source.fwhm.value = 5.5
    train.source.lateral_fwhm.value = 1.5
    known.scale = (2.6, 1, 1)
    assert (train.source.fwhm.value, train.source.lateral_fwhm.value) == (5.5, 1.5)
    train.layer.value = other
    assert train.source.lateral_fwhm.value == 0, "not known for this layer"
