"""The Preview dock widget: super-resolution of the current view."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import CheckBox, SpinBox
from napari.layers import Image

from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError
from napari_cropeq.gui.compare.compare import FLIP_KEY, Compare
from napari_cropeq.gui.layers.source import check_layer
from napari_cropeq.gui.layers.view_follower import BOX
from napari_cropeq.gui.parts.region_choice import RegionChoice
from napari_cropeq.gui.result import Result
from napari_cropeq.gui.widgets.result_panel import ResultPanel
from napari_cropeq.run.live import RunState

__all__ = ["PreviewWidget"]

TOOLTIPS = {
    "preview": "Super-resolve the current view. It appears in tiles: blocks of voxels that are computed one by one",
    "stop": "Stop computing; the tiles that are shown stay",
    "flip": f"Switch between the source alone and the SR alone (key {FLIP_KEY})",
}


class PreviewWidget(ResultPanel):
    """Shows the SR of the current view in a layer exactly on top of its source.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.follow = CheckBox(label="Follow view", value=True, tooltip="Continue when you pan, zoom or move a slider")
        self.live = CheckBox(
            label="Live while training", value=False, tooltip="During a training, show the view with the network so far"
        )
        self.box_size = SpinBox(
            label="3D box",
            min=16,
            max=512,
            step=16,
            value=BOX,
            tooltip="Side of the box that is shown in 3D, in SR voxels",
        )
        self.region = RegionChoice(self.viewer)
        self.curtain = CheckBox(
            label="Curtain",
            value=False,
            tooltip="Show the source on the left and the SR on the right of a border that you can drag",
        )
        self.form.extend([self.follow, self.live, self.curtain, self.box_size, self.region])
        self.buttons = self.add_buttons(TOOLTIPS, preview=self.preview, stop=self.stop, flip=self.flip)
        self.compare: Compare | None = None
        self.add_status()
        self.follow.changed.connect(self._on_follow)
        self.curtain.changed.connect(lambda on: self.attempt(lambda: self._draw_curtain(on)))
        self.live.changed.connect(self._on_live)
        for field in (self.box_size, self.region):
            field.changed.connect(self._on_box)
        self.session.model_changed.connect(self._on_model)
        self.session.live_model.connect(self._on_live_model)

    def preview(self) -> None:
        """Compute the current view."""
        check_layer(self.layer.value)
        if self.compare is not None:
            self.compare.close()  # so that the SR is visible
        self._look(self.open_result())

    def stop(self) -> None:
        """Stop following the view, and cancel tiles that are not computed yet; finished tiles stay."""
        if self.result is not None and self.result.alive:
            self.result.follower.stop()
        self.show_state()

    def flip(self) -> None:
        """Show the source if the SR is visible, else the SR."""
        self._comparison().flip()
        self.show_state()

    def stop_work(self) -> None:
        """Stop following the view and the training when the dock is closed."""
        self.live.value = False
        self.region.stop_following()
        if self.compare is not None:
            self.compare.close()
        if self.result is not None and self.result.alive:
            self.result.follower.stop()

    def show_state(self) -> None:
        """Show the result of the device's check and how many tiles in view are done."""
        result = self.result
        if result is None or not result.state.ready or self.left:
            return
        if result.layer in self.viewer.layers and result.source_layer in self.viewer.layers:
            self._comparison()  # the key works from now on
        if self.complaining:
            return
        if not result.alive:
            self.bar.setValue(0)
            self.say("Preview stopped. Press Preview to restart.")
            return
        done, total = result.state.in_view
        self.bar.setValue(int(1000 * done / max(total, 1)))
        view = result.follower.view
        self.say(progress_text(result.state, None if view is None else view.limited))

    def _look(self, result: Result) -> None:
        follower = result.follower
        follower.box_size, follower.box_region = self.box_size.value, self.region.corners
        follower.follow(self.follow.value)
        follower.look()

    def _comparison(self) -> Compare:
        """Return the comparison of the result's layers.

        Raises
        ------
        ArgumentError
            If there is no result yet.
        """
        result = self.result
        layers = (None,) if result is None else (result.layer, result.source_layer)
        if result is None or result.layer is None or not all(layer in self.viewer.layers for layer in layers):
            raise ArgumentError("There is no SR layer to compare with.", "Press Preview first.")
        if self.compare is None or self.compare.closed or self.compare.sr is not result.layer:
            if self.compare is not None:
                self.compare.close()
            self.compare = Compare(self.viewer, result.source_layer, result.layer)
            self.compare.changed.connect(self._on_compare)
        return self.compare

    def _draw_curtain(self, on: bool) -> None:
        if on:
            try:
                self._comparison().curtain = True
            except ValueError:
                self.curtain.value = False
                raise
        elif self.compare is not None:
            self.compare.curtain = False
        self.show_state()

    def _on_compare(self) -> None:
        """Update the checkbox: a flip removes the curtain."""
        with self.curtain.changed.blocked():
            self.curtain.value = self.compare is not None and self.compare.curtain

    def _on_follow(self, on: bool) -> None:
        if self.result is not None and self.result.alive:
            self.result.follower.follow(on)

    def _on_box(self) -> None:
        if self.result is not None and self.result.alive and self.result.follower.view is not None:
            self._look(self.result)

    def _on_model(self) -> None:
        """Show another model at once if the view is followed, and always the end of a training that is shown live."""
        result, model = self.result, self.session.model
        if result is None or model is None or not result.alive or result.running_all:
            return
        if result.source_layer is not self.layer.value:
            return
        if result.live:
            result.live = False  # shows this model from now on; another training gets another layer
            self.attempt(lambda: result.use(model))
        elif result.follower.following:
            self.attempt(self.preview)

    def _on_live(self, on: bool) -> None:
        self.session.live_wanted += 1 if on else -1

    def _on_live_model(self, layer: Image, model: Model) -> None:
        """Show the current weights, in the layer that showed the previous ones."""
        if not self.live.value or layer is not self.layer.value:
            return
        result = self.result
        if result is not None and result.alive and result.source_layer is layer:
            if result.live and not result.running_all:
                self.attempt(lambda: result.use(model))
                return

        def start() -> None:
            result = self.open_result(model=model)
            result.live = True
            self._look(result)

        self.attempt(start)


def progress_text(state: RunState, limited: bool | None) -> str:
    """Return the result of the device's check and how many tiles in view are done, as text.

    Parameters
    ----------
    state : RunState
        State of the result's worker.
    limited : bool or None
        Whether there is more than one voxel per screen pixel; None if the layer is not in view.
    """
    done, total = state.in_view
    texts = [state.exactness, f"{done} of {total} tiles {'at the centre' if limited else 'in view'}"]
    if state.rate:
        texts.append(f"{state.rate:.1f} tiles/s")
    if limited is None:
        texts.append("the layer is not in view")
    elif limited:
        texts.append("zoomed out, so only the centre is computed")
    return "; ".join(texts) + "."
