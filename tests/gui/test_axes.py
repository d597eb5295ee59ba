"""What the axes of a layer are: shown, and changed, in a real window."""

from __future__ import annotations

import re

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

from napari_cropeq.errors import ArgumentError, ImageError
from napari_cropeq.gui.layers.axes import arrange, possible_axes
from napari_cropeq.gui.layers.source import check_layer, source_of
from window import cells, data_of, dock, small, trained

STACK = np.arange(7 * 2 * 5 * 6, dtype=np.uint16).reshape(7, 2, 5, 6)

ORDERS = [
    pytest.param("tzyx", (7, 2, 5, 6), "tzyx", id="as-it-is"),
    pytest.param("czyx", (7, 2, 5, 6), "czyx", id="channels-first"),
    pytest.param("zcyx", (2, 7, 5, 6), "czyx", id="channels-second"),
    pytest.param("ztyx", (2, 7, 5, 6), "tzyx", id="time-second"),
    pytest.param("zyxc", (6, 7, 2, 5), "czyx", id="channels-last"),
]
KINDS = [
    pytest.param(lambda data: data, id="numpy"),
    pytest.param(lambda data: da.from_array(data, chunks=(1, 1, 5, 6)), id="dask"),
    pytest.param(lambda data: [data, data[..., ::2, ::2]], id="levels"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("letters", "shape", "axes"), ORDERS)
def test_axes_are_moved_with_their_scale(kind, letters, shape, axes):
    scale, translate = (5, 3, 2, 1), (10, 20, 30, 40)
    layer = Image(kind(STACK), name="stack", scale=scale, translate=translate)
    assert letters in possible_axes(layer)
    arrange(layer, letters)
    order = [letters.index(letter) for letter in axes]
    finest = layer.data[0] if layer.multiscale else layer.data
    assert finest.shape == shape and tuple(layer.axis_labels) == tuple(axes)
    assert np.array_equal(np.asarray(finest), STACK.transpose(order))
    assert list(layer.scale) == [scale[a] for a in order]
    assert list(layer.translate) == [translate[a] for a in order]
    assert source_of(layer).axes == axes
    assert not isinstance(finest, np.ndarray) or np.shares_memory(finest, STACK), "a view, not a copy"


def test_every_voxel_stays_where_it_is():
    """Also if the layer is rotated and has an affine; only the order of its axes changes."""
    turn = np.eye(4)
    turn[2:, 2:] = [[0, -1], [1, 0]]
    affine = np.diag([1.0, 1, 2, 2, 1])
    affine[:4, 4] = 1, 2, 3, 4
    layer = Image(STACK, scale=(5, 3, 2, 1), translate=(1, 0, 2, 0), rotate=turn, affine=affine)
    voxel = np.array([6, 1, 2, 3])
    before = np.array(layer.data_to_world(voxel))
    arrange(layer, "zcyx")
    order = [1, 0, 2, 3]
    assert np.allclose(layer.data_to_world(voxel[order]), before[order])
    assert layer.data[tuple(voxel[order])] == STACK[tuple(voxel)]


def test_units_move_with_their_axes():
    layer = Image(STACK, units=["um", "s", "um", "um"])
    arrange(layer, "ztyx")
    assert [str(unit) for unit in layer.units] == ["second", "micrometer", "micrometer", "micrometer"]


def test_a_choice_can_be_taken_back():
    layer = Image(STACK, scale=(5, 3, 2, 1))
    arrange(layer, "zcyx")
    assert possible_axes(layer)[0] == "czyx" and "ztyx" in possible_axes(layer)
    arrange(layer, "ztyx")
    assert np.array_equal(layer.data, STACK) and list(layer.scale) == [5, 3, 2, 1]
    assert tuple(layer.axis_labels) == tuple("tzyx")


def test_a_sheared_layer_is_not_changed():
    layer = Image(STACK, shear=[0.5, 0, 0, 0, 0, 0])
    with pytest.raises(ArgumentError, match="is sheared, so its axes cannot be moved"):
        arrange(layer, "zcyx")
    assert layer.data.shape == STACK.shape and layer.axis_labels == ("-4", "-3", "-2", "-1")
    arrange(layer, "czyx")
    assert tuple(layer.axis_labels) == tuple("czyx"), "nothing moves"


WRONG = [
    pytest.param("zcyx", "z 7 · channels 2 · y 5 · x 6", id="channels-second"),
    pytest.param("zyxc", "z 7 · y 2 · x 5 · channels 6", id="channels-last"),
    pytest.param(("z", "time", "y", "x"), "z 7 · time 2 · y 5 · x 6", id="time-second"),
]


@pytest.mark.parametrize(("labels", "words"), WRONG)
def test_axes_in_another_order_are_not_taken_for_z_y_x(labels, words):
    layer = Image(STACK, axis_labels=labels, name="stack")
    with pytest.raises(ImageError) as error:
        check_layer(layer)
    assert words in error.value.problem and error.value.setting == "axes"
    arrange(layer, possible_axes(layer)[0])
    assert check_layer(layer) is layer and source_of(layer).n_channels * source_of(layer).n_times in (2, 6)


def test_channels_before_time_are_moved():
    """They were taken for time points, and each would have got the normalisation of another channel."""
    layer = Image(np.zeros((2, 3, 7, 5, 6), np.uint16), axis_labels="ctzyx", name="stack")
    with pytest.raises(ImageError, match="after time and channels"):
        check_layer(layer)
    arrange(layer, "ctzyx")
    source = source_of(layer)
    assert (source.axes, source.n_channels, source.n_times) == ("tczyx", 2, 3)


def choose(form, text: str) -> None:
    """Choose axes as a user does: the box is changed, then activated."""
    box = form.axes.native
    index = box.findText(text)
    assert index >= 0, [box.itemText(n) for n in range(box.count())]
    box.setCurrentIndex(index)
    box.activated.emit(index)


def shown(train) -> tuple[str, str]:
    """Return the axes that are shown, and the notice."""
    data = data_of(train)
    doubt = re.match(r"Check Axes: [^.]*\.", data.message.text())
    axes = data.source.axes.native
    return axes.isVisibleTo(data) * axes.currentText(), "" if doubt is None else doubt.group()


def test_slices_are_not_taken_for_time_points_in_silence(viewer, qtbot):
    """A TIFF without metadata, whose two channels lie between the slices."""
    data = np.stack([cells(), cells(seed=2) * 2], axis=1)
    layer = viewer.add_image(data, scale=(2.5, 1, 1, 1), name="stack")
    train = dock(viewer, "Train")
    understood, notice = shown(train)
    assert understood == "time 12 · z 2 · y 72 · x 80"
    assert notice == "Check Axes: the layer does not name them, and z has only 2 slices."
    train.buttons["start"].native.click()
    assert train.complaining or train._job is not None
    qtbot.waitUntil(lambda: train._job is None)
    choose(train.source, "z 12 · channels 2 · y 72 · x 80")
    assert shown(train) == ("channels 2 · z 12 · y 72 · x 80", "")
    assert [box.value for box in train.source.voxel_size] == [2.5, 1, 1]
    train.source.channels.value = "all"
    small(train, patches=8)
    model = trained(qtbot, train)
    first, second = model.normalisations
    assert second.high > 1.5 * first.high, "one for each channel"
    assert model.provenance["source"]["axes"] == "czyx" and layer.axis_labels == ("c", "z", "y", "x")
    assert np.shares_memory(layer.data, data)


def test_what_is_understood_can_be_confirmed(viewer):
    viewer.add_image(np.stack([cells(), cells(seed=2)]), scale=(1, 2.5, 1, 1), name="stack")
    train = dock(viewer, "Train")
    assert shown(train) == ("time 2 · z 12 · y 72 · x 80", "Check Axes: the layer does not name them.")
    choose(train.source, "time 2 · z 12 · y 72 · x 80")
    assert shown(train) == ("time 2 · z 12 · y 72 · x 80", "")
    assert viewer.layers["stack"].axis_labels == ("t", "z", "y", "x")
    choose(train.source, "channels 2 · z 12 · y 72 · x 80")
    data = data_of(train)
    assert data.source.channels.native.isVisibleTo(data) and not data.source.times.native.isVisibleTo(data)


LAYERS = [
    pytest.param({"data": cells()}, "", id="3d"),
    pytest.param(
        {"data": np.stack([cells()] * 3), "axis_labels": "tzyx"}, "time 3 · z 12 · y 72 · x 80", id="labelled"
    ),
    pytest.param({"data": np.stack([cells()] * 3, axis=-1), "rgb": True}, "", id="rgb"),
]


@pytest.mark.parametrize(("options", "expected"), LAYERS)
def test_nothing_is_asked_about_axes_that_are_known(viewer, options, expected):
    viewer.add_image(**options, name="stack")
    assert shown(dock(viewer, "Train")) == (expected, "")


def test_the_axes_follow_the_layer(viewer):
    layer = viewer.add_image(np.stack([cells()] * 3), name="stack")
    other = viewer.add_image(cells(), name="other")
    train = dock(viewer, "Train")
    train.layer.value = layer
    layer.axis_labels = ["c", "z", "y", "x"]
    assert shown(train) == ("channels 3 · z 12 · y 72 · x 80", "")
    layer.data = np.stack([cells()] * 4)
    assert shown(train)[0] == "channels 4 · z 12 · y 72 · x 80"
    train.layer.value = other
    assert shown(train) == ("", "")
    assert tuple(layer.axis_labels) == tuple("czyx"), "following a layer changes nothing"


def test_an_order_that_is_refused_is_changed_where_the_message_says(viewer):
    layer = viewer.add_image(np.stack([cells(), cells()], axis=1), axis_labels="zcyx", scale=(3, 1, 1, 1), name="stack")
    train = dock(viewer, "Train")
    train.buttons["start"].native.click()
    assert "must be the last three" in train.message.text() and "Choose its Axes" in train.message.text()
    choose(train.source, "z 12 · channels 2 · y 72 · x 80")
    assert check_layer(layer) is layer and not train.complaining


def test_the_axes_do_not_widen_the_dock(viewer, qtbot):
    """A text that is too long for a narrow dock is cut, and is in the tooltip as a whole."""
    viewer.add_image(np.zeros((3, 2, 12, 72, 80), np.uint16), name="five")
    train = dock(viewer, "Train")
    assert shown(train)[1]
    widths, data = [], data_of(train)
    for visible in (True, False):
        data.form.show_field(data.source.axes, visible)
        qtbot.wait(100)  # for the layout
        widths.append(data.above.minimumSizeHint().width())
    assert widths[0] == widths[1]
    assert train.source.axes.tooltip.startswith("time 3 · channels 2 · z 12 · y 72 · x 80. ")
