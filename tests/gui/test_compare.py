"""Comparison of the SR with its source in a real window: what is shown, and that nothing is left behind."""

from __future__ import annotations

import time
import weakref
from collections import Counter

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image, Labels, Points, Shapes, Surface, Tracks, Vectors
from napari.settings import get_settings
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_cropeq.gui.compare.canvas import Canvas
from napari_cropeq.gui.compare.caption import Caption
from napari_cropeq.gui.compare.compare import FLIP_KEY, Compare
from shared_window import viewers_left
from window import TIMEOUT


@pytest.fixture
def viewer(viewer, shared_window):
    """Return a separate window for each test, to find what is not closed."""
    yield viewer
    shared_window.close()
    assert viewers_left() == 0


SOURCE, SR, OTHER = 60, 180, 250  # grey levels
MIDDLE = (30, 40, 50)
WORDS = ("acquired", "super-resolved")


def grey(shape, level: int, multiscale: bool = False):
    """Return an image (z, y, x) with one grey level."""
    volume = np.full(shape, level, np.uint8)
    return [volume, volume[::2, ::2, ::2]] if multiscale else volume


def pair(viewer, multiscale: bool = False, sr_below: bool = False, **options):
    """Add a source of 24 thick slices and its SR, above or below it."""
    options = {"contrast_limits": (0, 255), "units": ["um"] * 3} | options
    source = viewer.add_image(grey((24, 80, 100), SOURCE), name="cells", scale=(2.5, 1, 1), **options)
    sr = viewer.add_image(
        grey((60, 80, 100), SR, multiscale), name="cells SR", translate=(-0.75, 0, 0), multiscale=multiscale, **options
    )
    if sr_below:
        viewer.layers.move(1, 0)
    viewer.dims.set_point((0, 1, 2), MIDDLE)
    return source, sr


def sliced(viewer) -> None:
    """Wait for the slices, which napari may read in the background."""
    end = time.monotonic() + TIMEOUT / 1000
    while not all(layer.loaded for layer in viewer.layers) and time.monotonic() < end:
        QApplication.processEvents()


def picture(viewer) -> np.ndarray:
    """Return the picture on the canvas (rows, columns), grey levels."""
    sliced(viewer)
    return viewer.screenshot(canvas_only=True, flash=False)[..., 0].astype(int)


