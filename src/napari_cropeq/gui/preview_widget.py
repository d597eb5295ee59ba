"""The Preview dock widget: super-resolution where the user looks."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, ComboBox, LineEdit

from napari_cropeq.gui.layers import check_layer
from napari_cropeq.gui.panel import Panel
from napari_cropeq.gui.result import Result

__all__ = ["PreviewWidget"]

PLANES = (("last lateral axis", None), ("z", "z"), ("y", "y"), ("x", "x"), ("mean of both", "both"))


class PreviewWidget(Panel):
    """Shows the SR of the current 2D view in a layer that lies exactly over its source.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.model = LineEdit(label="Model", enabled=False)
        self.planes = ComboBox(
            label="Planes", choices=PLANES, tooltip="Lateral axis that shares the planes with the axial one"
        )
        self.follow = CheckBox(label="Follow view", value=True, tooltip="Go on as the view pans, zooms and steps")
        self.form.extend([self.model, self.planes, self.follow])
        self.buttons = self.add_buttons(preview=self.preview, stop=self.stop)
        self.add_status()
        self.result: Result | None = None
        self.follow.changed.connect(self._on_follow)
        self.session.model_changed.connect(self._show_model)
        self._show_model()

    def preview(self) -> None:
        """Compute what is in view."""
        layer = check_layer(self.layer.value)
        if self.viewer.dims.ndisplay != 2:
            raise ValueError("Got a 3D display, expected a 2D view: switch to 2D to preview.")
        result = self.session.result_for(layer, self.planes.value)
        if result is not self.result:
            self._let_go()
            self.result = result
            result.changed.connect(self._show_state)
            result.failed.connect(self.complain)
        result.follow(self.follow.value)
        result.look()

    def stop(self) -> None:
        """Stop following the view and drop what is not computed yet; what is shown stays."""
        if self.result is not None and self.result.alive:
            self.result.follow(False)
            if self.result.scheduler is not None and self.result.memory is not None:
                self.result.scheduler.look_at(self.result.memory, [])
        self._show_state()

    def _let_go(self) -> None:
        if self.result is not None:
            self.result.changed.disconnect(self._show_state)
            self.result.failed.disconnect(self.complain)

    def _on_follow(self, on: bool) -> None:
        if self.result is not None and self.result.alive:
            self.result.follow(on)

    def _show_model(self) -> None:
        self.model.value = self.session.model_name or "none yet: train or load one"

    def _show_state(self) -> None:
        result = self.result
        if result is None or result.result is None or self.message.styleSheet():
            return
        done, total = result.tiles
        state = "working" if result.busy else "done" if result.alive else "closed"
        self.bar.setValue(int(1000 * done / max(total, 1)))
        self.say(f"{result.result.exactness}; {done} of {total} tiles of the volume; {state}.")
