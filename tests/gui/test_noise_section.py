"""The section *Noise* of the Train widget, in a real window with real clicks."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPropertyAnimation, Qt
from qtpy.QtTest import QTest
from scipy import ndimage

from napari_cropeq.core.training.noise import measure_noise, recorded_noise
from window import TIMEOUT, cells, data_of, dock, small, trained


def structures(rng: np.random.Generator) -> np.ndarray:
    volume = np.stack([ndimage.gaussian_filter(rng.normal(size=(128, 140)), 5) for _ in range(12)])
    return (volume - volume.min()) / np.ptp(volume)


def photons(rng: np.random.Generator) -> np.ndarray:
    return 100 + 20 * rng.poisson(30 * structures(rng))


def correlated(rng: np.random.Generator) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.normal(size=(12, 128, 140)), (0, 0.7, 0.7))
    return 1000 + 500 * (structures(rng) + 0.1 * noise / noise.std())


def tiny(rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(30, (12, 20, 20))


def click(qtbot, widget) -> None:
    qtbot.waitUntil(lambda: widget.visibleRegion().boundingRect() == widget.rect(), timeout=TIMEOUT)
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


def unfolded(viewer, qtbot):
    """Open the step Data, and unfold the section by its title."""
    data = dock(viewer, "Data")
    assert data.noise.button.visibleRegion().isEmpty(), "folded"
    data.below.ensureWidgetVisible(data.noise.toggleButton())
    click(qtbot, data.noise.toggleButton())
    qtbot.waitUntil(lambda: not data.noise.button.visibleRegion().isEmpty(), timeout=TIMEOUT)
    data.below.ensureWidgetVisible(data.noise.button)
    return data


def scrolled_to(column, widget) -> bool:
    """Scroll to a widget, and return whether it is seen as a whole; the layout may still change."""
    end = widget.mapTo(column.widget(), widget.rect().bottomLeft())  # a plot says that only its cursor matters
    column.ensureVisible(end.x(), end.y(), 0, 1)  # with no margin, the last line of pixels may stay hidden
    return widget.visibleRegion().boundingRect() == widget.rect()


def drawn(section) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what a plot shows, by its name in the legend."""
    return {item.name(): item.getData() for item in section.plot.listDataItems()}


VOLUMES = [
    pytest.param(photons, "A photon counts about", "", id="photons"),
    pytest.param(correlated, "The noise has a standard deviation of", "Bin the pixels", id="correlated"),
    pytest.param(tiny, "", "No noise could be measured", id="tiny"),
]


@pytest.mark.parametrize(("make", "words", "doubt"), VOLUMES)
def test_noise_is_measured_by_a_click_and_changes_nothing(viewer, qtbot, make, words, doubt, rng):
    volume = make(rng).astype(np.float32)
    layer = viewer.add_image(volume, scale=(3, 1, 1), name="volume")
    config = dock(viewer, "Train").config
    data = unfolded(viewer, qtbot)
    before = data.source.acquisition(), config.config(), data.session.model, len(viewer.layers)
    click(qtbot, data.noise.button)
    assert not data.noise.button.isEnabled() and data.noise.found.text() == "Measuring noise …"
    qtbot.waitUntil(lambda: data.noise.result is not None and data.noise.button.isEnabled(), timeout=TIMEOUT)
    assert (data.source.acquisition(), config.config(), data.session.model, len(viewer.layers)) == before
    expected = measure_noise(volume, data.source.acquisition())
    text = data.noise.found.text()
    assert text == f"{expected.text} {expected.doubt}".strip() and words in text and doubt in text
    assert bool(doubt) == bool(expected.doubt) and not data.complaining
    shown = drawn(data.noise)
    if make is tiny:
        assert not shown
    else:
        assert np.array_equal(shown["measured"], (expected.intensity, expected.variance)), "in the layer's intensities"
        intensity, line = shown["assumed in training"]
        assert np.allclose(line, expected.model.variance(intensity))
        assert (
            intensity[0] == min(expected.scale.low, expected.intensity[0]) and intensity[-1] == expected.intensity[-1]
        )
    layer.visible = False
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    data.layer.value = viewer.layers["cells"]
    assert data.noise.result is None and not data.noise.plot.isVisibleTo(data), "it was another layer's"


def test_text_and_plot_are_shown_as_a_whole(viewer, qtbot, rng):
    """A doubt needs many lines in a narrow dock."""
    viewer.add_image(correlated(rng), scale=(3, 1, 1), name="volume")
    data = unfolded(viewer, qtbot)
    click(qtbot, data.noise.button)
    qtbot.waitUntil(lambda: data.noise.result is not None, timeout=TIMEOUT)
    found, plot = data.noise.found, data.noise.plot
    found.setText(" ".join([found.text()] * 3))
    data.noise.expand(animate=False)
    qtbot.waitUntil(lambda: found.height() >= found.heightForWidth(found.width()) > 100, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: scrolled_to(data.below, plot), timeout=TIMEOUT)
    assert plot.height() >= plot.sizeHint().height()


def test_a_result_that_arrives_while_the_section_unfolds_is_not_cut(viewer, qtbot):
    section = dock(viewer, "Data").noise
    click(qtbot, section.toggleButton())
    section.found.setText("The noise is uncertain. " * 20)
    for widget in (section.found, section.plot):
        widget.setVisible(True)
    section.expand(animate=False)
    qtbot.waitUntil(
        lambda: section.findChild(QPropertyAnimation).state() == QPropertyAnimation.State.Stopped, timeout=TIMEOUT
    )
    assert section.content().maximumHeight() >= section.content().sizeHint().height() > 150


def test_a_training_shows_the_noise_that_it_measured(viewer, qtbot, rng):
    viewer.add_image(photons(rng).astype(np.uint16), scale=(3, 1, 1), name="volume")
    train = dock(viewer, "Train")
    small(train, patches=8)
    model = trained(qtbot, train)
    [noise] = recorded_noise(model.training, model.normalisations)
    assert train.noise.found.text() == noise.text and "A photon counts about" in noise.text
    assert np.array_equal(drawn(train.noise)["measured"], (noise.intensity, noise.variance))
    data_of(train)
    assert not train.noise.isExpanded(), "folded until the user unfolds it"
    click(qtbot, train.noise.toggleButton())
    qtbot.waitUntil(lambda: not train.noise.plot.visibleRegion().isEmpty(), timeout=TIMEOUT)


def test_a_training_says_what_is_doubtful(viewer, qtbot, rng):
    viewer.add_image(correlated(rng).astype(np.uint16), scale=(3, 1, 1), name="volume")
    train = dock(viewer, "Train")
    small(train, patches=8)
    trained(qtbot, train)
    assert train.message.text().count("makes the estimate of the noise uncertain") == 1