def assert_split(viewer, position: float, left: int = SOURCE, right: int = SR, empty: int = 0) -> None:
    """Check grey levels up to the columns at the border, and that no layer extends to the other side."""
    shown = picture(viewer)
    width = Canvas(viewer).widget.width()
    edge = round(round(position * width) * shown.shape[1] / width)  # whole pixels of the window
    middle = shown[shown.shape[0] // 2]
    assert set(middle[max(edge - 30, 0) : edge]) <= {left}
    assert set(middle[edge : edge + 30]) <= {right}
    for side, level in ((shown[:, :edge], left), (shown[:, edge:], right)):
        others = {left, right} - {level, empty}
        if side.size:  # the border may be at one end
            assert not np.isin(side, [*others]).any()
            assert np.isin(side, [level, empty]).mean() > 0.98, "but for smooth edges of the image"


VIEWS = {
    "z-x": {"order": (1, 0, 2), "position": 0.37},
    "x-y-zoomed-panned": {"order": (0, 2, 1), "zoom": 4.0, "pan": (3, -5), "position": 0.25},
    "z-y-in-a-large-window": {"order": (2, 0, 1), "size": (1500, 900), "position": 0.55},
    "x-z-zoomed-out": {"order": (1, 2, 0), "size": (900, 600), "zoom": 0.7, "position": 0.61},
    "y-z-in-3D": {"order": (2, 1, 0), "size": (900, 600), "ndisplay": 3, "position": 0.55},
    "y-x-zoomed-in": {"zoom": 2.0},
}
PAIRS = [
    pytest.param({}, [*VIEWS], id="plain"),
    pytest.param({"multiscale": True, "sr_below": True}, ["z-x", "x-z-zoomed-out"], id="multiscale-below"),
    pytest.param({"rotate": (0, 0, 30), "shear": (0.0, 0.0, 0.3)}, ["y-x-zoomed-in"], id="rotated-sheared"),
]


@pytest.mark.parametrize(("options", "views"), PAIRS)
def test_source_left_of_the_border_sr_right_of_it(viewer, options, views):
    """For every view after the curtain was opened."""
    source, sr = pair(viewer, **options)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    assert_split(viewer, 0.5)
    camera = viewer.scene.camera
    for view in (VIEWS[name] for name in views):
        compare.position = view.get("position", 0.5)
        viewer.dims.order = view.get("order", (0, 1, 2))
        viewer.dims.ndisplay = view.get("ndisplay", 2)
        viewer.window.resize(*view.get("size", (1000, 700)))
        QApplication.processEvents()
        viewer.reset_view()
        camera.center = np.add([MIDDLE[axis] for axis in viewer.dims.order], (0, *view.get("pan", (0, 0))))
        camera.zoom *= view.get("zoom", 1.0)
        assert_split(viewer, compare.position)
        border, canvas = border_of(viewer), Canvas(viewer).widget
        assert border.geometry().center().x() == round(compare.position * canvas.width())
        assert border.height() == canvas.height()
    compare.close()
    shown = picture(viewer)
    assert set(shown[shown.shape[0] // 2, shown.shape[1] // 2 - 5 :][:10]) == {
        SR if viewer.layers[-1] is sr else SOURCE
    }


def test_each_side_is_blended_as_if_alone_on_a_white_canvas(viewer):
    viewer.theme = "light"
    source, sr = pair(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    for top in (SR, SOURCE):
        for blending, both in [("translucent", top), ("additive", SOURCE + SR), ("minimum", SOURCE), ("opaque", top)]:
            source.blending = sr.blending = blending
            compare.curtain = True
            assert_split(viewer, 0.5, empty=255)
            compare.curtain = False
            shown = picture(viewer)
            assert shown[shown.shape[0] // 2, shown.shape[1] // 2] == both, (blending, top)
        viewer.layers.move(1, 0)


def test_an_image_larger_than_a_texture(viewer):
    """It is drawn in parts, and only in some planes."""
    source = viewer.add_image(np.full((4, 8, 17_000), SOURCE, np.uint8), name="cells", contrast_limits=(0, 255))
    sr = viewer.add_image(np.full((4, 8, 17_000), SR, np.uint8), name="cells SR", contrast_limits=(0, 255))
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    viewer.scene.camera.zoom = 300
    for order, parts in [((0, 1, 2), 2), ((2, 0, 1), 1), ((0, 1, 2), 2)]:
        viewer.dims.order = order
        viewer.scene.camera.center = (0, 4, 8400) if parts == 2 else (0, 1, 4)
        assert_split(viewer, 0.5)
        assert len(Canvas(viewer).visuals(sr)) == parts


def test_other_layers_are_not_changed(viewer):
    source, sr = pair(viewer)
    viewer.add_image(grey((60, 80, 100), OTHER), name="over both", contrast_limits=(0, 255), scale=(1, 0.1, 1))
    under = viewer.add_image(grey((60, 80, 100), OTHER), name="under", contrast_limits=(0, 255), scale=(1, 2, 2))
    viewer.layers.move(viewer.layers.index(under), 0)
    viewer.reset_view()
    before = picture(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    after = picture(viewer)
    assert np.array_equal(before == OTHER, after == OTHER)
    assert (before != after).any()
    compare.close()
    assert np.array_equal(picture(viewer), before)


def border_of(viewer):
    """Return the widget of the border, or None."""
    found = [w for w in Canvas(viewer).widget.children() if type(w).__name__ == "Border"]
    assert len(found) <= 1
    return found[0] if found else None


def drag(qtbot, widget: QWidget, start: QPoint, by: int, button: Qt.MouseButton = Qt.MouseButton.LeftButton) -> None:
    """Drag to the right and down, in some steps."""
    qtbot.mouseMove(widget, start)
    qtbot.mousePress(widget, button, pos=start)
    place = widget.mapToGlobal(start)
    for step in (by // 2, by):
        qtbot.mouseMove(widget, widget.mapFromGlobal(place + QPoint(step, step // 4)))
        qtbot.wait(20)
    qtbot.mouseRelease(widget, button, pos=widget.mapFromGlobal(place + QPoint(by, 0)))
    QApplication.processEvents()


def test_the_mouse_drags_the_border_and_pans_elsewhere(viewer, qtbot):
    source, sr = pair(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    camera, canvas, border = viewer.scene.camera, Canvas(viewer).widget, border_of(viewer)
    camera.zoom *= 2
    moves: list[float] = []
    compare.changed.connect(lambda: moves.append(compare.position))
    assert border.cursor().shape() == Qt.CursorShape.SplitHCursor
    for start, by in [(0.5, -120), (0.0, 120), (1.0, -130), (0.5, 5000), (0.5, -5000)]:
        compare.position, centre = start, camera.center
        drag(qtbot, border, QPoint(border.width() // 2 + 3, border.height() // 4), by)
        expected = np.clip((round(start * canvas.width()) + by) / canvas.width(), 0, 1)
        assert compare.position == moves[-1] == pytest.approx(expected)
        assert_split(viewer, compare.position)
        assert camera.center == centre
        assert canvas.rect().contains(border.geometry()), "can be grabbed again"
    drag(qtbot, canvas, QPoint(border.x() + 90, 100), 40)
    assert camera.center != centre
    assert compare.position == moves[-1]
    zoom = camera.zoom
    drag(qtbot, border, border.rect().center(), 80, Qt.MouseButton.RightButton)
    assert camera.zoom != zoom, "the other buttons are the canvas's"
    here, none = QPointF(border.rect().center()), Qt.MouseButton.NoButton
    phase, keys = Qt.ScrollPhase.NoScrollPhase, Qt.KeyboardModifier.NoModifier
    wheel = QWheelEvent(here, border.mapToGlobal(here), QPoint(), QPoint(0, 120), none, keys, phase, False)
    QApplication.sendEvent(border, wheel)
    assert not wheel.isAccepted(), "Qt gives it to the canvas"


def test_moving_the_border_draws_but_does_not_slice(viewer):
    source, sr = pair(viewer, multiscale=True)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    picture(viewer)
    happened: list[str] = []
    for layer in (source, sr):
        layer.events.set_data.connect(lambda _: happened.append("sliced"))
        layer.events.refresh.connect(lambda _: happened.append("refreshed"))
    Canvas(viewer).scene.events.draw.connect(lambda _: happened.append("drawn"))
    for position in (0.2, 0.4, 0.6):
        compare.position = position
        QApplication.processEvents()
    assert Counter(happened).keys() == {"drawn"}
    assert len(happened) >= 3
    viewer.dims.set_current_step(0, 5)
    sliced(viewer)
    assert "sliced" in happened, "so slicing would have been noticed"


def test_the_border_is_in_the_window(viewer):
    source, sr = pair(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    border = border_of(viewer)
    QApplication.processEvents()
    window = viewer.screenshot(canvas_only=False, flash=False)[..., 0]
    corner = border.mapTo(viewer.window._qt_window, QPoint(0, 0))
    strip = window[corner.y() : corner.y() + border.height(), corner.x() : corner.x() + border.width()]
    light = (strip >= 225).mean(axis=0)
    assert (light > 0.95).sum() == 2, "a line of two pixels from top to bottom"
    assert (light > 0.03).sum() > 10, "and a handle"
    assert not (picture(viewer) > SR).any(), "pictures of the canvas alone have no line"


def captions(viewer) -> list[str]:
    """Return the captions that can be seen, from left to right; none is cut off or covers another."""
    widget = Canvas(viewer).widget
    shown = [child for child in widget.children() if isinstance(child, Caption) and child.isVisible()]
    shown.sort(key=lambda caption: caption.x())
    border = border_of(viewer)
    for caption in shown:
        assert widget.rect().contains(caption.geometry()) and caption.width() >= caption.sizeHint().width()
        assert border is None or not border.geometry().intersects(caption.geometry())
    return [caption.text() for caption in shown]


def test_captions_are_shortened_or_hidden_where_there_is_little_room(viewer):
    source, sr = pair(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    width = Canvas(viewer).widget.width()
    for position in (0.5, 0.02, 0.99):
        compare.position = position
        assert captions(viewer) == [word for word, share in zip(WORDS, (0.02, 0.99), strict=True) if position != share]
    found = set()
    for pixels in range(20, 140, 4):
        compare.position = pixels / width
        *shortened, whole = captions(viewer)
        assert whole == WORDS[1]
        found.update(shortened)
    assert WORDS[0] in found and any(word.endswith("…") for word in found)
    assert all(WORDS[0].startswith(word.removesuffix("…")) and len(word) > 3 for word in found)
    compare.position = 0.5
    viewer.canvas.grid.enabled = True
    assert captions(viewer) == []
    viewer.canvas.grid.enabled = False
    assert captions(viewer) == [*WORDS]


def test_a_flip_says_what_is_shown(viewer):
    source, sr = pair(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    assert captions(viewer) == []
    for _ in range(2):
        compare.flip()
        assert captions(viewer) == ["acquired"]
        compare.flip()
        assert captions(viewer) == ["super-resolved"]
    compare.curtain = True
    assert captions(viewer) == [*WORDS]
    compare.curtain = False
    assert captions(viewer) == ["super-resolved"], "as before the curtain"
    source.visible = True
    assert captions(viewer) == [], "both are shown"
    sr.visible = False
    assert captions(viewer) == ["acquired"]
    compare.close()
    assert captions(viewer) == []


def seen(source, sr) -> str:
    return {(True, False): "source", (False, True): "sr", (True, True): "both", (False, False): "none"}[
        source.visible, sr.visible
    ]


def test_a_key_flips(viewer, qtbot):
    source, sr = pair(viewer)
    labels = viewer.add_labels(np.zeros((24, 80, 100), int))
    canvas = Canvas(viewer).widget
    compare = Compare(weakref.proxy(viewer), source, sr, WORDS)
    canvas.setFocus()
    for selected, expected, level in [(sr, "source", SOURCE), (labels, "sr", SR), (source, "source", SOURCE)]:
        viewer.layers.selection.active = selected
        qtbot.keyClick(canvas, str(FLIP_KEY))
        assert seen(source, sr) == expected
        shown = picture(viewer)
        assert shown[shown.shape[0] // 2, shown.shape[1] // 2] == level
    compare.close()
    assert seen(source, sr) == "both"
    qtbot.keyClick(canvas, str(FLIP_KEY))
    assert seen(source, sr) == "both"
    viewer.bind_key(str(FLIP_KEY), lambda viewer: None)
    keymap = dict(viewer.keymap)
    Compare(viewer, source, sr, WORDS).close()
    assert viewer.keymap == keymap, "the user's own binding stays"
    viewer.layers.remove(sr)
    with pytest.raises(ValueError, match="The layer 'cells SR' is not in the viewer"):
        Compare(viewer, source, sr, WORDS)


def test_the_key_is_free_in_napari():
    bound = [key for keys in get_settings().shortcuts.shortcuts.values() for key in keys]
    for provider in (Viewer, Image, Labels, Points, Shapes, Surface, Tracks, Vectors):
        for kind in provider.__mro__:
            bound += getattr(kind, "class_keymap", {}).keys()
    assert len(bound) > 50
    assert str(FLIP_KEY) not in {str(key) for key in bound}


VISIBILITY = {
    "curtain-then-close": (["curtain", "close"], "both"),
    "hidden-before": (["hide sr", "curtain", "no curtain"], "source"),
    "both-show-in-the-curtain": (["hide sr", "hide source", "curtain"], "both"),
    "back-to-what-was-flipped": (["flip", "curtain", "no curtain"], "source"),
    "close-undoes-curtain-and-flip": (["flip", "curtain", "close"], "both"),
    "flip-takes-the-curtain-away": (["curtain", "flip"], "source"),
    "flip-from-the-source-alone": (["hide sr", "flip", "flip"], "source"),
    "restored-to-the-source-alone": (["hide sr", "flip", "close"], "source"),
    "restored-to-none": (["hide sr", "hide source", "flip", "close"], "none"),
    "hidden-by-the-user-stays-hidden": (["curtain", "hide sr", "no curtain"], "source"),
    "shown-by-the-user-stays-shown": (["flip", "show sr", "close"], "both"),
    "closed-for-good": (["flip", "flip", "close", "close", "flip", "curtain"], "both"),
}


def test_visibility(viewer):
    source, sr = pair(viewer)
    for name, (steps, expected) in VISIBILITY.items():
        source.visible = sr.visible = True
        compare = Compare(viewer, source, sr, WORDS)
        for step in steps:
            match step.split():
                case ["flip"]:
                    compare.flip()
                case ["close"]:
                    compare.close()
                case ["curtain"]:
                    compare.curtain = True
                case ["no", "curtain"]:
                    compare.curtain = False
                case [shown, which]:
                    {"sr": sr, "source": source}[which].visible = shown == "show"
        assert seen(source, sr) == expected, name
        deleted()
        assert compare.curtain == (border_of(viewer) is not None), name
        compare.close()
        deleted()


def test_changes_of_the_layers_while_the_curtain_is_open(viewer):
    source, sr = pair(viewer)
    compare = Compare(PublicOnlyProxy(viewer), source, sr, WORDS)  # as in a plugin
    compare.curtain = True
    sr.visible = False
    assert_split(viewer, 0.5, right=0)
    sr.visible = True
    viewer.layers.move(1, 0)
    assert_split(viewer, 0.5)
    viewer.canvas.grid.enabled = True
    shown = picture(viewer)
    assert not border_of(viewer).isVisible()
    height, width = shown.shape
    assert {shown[height // 2, x] for x in (width // 4 - 20, width // 4 + 20)} <= {SOURCE, SR}
    assert {shown[height // 2, x] for x in (width // 4, 3 * width // 4)} == {SOURCE, SR}
    viewer.canvas.grid.enabled = False
    assert border_of(viewer).isVisible()
    assert_split(viewer, 0.5)


def connections(viewer, *layers) -> dict[str, int]:
    """Count everything that could be left behind."""
    canvas = Canvas(viewer)
    emitters = {
        "layers": viewer.layers.events,
        "grid": viewer.canvas.grid.events,
        "canvas": canvas.scene.events,
        "dims": viewer.dims.events,
        "camera": viewer.scene.camera.events,
        **{layer.name: layer.events for layer in layers},
    }
    found = {
        f"{name}.{event}": len(emitter.callbacks) for name, group in emitters.items() for event, emitter in
        group.emitters.items()
    }  # fmt: skip
    filters = {f"filters.{k}": len(v._vshare.filters) for k in layers for v in canvas.visuals(k)}
    return found | filters | {"keys": len(viewer.keymap), "widgets": len(canvas.widget.children())}


def deleted() -> None:
    """Let Qt delete what is to be deleted later."""
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()


@pytest.mark.parametrize("removed", [None, "source", "sr"])
def test_nothing_is_left_behind(viewer, removed):
    source, sr = pair(viewer)
    stays = [layer for layer, name in ((source, "source"), (sr, "sr")) if name != removed]
    picture(viewer)
    before = connections(viewer, *stays)
    compare = Compare(viewer, source, sr, WORDS)
    compare.flip()
    picture(viewer)
    compare.curtain = True
    curtain = compare._curtain  # keeps its callbacks alive
    picture(viewer)
    during = connections(viewer, *stays)
    gained = {name.split(".")[0] for name in during if during[name] > before[name]}
    assert gained == {"layers", "grid", "canvas", "filters", "keys", "widgets", *(layer.name for layer in stays)}
    if removed is None:
        compare.close()
    else:
        viewer.layers.remove(source if removed == "source" else sr)
    assert compare.closed
    assert not compare.curtain
    deleted()
    picture(viewer)
    assert curtain is not None
    assert connections(viewer, *stays) == before
    assert all(layer.visible for layer in stays)
    compare.close()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_closing_the_viewer_closes_the_comparison(viewer, qtbot, asynchronous):
    get_settings().experimental.async_ = asynchronous
    source, sr = pair(viewer, multiscale=True)
    compare = Compare(viewer, source, sr, WORDS)
    compare.flip()
    compare.flip()  # the source is hidden
    compare.curtain = True
    viewer.dims.order = (1, 0, 2)
    viewer.scene.camera.center = (0, 30, 50)
    qtbot.waitUntil(lambda: source.loaded and sr.loaded)
    assert_split(viewer, 0.5)
    viewer.close()
    assert compare.closed
    deleted()
    compare.close()


def test_closing_the_window_before_the_comparison(viewer):
    source, sr = pair(viewer)
    compare = Compare(viewer, source, sr, WORDS)
    compare.curtain = True
    picture(viewer)
    viewer.window.close()
    deleted()
    compare.close()
    assert compare.closed
    compare.flip()
    compare.curtain = True
    assert not compare.curtain
