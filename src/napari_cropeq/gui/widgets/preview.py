"""The step Preview: super-resolution of the current view."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, SpinBox
from napari.layers import Image

from napari_cropeq.core.geometry import guess_axial
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError
from napari_cropeq.gui.compare.compare import FLIP_KEY, Compare
from napari_cropeq.gui.layers.source import check_layer, voxel_size_of
from napari_cropeq.gui.layers.view_follower import BOX
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.parts.region_choice import RegionChoice
from napari_cropeq.gui.result import Result
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.widgets.result_panel import TERMS, ResultPanel
from napari_cropeq.run.live import RunState

__all__ = ["PreviewWidget"]

CAPTIONS = {
    "acquired voxels": ("acquired", "super-resolved"),
    "interpolation": ("interpolated", "super-resolved"),
}
"""What the SR can be compared with, and the captions of the two on the canvas."""
ACQUIRED, INTERPOLATION = CAPTIONS

TOOLTIPS = {
    "preview": "Super-resolve the current view. It appears in tiles: blocks of voxels that are computed one by one",
    "stop": "Stop computing; the tiles that are shown stay",
    "show_axial_view": "Show the axial axis from top to bottom, where the result differs most; again for the slices",
    "flip": f"Switch between the SR alone and what it is compared with alone (key {FLIP_KEY})",
}


class PreviewWidget(ResultPanel):
    """Shows the SR of the current view in a layer exactly on top of its source.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__(session, layer)
        self.follow = CheckBox(label="Follow view", value=True, tooltip="Continue when you pan, zoom or move a slider")
        self.live = CheckBox(
            label="Live while training", value=False, tooltip="During a training, show the view with the network so far"
        )
        self.box_size = SpinBox(
            label="3D box (voxels)",
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
            tooltip="Show the SR right of a border that you can drag, and left of it what it is compared with",
        )
        self.reference = ComboBox(
            label="Compare with",
            choices=list(CAPTIONS),
            tooltip="What Curtain and Flip show beside the SR: the voxels of the source, or its quintic interpolation "
            "to the same grid, which is what the network refines",
        )
        self.form.extend([self.follow, self.live, self.curtain, self.reference, self.box_size, self.region])
        self.buttons = self.add_buttons(TOOLTIPS, preview=self.preview, show_axial_view=self.show_axial_view)
        self.buttons |= self.add_buttons(TOOLTIPS, stop=self.stop, flip=self.flip)
        self.buttons["stop"].enabled = False
        self.compare: Compare | None = None
        self.add_status()
        self.follow.changed.connect(self._on_follow)
        self.curtain.changed.connect(lambda on: self.attempt(lambda: self._draw_curtain(on)))
        self.reference.changed.connect(self._on_reference)
        self.live.changed.connect(self.session.want_live)
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
        """Show what the SR is compared with if the SR is visible, else the SR."""
        self._comparison().flip()
        self.show_state()

    def show_axial_view(self) -> None:
        """Show the axial axis from top to bottom, or the slices if it is shown already."""
        layer, dims = check_layer(self.layer.value), self.viewer.dims
        leading = tuple(range(dims.ndim - 3))
        axes = [len(leading) + axis for axis in range(3)]
        axial = axes.pop(guess_axial(voxel_size_of(layer)))
        is_shown = dims.ndisplay == 2 and axial in dims.displayed
        dims.ndisplay = 2
        centre = dict(zip(dims.displayed, self.viewer.scene.camera.center[-2:], strict=True))
        if is_shown:
            dims.order = (*leading, axial, *axes)
        else:
            dims.order = (*leading, axes[0], axial, axes[1])
            if axes[0] in centre:  # the plane through the middle of what was in view
                dims.set_point(axes[0], centre[axes[0]])
        self.viewer.fit_to_view()

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
        self.buttons["stop"].enabled = result.alive and (result.follower.following or result.looking)
        if self.complaining or (result.alive and result.source_layer is not self.layer.value):
            return
        if not result.alive:
            self.bar.reset()
            self.say("Preview stopped. Press Preview to restart.")
            return
        done, total = result.state.in_view
        self.bar.setValue(int(1000 * done / max(total, 1)))
        view = result.follower.view
        model = self.session.name_of(result)
        self.say(progress_text(result.state, None if view is None else view.limited, model, result.live))
        rate = f" {result.state.rate:.1f} tiles are computed per second." if result.state.rate else ""
        self.message.setToolTip(f"{done} of {total} tiles; {result.state.exactness}.{rate} {TERMS}")

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
        other = result.compare(self.reference.value == INTERPOLATION) or result.source_layer
        old = self.compare
        if old is None or old.closed or (old.other, old.sr) != (other, result.layer):
            if old is not None:
                old.close()
            kind = ACQUIRED if other is result.source_layer else INTERPOLATION
            self.compare = Compare(self.viewer, other, result.layer, CAPTIONS[kind])
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
        """Update the fields: a flip removes the curtain, and the layer of the interpolation may have been removed."""
        compare, result = self.compare, self.result
        if compare is None or result is None:
            return
        with self.curtain.changed.blocked():
            self.curtain.value = compare.curtain
        gone = compare.closed and compare.other not in self.viewer.layers and compare.sr in self.viewer.layers
        if gone and result.alive and compare.other is not result.source_layer:
            self.reference.value = ACQUIRED

    def _on_reference(self) -> None:
        """Compare with the other layer in the same way as before."""
        old, result = self.compare, self.result
        if old is None or old.closed or result is None:
            return
        curtain, position = old.curtain, old.position
        old.close()

        def renew() -> None:
            self._comparison().position = position
            self.curtain.value = curtain

        self.attempt(renew)
        self.show_state()

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
            self.attempt(lambda: result.use(model, self.session.model_label))
        elif result.follower.following:
            self.attempt(self.preview)

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


def progress_text(state: RunState, limited: bool | None, model: str, live: bool) -> str:
    """Return how much of the view is computed, as text.

    Parameters
    ----------
    state : RunState
        State of the result's worker.
    limited : bool or None
        Whether there is more than one voxel per screen pixel; None if the layer is not in view.
    model : str
        Name of the model, which may not be the one in use any more.
    live : bool
        Whether it is still being trained.
    """
    done, total = state.in_view
    if limited is None:
        return "The layer is not in view."
    if done < total:
        text = f"Computing {'the centre of ' if limited else ''}the view with {model}: {done} of {total} tiles."
    else:
        what = f"with {model} so far" if live else "identical to the export"
        text = f"{'The centre' if limited else 'All'} of the view is computed; {what}."
    return f"{text} Zoom in for the rest." if limited else text
