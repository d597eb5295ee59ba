"""Colours in the dark and the light theme, and the switch between them, in a real window."""

from __future__ import annotations

import itertools

import numpy as np
import pyqtgraph
import pytest
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication

from napari_cropeq.gui.batch.table import BatchTable
from napari_cropeq.gui.colours import Colours
from napari_cropeq.run.batch import Item
from window import TIMEOUT, cells, data_of, dock

THEMES = ["dark", "light"]
LEAST = 4.5
"""Contrast of text that can be read, WCAG 2.2, level AA."""


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2)."""
    first, second = sorted((luminance(one), luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def luminance(colour: str) -> float:
    parts = np.array([*QColor(colour).getRgbF()[:3]])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def background(theme: str, part: str = "background") -> str:
    return getattr(get_theme(theme), part).as_hex(format="long")


def test_the_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#767676", "#ffffff") > LEAST
    assert contrast("#777777", "#ffffff") < LEAST


@pytest.mark.parametrize("part", ["background", "foreground"])
@pytest.mark.parametrize("name", ["text", "line", "points", "bad", "good", "changed"])
@pytest.mark.parametrize("theme", THEMES)
def test_colours_can_be_read_in_both_themes(theme, name, part):
    """On the background of a panel, and on that of a table, which napari calls foreground."""
    assert contrast(getattr(Colours.of(theme), name), background(theme, part)) >= LEAST


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(THEMES)))
@pytest.mark.parametrize("name", ["Train", "Preview", "Volume", "Trust", "Batch"])
def test_an_error_can_be_read_after_the_theme_is_switched(viewer, name, before, after):
    viewer.theme = before
    panel = dock(viewer, name)
    panel.complain("The volume has 3 slices.")
    for theme in (before, after):
        viewer.theme = theme
        colour = panel.message.styleSheet().split()[-1]
        assert contrast(colour, background(theme)) >= LEAST and panel.complaining
        assert panel.message.text() == "The volume has 3 slices."
    panel.say("Saved.")
    viewer.theme = before
    assert not panel.complaining and panel.message.text() == "Saved."


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(THEMES)))
def test_plots_follow_the_theme(viewer, qtbot, before, after):
    """Axes, lines and key, those of the folded sections too, and the pixels behind them."""
    viewer.theme = before
    viewer.add_image(cells((14, 96, 96)), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    train.curves.add(4, 0.3, [(4, 0.2)], 0.25)
    train.curves.draw()
    data = data_of(train)
    for section in (data.profile, data.noise):
        section.button.click()
        qtbot.waitUntil(lambda section=section: section.result is not None, timeout=TIMEOUT)
        section.expand(animate=False)
    plots = [(part.plot, part.key) for part in (train.curves, data.profile, data.noise)]
    texts = [data.profile.found.text(), data.noise.found.text()]
    drawn = [len(plot.listDataItems()) for plot, _ in plots]
    for theme in (before, after):
        viewer.theme = theme
        colours, ground = Colours.of(theme), background(theme)
        for plot, key in plots:
            pens = [
                pen
                for side in ("bottom", "left")
                for axis in [plot.getAxis(side)]
                for pen in (axis.pen(), axis.textPen())
            ]
            assert {pen.color().name() for pen in pens} == {colours.text}
            named = [item for item in plot.listDataItems() if item.name()]
            for item in named:
                brush, pen = item.opts["symbolBrush"], item.opts["pen"]
                colour = pyqtgraph.mkColor(brush) if pen is None else pen.color()
                assert contrast(colour.name(), ground) >= LEAST and colour.name() in key.text() + colours.text
        assert [len(plot.listDataItems()) for plot, _ in plots] == drawn and all(drawn)
        assert [data.profile.found.text(), data.noise.found.text()] == texts
        qtbot.waitUntil(lambda ground=ground: all(corner(plot) == ground for plot, _ in plots), timeout=5000)


def corner(plot) -> str:
    """Return the colour of a pixel of the plot that has no line, as it is on the screen."""
    QApplication.processEvents()
    return plot.grab().toImage().pixelColor(1, 1).name()


def test_settings_that_differ_from_the_preset_can_be_read(viewer):
    viewer.theme = "dark"
    train = dock(viewer, "Train")
    train.config.fields["filters"].value = 7
    for theme in THEMES:
        viewer.theme = theme
        style = train.config._labels["filters"].styleSheet()
        assert contrast(style.split()[-1], background(theme)) >= LEAST
        assert train.config.overrides() == {"filters": 7}


def test_the_statuses_of_a_batch_can_be_read(qtbot):
    table = BatchTable(Colours.of("dark"))
    qtbot.addWidget(table)
    done, failed = Item("a.tif", "a", status="done"), Item("b.tif", "b", status="failed")
    table.show_items([done, failed])
    for theme in THEMES:
        table.recolour(Colours.of(theme))
        for row in (0, 1):
            colour = table.item(row, 1).foreground().color().name()
            assert contrast(colour, background(theme, "foreground")) >= LEAST
        assert table.texts("Status") == ["done", "failed"]
