"""The step Trust: maps of expected error and consistency in view, and the check that tiles equal the whole."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from magicgui.widgets import ComboBox, FloatSpinBox, Label, SpinBox
from napari.layers import Image
from qtpy.compat import isalive

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.trust.resolution import AxialResolution, check_cubic, measure_resolution
from napari_cropeq.evidence.verify.baseline import Baseline, load_baseline
from napari_cropeq.evidence.verify.slices import Slices
from napari_cropeq.evidence.verify.tile_check import TileCheck, TilesFound
from napari_cropeq.formats.image import Image as Source
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.gui.files.field import FileField
from napari_cropeq.gui.hints import VERIFY_HINTS
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.map_layers import MapLayers
from napari_cropeq.gui.layers.source import check_layer, source_of
from napari_cropeq.gui.layers.sr_frame import SRFrame
from napari_cropeq.gui.parts.form import Form
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.sections.section import Section
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.what_to_trust import what_to_trust, with_error_text
from napari_cropeq.gui.widgets.result_panel import ResultPanel
from napari_cropeq.short_repr import quality_of
from napari_cropeq.view.maps import CONSISTENCY, ERROR

__all__ = ["TrustWidget"]

MOST = 2**23  # largest number of SR voxels that are checked
TILE = 64
KEY = "napari-cropeq"

KINDS = (ERROR, CONSISTENCY)
MAP_TOOLTIP = (
    "Which map is shown; both are computed. Expected error: how far each voxel is expected to be from the truth, in "
    "intensities. Consistency: how far the acquired slices are from the result, imaged again, in units of their noise: "
    "it shows contradictions, not structures that the microscope could not see"
)
UNDER_TOOLTIP = "Intensity of the result ± its expected error"
TRUST_TOOLTIP = (
    "Expected error: the mean absolute error that the network expects of itself, from lateral slices, whose truth is "
    "known. Along the axial axis errors can be larger: on measured volumes they were up to twice as large. "
    "Re-imaged: blurred and sampled as the model says that the microscope does."
)

Step = tuple[float, str] | TilesFound | AxialResolution
TOOLTIPS = {
    "show_maps": "Compute the maps of the current view, and of every view that follows",
    "measure_resolution": "Measure the finest structure along the axial axis, of the acquired slices and of the "
    "result. The whole volume must be computed",
    "verify": "Compute the current view in tiles and as a whole, and compare every voxel. Bit-exact: all are identical",
    "against_padded": "The same check of a common zero-padded network, whose tiles differ at their borders (seams)",
    "stop": "Stop the check or computing maps; a training of a padded network can be resumed",
}


class TrustWidget(ResultPanel):
    """Shows what to trust in the current view, and checks that its tiles equal the whole.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    hints = VERIFY_HINTS

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__(session, layer)
        self.maps: MapLayers | None = None
        self.map = ComboBox(label="Map", choices=list(KINDS), tooltip=MAP_TOOLTIP)
        self.under = Label(label="Under the mouse", value="", tooltip=UNDER_TOOLTIP)
        self.form.extend([self.map, self.under])
        self.buttons = self.add_buttons(
            TOOLTIPS, show_maps=self.show_maps, measure_resolution=self.measure_resolution, stop=self.stop
        )
        self.buttons |= self.add_buttons(
            TOOLTIPS,
            verify=lambda: self._start(padded=False),
            against_padded=lambda: self._start(padded=True),
        )
        self.buttons["stop"].enabled = False
        self.found: TilesFound | None = None
        self._measured = ""  # the resolution, in words
        self._judged: tuple[object, list[str]] = (None, [])  # what the maps of a view say
        self._job: Job | None = None
        self._frame: SRFrame | None = None
        self._add_settings()
        self.add_status()
        self.map.changed.connect(self._on_map)
        for event in (self.viewer.cursor.events.position, self.viewer.dims.events.point):
            event.connect(self._on_mouse)

    def _add_settings(self) -> None:
        """Add the settings of the check, folded."""
        tooltip = "Side of the tiles (blocks of voxels that are computed one by one), in SR voxels"
        self.tile = SpinBox(label="Tile size (voxels)", min=1, max=4096, value=TILE, tooltip=tooltip)
        self.padded = FileField(
            "models",
            "r",
            label="Padded model",
            filter="*.safetensors",
            tooltip="A model of this layer with a zero-padded network. Empty: train one, and save it for later",
        )
        self.minutes = FloatSpinBox(
            label="Training (min)",
            min=0.05,
            max=600,
            step=0.5,
            value=1.0,
            tooltip="Training time of the zero-padded network, in minutes",
        )
        section = Section("Settings of Verify", "Show or hide the size of tiles, and the padded network")
        section.addWidget(Form([self.tile, self.padded, self.minutes]))
        self.below.rows.addWidget(section)

    def show_maps(self) -> None:
        """Compute the chosen maps of the current view."""
        check_layer(self.layer.value)
        result = self.open_result()
        if result.model.error_tail is None:
            self.map.value = CONSISTENCY  # the only one
        if self.maps is None or self.maps.result is not result:
            if self.maps is not None:
                self.maps.remove()
            self.maps, self._measured = MapLayers(self.viewer, result), ""
        self.maps.show(self.map.value)
        self._judged = (None, [])
        result.follower.follow(True)
        result.follower.look()
        self.buttons["stop"].enabled = True

    def measure_resolution(self) -> None:
        """Measure the finest structure along the axial axis, before and after, on the whole result."""
        if self.busy:
            raise ArgumentError("Other work is in progress.", "Wait until it ends, or press Stop.")
        check_cubic()
        result = self.open_result()
        computed, lazy = result.result, result.worker.in_view.lazy
        if computed is None or lazy is None or not result.state.complete:
            raise ArgumentError(
                "The resolution is measured on the whole volume, which is not computed yet.",
                "Press Start in Volume, then try again.",
            )
        view = SRFrame(check_layer(self.layer.value), computed.acquisition).view(self.viewer)
        leading = computed.leading_indices[0] if view is None else view.leading
        whole = lazy.levels[0][leading]

        def steps() -> Iterator[Step]:
            yield 0.05, "Measuring the finest structure along the axial axis."
            yield measure_resolution(partial(computed.interpolated, leading), whole, computed.acquisition)

        self._job = self.run(steps, lambda step: self._on_step(step, self.layer.value), self._on_end)
        self.buttons["stop"].enabled = True

    def show_state(self) -> None:
        """Show the maps as they arrive, and what they say about the view."""
        result, maps = self.result, self.maps
        if result is None or maps is None or self.left or not result.alive or self.busy:
            return
        maps.refresh()
        self.buttons["stop"].enabled = result.follower.following or result.looking
        if self.complaining or result.source_layer is not self.layer.value or result.result is None:
            return
        done, total = result.state.in_view
        self.bar.setValue(int(1000 * done / max(total, 1)))
        view = result.follower.view
        if self.viewer.dims.ndisplay == 3:
            self.say("The maps are shown in slices: leave the 3D display.")
        elif view is None or not (result.follower.following or result.looking):
            self.say("Stopped. Press Show maps to continue.")
        elif result.looking or done < total:
            self.say(f"Computing the maps of the view: {done} of {total} tiles.")
        else:
            if self._judged[0] != (result.result, view):  # a run over the volume changes nothing that is in view
                self._judged = (result.result, view), what_to_trust(result.result, result.worker.in_view.maps, view)
            self.say("\n".join(filter(None, [*self._judged[1], self._measured])), TRUST_TOOLTIP)

    def stop_work(self) -> None:
        """Stop following the mouse and the view when the dock is closed."""
        for event in (self.viewer.cursor.events.position, self.viewer.dims.events.point):
            event.disconnect(self._on_mouse)
        if self.maps is not None:
            self.maps.remove()
        if self.result is not None and self.result.alive:
            self.result.follower.stop()

    def _on_map(self, kind: str) -> None:
        if self.maps is not None and self.result is not None and self.result.alive:
            self.maps.show(kind)
            self.maps.refresh()

    def _on_mouse(self) -> None:
        """Show the voxel under the mouse with its expected error."""
        if self.maps is None or not isalive(self):
            return
        alive = self.result is not None and self.result.alive
        position = np.array(self.viewer.dims.point)  # the mouse does not move along the slider
        for axis in self.viewer.dims.displayed:
            position[axis] = self.viewer.cursor.position[axis]
        found = self.maps.under(position) if alive else None
        self.under.value = "" if found is None else with_error_text(*found)

    def _on_layer(self) -> None:
        """Clear what was found on another layer."""
        if not self.busy:
            self._measured = ""
            self.bar.reset()
            self.say("")

    def stop(self) -> None:
        """Stop the check, whose training can be resumed, or else the maps; those that are shown stay."""
        if self._job is not None and self._job.running:
            self._job.stop()
        elif self.result is not None and self.result.alive:
            if self.maps is not None:
                self.maps.stop()
            self.result.follower.stop()
            self.show_state()

    @property
    def busy(self) -> bool:
        """Whether a check is in progress."""
        return self._job is not None and self._job.running

    def _start(self, padded: bool) -> None:
        if self.busy:
            raise ArgumentError("A check is already running.", "Wait until it ends, or press Stop.")
        layer, model = check_layer(self.layer.value), self.session.model_in_use()
        if self.planes.value == "both":
            raise ArgumentError("The mean of both planes cannot be checked.", "Choose x, y or z as Planes.")
        source = source_of(layer)
        acquisition = acquisition_of(source)
        model.check_fits(acquisition)
        self._frame = SRFrame(layer, acquisition)
        view = self._frame.view(self.viewer)
        if view is None:
            raise ArgumentError(f"'{layer.name}' is not in view.", "Move it into view.")
        box, folder = self._frame.visible_box(view, MOST), Preferences.read().make_cache_folder()
        sides = [box.shape[a] for a in (acquisition.axial, *plane_axes(self.planes.value, acquisition.axial))]
        if max(sides) <= self.tile.value:  # one tile would cover the whole view: there would be nothing to compare
            self.tile.value = max(1, max(sides) // 2)
        where = dict(zip(source.axes[:-3], view.leading, strict=True))
        check = _Check(model, source, where.get("c", 0), where.get("t", 0), self.planes.value, box, self.tile.value)
        chosen, minutes = self.padded.path, self.minutes.value
        name = self.session.model_name
        self._job = self.run(
            lambda: check.against(chosen, minutes, folder) if padded else check.run(model, name),
            lambda step: self._on_step(step, layer),
            self._on_end,
        )
        self.buttons["stop"].enabled = True

    def _on_step(self, step: Step, layer: Image) -> None:
        if isinstance(step, TilesFound):
            self.bar.setValue(1000)
            self.found = step
            self.say(step.sentence)
            self._show(step, layer)
        elif isinstance(step, AxialResolution):
            self.bar.setValue(1000)
            self._measured = "\n".join(filter(None, [step.text, step.warning]))
            self.say(self._measured)
        else:
            share, what = step
            self.bar.setValue(round(1000 * share))
            self.say(what)

    def _on_end(self) -> None:
        self.buttons["stop"].enabled = False
        if self.left or self.complaining:
            return
        if self.bar.value() < 1000:
            self.bar.setValue(0)
            self.say("Stopped.")

    def _show(self, found: TilesFound, layer: Image) -> None:
        """Show the difference as a layer with its own contrast limits; it replaces that of the last check."""
        assert self._frame is not None
        name = f"{found.slices.kind}: tiles - whole, {layer.name}"
        largest = found.agreement.largest
        for other in [la for la in self.viewer.layers if la.metadata.get(KEY, {}).get("check") == name]:
            self.viewer.layers.remove(other)
        self.viewer.add_image(
            found.difference,
            name=name,
            colormap="inferno",
            blending="additive",
            contrast_limits=(0, largest if largest > 0 else 1),
            metadata={KEY: {"check": name, "agreement": found.sentence}},
            **self._frame.placed(found.box),
        )


class _Check:
    """A check of one view, in a worker thread."""

    def __init__(
        self, model: Model, source: Source, channel: int, time: int, planes: str | None, box: Box, tile: int
    ) -> None:
        self._model, self._source, self._where = model, source, (channel, time)
        self._planes, self._box, self._tile = planes, box, tile
        self._device = Preferences.read().device

    def run(self, model: Model, name: str) -> Iterator[Step]:
        """Compare the tiles with the view computed as a whole; the model's name is shown."""
        slices = Slices(model, self._source, *self._where, self._planes, self._device)
        text = f"Computing the view twice with {name}: in tiles, and as a whole."
        for step in TileCheck(slices, self._box, self._tile).run():
            yield (step, text) if isinstance(step, float) else step

    def against(self, path: Path | None, minutes: float, folder: Path) -> Iterator[Step]:
        """Train a zero-padded network if none is given, and compare its tiles with the whole."""
        if path is not None:
            model = load_baseline(path)
        else:
            baseline = Baseline(self._model, self._source, *self._where, minutes=minutes, device=self._device)
            for step in baseline.run(folder / f"padded-{baseline.digest}.safetensors"):
                quality = quality_of({"gain": step.gain})["quality"]
                yield 0.9 * step.fraction, f"Training the zero-padded network, {quality}."
            assert baseline.model is not None
            model = baseline.model
        yield from self.run(model, "the zero-padded network")
