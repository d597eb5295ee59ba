"""The dock widget: one layer, one model, and a tab for each step."""

from __future__ import annotations

from typing import Any, ClassVar

from magicgui.widgets import LineEdit
from qtpy.QtCore import QEvent, QSize
from qtpy.QtWidgets import QSizePolicy, QTabWidget, QVBoxLayout, QWidget

from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.parts.form import Form
from napari_cropeq.gui.parts.keyboard import focus_style, order_stops, stops
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.widgets.batch import BatchWidget
from napari_cropeq.gui.widgets.data import DataWidget
from napari_cropeq.gui.widgets.panel import Panel
from napari_cropeq.gui.widgets.preview import PreviewWidget
from napari_cropeq.gui.widgets.train import TrainWidget
from napari_cropeq.gui.widgets.trust import TrustWidget
from napari_cropeq.gui.widgets.volume import VolumeWidget

__all__ = ["BatchDock", "DataDock", "Dock", "PreviewDock", "TrainDock", "TrustDock", "VolumeDock"]

TOOLTIPS = {
    "Data": "How the layer was acquired: axes, voxel size, slice profile, noise",
    "Train": "Train a model on the layer itself, or load one",
    "Preview": "Super-resolve what is in view, and compare",
    "Volume": "Super-resolve the whole volume, and save it",
    "Trust": "What may be trusted: expected errors, consistency, and tiles that equal the whole",
    "Batch": "Super-resolve many images into files",
}


# Closed docks until Qt has deleted them. napari leaves them to Python's garbage collection, which may run in any
# thread; a widget that is deleted in another thread than the window's is a crash.
_leaving: set[Dock] = set()

MARGINS = (9, 6, 9, 4)  # left, top, right, bottom, px: those of the panels below


class Steps(QWidget):
    """The steps from a stack to its super-resolution, which share one layer and one model.

    Parameters
    ----------
    session : Session
        Of the viewer.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.layer = LayerChoice(session.viewer)
        self.model = LineEdit(label="Model", enabled=False, tooltip="The model in use")
        data = DataWidget(session, self.layer)
        self.panels: dict[str, Panel] = {
            "Data": data,
            "Train": TrainWidget(session, self.layer, data.source, data.noise),
            "Preview": PreviewWidget(session, self.layer),
            "Volume": VolumeWidget(session, self.layer),
            "Trust": TrustWidget(session, self.layer),
            "Batch": BatchWidget(session, self.layer),
        }
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setExpanding(False)
        for name, panel in self.panels.items():
            self.tabs.setTabToolTip(self.tabs.addTab(panel, name), TOOLTIPS[name])
        shared = Form([self.layer, self.model])
        shared.setContentsMargins(*MARGINS)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(shared)
        rows.addWidget(self.tabs, 1)
        inside = (stop for panel in self.panels.values() for stop in stops(panel))
        order_stops([self.layer.native, self.tabs.tabBar(), *inside])
        session.viewer.events.theme.connect(self._show_focus)
        self._show_focus()
        self.tabs.currentChanged.connect(self._on_step)
        session.model_changed.connect(self._show_model)
        session.loading_changed.connect(self._show_model)
        self._show_model()

    def show_step(self, name: str) -> None:
        """Show a step."""
        self.tabs.setCurrentWidget(self.panels[name])

    def leave(self) -> None:
        """Stop all work."""
        self.session.viewer.events.theme.disconnect(self._show_focus)
        self.layer.stop_following()
        for panel in self.panels.values():
            panel.leave()

    def _show_focus(self) -> None:
        """Show which widget has the focus, in a colour that can be seen in the theme of the window."""
        self.setStyleSheet(focus_style(Colours.of(self.session.viewer.theme)))

    def _on_step(self) -> None:
        """Accept the number that is being typed at another step: on some systems a tab does not take the focus."""
        for panel in self.panels.values():
            panel.commit_typed()

    def _show_model(self) -> None:
        name, loading = self.session.model_name, self.session.loading
        text = name or ("none yet" if loading else "none yet: train or load one")
        self.model.value = f"loading {loading} …; until then: {text}" if loading else text
        self.model.tooltip = f"The model in use: {self.model.value}"  # a long name does not fit
        self.model.native.setCursorPosition(0)


class Dock(QWidget):
    """A dock widget with the steps; if another one of the viewer has them, it gives them to this one and is closed.

    napari opens one dock widget for each entry of its menus, but there is only one set of steps in a viewer.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    step: ClassVar[str]  # shown first

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        session = Session.of(napari_viewer)
        window = session.viewer.window
        old = next((widget for widget in window.dock_widgets.values() if isinstance(widget, Dock)), None)
        self.steps: Steps | None = Steps(session) if old is None else old.steps
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.steps)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)  # napari adds no empty space
        self.show_step(self.step)
        if old is not None:
            old.steps = None
            window.remove_dock_widget(old)

    @property
    def panels(self) -> dict[str, Panel]:
        """The panel of each step."""
        return {} if self.steps is None else self.steps.panels

    def show_step(self, name: str) -> None:
        """Show a step."""
        if self.steps is not None:
            self.steps.show_step(name)

    def sizeHint(self) -> QSize:
        """Return the size of a narrow column, so that the image keeps most of the window."""
        return QSize(380, 640)

    def event(self, event: Any) -> bool:
        """Stop all work when the dock is closed: napari then removes the parent of its widget."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and self not in _leaving:
            if self.steps is not None:
                self.steps.leave()
            _leaving.add(self)
            self.destroyed.connect(lambda: _leaving.discard(self))
            self.deleteLater()
        return bool(super().event(event))


class DataDock(Dock):
    """The dock widget at the step Data."""

    step = "Data"


class TrainDock(Dock):
    """The dock widget at the step Train."""

    step = "Train"


class PreviewDock(Dock):
    """The dock widget at the step Preview."""

    step = "Preview"


class VolumeDock(Dock):
    """The dock widget at the step Volume."""

    step = "Volume"


class TrustDock(Dock):
    """The dock widget at the step Trust."""

    step = "Trust"


class BatchDock(Dock):
    """The dock widget at the step Batch."""

    step = "Batch"
