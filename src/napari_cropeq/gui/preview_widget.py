"""The Preview dock widget: super-resolution where the user looks."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox

from napari_cropeq.gui.layers import check_layer
from napari_cropeq.gui.result_panel import ResultPanel

__all__ = ["PreviewWidget"]


class PreviewWidget(ResultPanel):
    """Shows the SR of the current 2D view in a layer that lies exactly over its source.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.follow = CheckBox(label="Follow view", value=True, tooltip="Go on as the view pans, zooms and steps")
        self.form.append(self.follow)
        self.buttons = self.add_buttons(preview=self.preview, stop=self.stop)
        self.add_status()
        self.follow.changed.connect(self._on_follow)

    def preview(self) -> None:
        """Compute what is in view."""
        check_layer(self.layer.value)
        if self.viewer.dims.ndisplay != 2:
            raise ValueError("Got a 3D display, expected a 2D view: switch to 2D to preview.")
        result = self.open_result()
        result.follow(self.follow.value)
        result.look()

    def stop(self) -> None:
        """Stop following the view and drop what is not computed yet; what is shown stays."""
        if self.result is not None and self.result.alive:
            self.result.follow(False)
            self.result.look_away()
        self.show_state()

    def show_state(self) -> None:
        """Show what the device's check found and how far the tiles are."""
        result = self.result
        if result is None or result.result is None or self.complaining:
            return
        done, total = result.tiles
        state = "working" if result.busy else "done" if result.alive else "closed"
        self.bar.setValue(int(1000 * done / max(total, 1)))
        self.say(f"{result.result.exactness}; {done} of {total} tiles of the volume; {state}.")

    def _on_follow(self, on: bool) -> None:
        if self.result is not None and self.result.alive:
            self.result.follow(on)
