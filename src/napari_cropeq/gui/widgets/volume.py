"""The step Volume: super-resolve a whole volume into a lazy layer or a file."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox
from qtpy.QtWidgets import QLabel

from napari_cropeq.compute.super_resolution import DTYPES
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.paths import check_output, output_kind
from napari_cropeq.gui.files.destination import Destination
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.source import check_layer, source_of
from napari_cropeq.gui.layers.unfinished_layer import remove_stale, resume_from, unfinished_in, unfinished_layers
from napari_cropeq.gui.parts.activity import Activity
from napari_cropeq.gui.parts.estimate_label import EstimateLabel
from napari_cropeq.gui.parts.keyboard import with_mnemonic
from napari_cropeq.gui.parts.layer_choice import LayerChoice, layer_events
from napari_cropeq.gui.parts.planes_choice import TYPE_TOOLTIP
from napari_cropeq.gui.parts.run_clock import RunClock
from napari_cropeq.gui.saving import Saving
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.target import Target
from napari_cropeq.gui.widgets.result_panel import ResultPanel
from napari_cropeq.run.export import ExportProgress, mended

__all__ = ["VolumeWidget"]

TOOLTIPS = {
    "start": "Super-resolve the volume in tiles (blocks of voxels that are computed one by one), those in view first",
    "pause": "Pause the run; tiles in view are still computed",
    "stop": "Stop the run and keep finished tiles",
    "save": "Compute missing tiles and save the result to Destination",
}


class VolumeWidget(ResultPanel):
    """Fills the lazy SR layer tile by tile, in memory or in an OME-Zarr, and saves it.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__(session, layer)
        self.dtype = ComboBox(label="Type", choices=list(DTYPES), tooltip=TYPE_TOOLTIP)
        self.destination = Destination()
        self.overwrite = CheckBox(
            label="Overwrite", value=False, tooltip="Replace an existing file once the new result is complete"
        )
        self.form.extend([self.dtype, self.destination, self.overwrite])
        self.estimate = EstimateLabel(self)
        self.started = QLabel("")
        self.started.setWordWrap(True)
        self.buttons = self.add_buttons(TOOLTIPS, start=self.start, pause=self.pause, stop=self.stop, save=self.save)
        self.add_status()
        for label in (self.estimate, self.started):
            self.fixed.addWidget(label)
        self.saving: Saving | None = None  # in progress
        self._job: Job | None = None  # runs the saving
        self._activity: Activity | None = None
        self._clock: RunClock | None = None  # while a run is in progress
        for field in (self.layer, self.planes, self.dtype, self.destination, self.overwrite):
            field.changed.connect(self._on_choice)
        for event in layer_events(self.viewer):
            event.connect(self._show_possible)
        self.session.model_changed.connect(self._on_choice)
        self.layer.changed.connect(self.destination.propose)
        self.destination.propose(self.layer.value)
        self._on_choice()

    # -- actions -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Compute every tile, those in view first; an unfinished store is resumed."""
        opened = unfinished_in(self.viewer)
        if opened is not None and opened.channels > 1:
            self._save(Saving.rest_of(opened), f"the model of {opened.folder.name}")
            return
        if opened is not None:  # use its own model, source and settings
            layer, model = resume_from(self.viewer, opened)
            name = opened.output.name
            self.session.use_model(model, f"the model of {name}", f"of {name}")
            self.layer.value = layer
            self.planes.value, self.dtype.value = opened.planes, opened.dtype
            self.destination.value, self.overwrite.value = opened.output, False
        target = self._target()
        if target is not None and output_kind(target.path) == ".ome.tif":  # computed into a store, and converted
            self.save()
            return
        if target is not None:  # before anything is shown
            check_output(target.path, target.existing, source_of(check_layer(self.layer.value)).files)
        result = self.open_result(self.dtype.value)
        result.shown.superseded += unfinished_layers(self.viewer)
        if target is None:
            result.run_all()
        else:
            result.run_all(target.path, target.existing)
        self._clock = RunClock()
        self._activity = self._activity or Activity(f"Super-resolving {self.layer.value.name}")
        self._show_possible()
        self.show_state()

    def pause(self) -> None:
        """Pause the run, or continue it."""
        if self.result is None or self._clock is None:
            return
        paused = not self.result.state.paused
        self.result.worker.pause_all(paused)
        self._clock.pause(paused)
        self.show_state()

    def stop(self) -> None:
        """Stop the run and the saving; finished tiles are kept."""
        if self.result is not None and self._clock is not None:
            self.result.stop_all()
            some = self.result.state.tiles[0] > 0
            self._end_run()
            target = self._target()
            if some:
                kept = target.partial if target is not None and target.partial else "memory"
                button = self.buttons["start"].text.replace("&", "")
                self.say(f"Stopped. Finished tiles are kept in {kept}. Press {button} to continue.")
            else:
                self.say("Stopped before the first tile was finished. Nothing is kept.")
        if self._job is not None:
            self._job.stop()

    def stop_work(self) -> None:
        """Stop the run when the dock is closed."""
        for event in layer_events(self.viewer):
            event.disconnect(self._show_possible)
        self.estimate.stop()
        self._end_run()
        if self.result is not None and self.result.alive:
            self.result.stop_all()

    def save(self) -> None:
        """Save the whole result to the destination; finished tiles are not computed again."""
        target = self._target()
        if target is None:
            raise ArgumentError("There is no destination.", "Choose a file name that ends in .ome.zarr or .ome.tif.")
        output_kind(target.path)  # check the name before a result is opened
        result = self.open_result(self.dtype.value)
        self._save(Saving.of_result(result, target), self.session.name_of(result))

    def _save(self, saving: Saving, model: str) -> None:
        """Save a file in the background, with the model of this name."""
        if self.saving is not None:
            raise ArgumentError("A file is already being saved.", "Wait until it is complete, or press Stop.")
        self.saving = saving
        self._activity = self._activity or Activity(f"Saving {saving.path.name}")
        self._job = self.run(saving.steps, lambda progress: self._on_saving(progress, model), self._on_saved)
        self._show_possible()

    # -- state -------------------------------------------------------------------------------------

    def say_saved(self, path: str) -> None:
        """Show that the run has ended and that its file is complete."""
        self._end_run()
        self._show_saved(path)

    def show_state(self) -> None:
        """Show the progress of the run and the time left."""
        result = self.result
        if result is None or self.saving is not None:
            return
        clock, running = self._clock, result.running_all
        if not running:
            self._end_run()
        state = result.state
        if not state.ready:
            return
        done, total = state.tiles
        self.bar.setValue(int(1000 * state.fraction))
        if clock is None or self.complaining:
            return
        model = f"with {self.session.name_of(result)}"
        if running:
            self.buttons["pause"].enabled = total > 0
            tiles = f"{state.fraction:.0%}, {done} of {total} tiles"  # a small volume is a single tile
            text = f"{tiles}, {clock.text(state)}, {model}" if total else "Checking finished tiles"
            self.say("; ".join(filter(None, (text, mended(state.damaged), state.exactness))) + ".")
            if self._activity is not None:
                self._activity.show(state.fraction, f"{result.source_layer.name}: {done} of {total} tiles")
            self.buttons["pause"].text = with_mnemonic("Continue" if state.paused else "Pause")
        elif not result.alive:
            self.say("Stopped, because the result was closed. Press Start to compute it again.")
        elif state.complete:
            self.say(f"All {total} tiles are done, {model}; {state.exactness}.")

    def _end_run(self) -> None:
        self._clock = None
        self.buttons["pause"].text = with_mnemonic("Pause")
        if self._activity is not None and self.saving is None:
            self._activity.close()
            self._activity = None
        self._show_possible()

    def _on_saving(self, progress: ExportProgress, model: str) -> None:
        self.bar.setValue(int(1000 * progress.done / max(progress.total, 1)))
        assert self.saving is not None
        text = f"{progress.done} of {progress.total} tiles are computed, with {model}"
        if not progress.total:
            text = "the result is being prepared"
        elif progress.stage == "saving":
            text = "all tiles are computed, the file is being written"
        self.say("; ".join(filter(None, (f"{self.saving.path.name}: {text}", mended(progress.damaged)))) + ".")
        if self._activity is not None:
            self._activity.show(progress.done / max(progress.total, 1), "Saving")

    def _on_saved(self) -> None:
        saving, self.saving, self._job = self.saving, None, None
        if self.result is None or not self.result.running_all:  # a run that is in progress keeps its display
            self._end_run()
        self._show_possible()
        if saving is None or self.complaining:
            return
        if saving.complete:
            self._show_saved(str(saving.path))
            if saving.opens:
                self.viewer.open(str(saving.path), plugin="napari-cropeq")
        else:
            kept = Target(saving.path, overwrite=False).partial
            self.say(f"Saving stopped. Finished tiles are kept in {kept}. Press Save to continue.")

    def _show_saved(self, path: str) -> None:
        if self._clock is None:
            self.bar.setValue(self.bar.maximum())
        super().say_saved(path)
        remove_stale(self.viewer)
        self._on_choice()

    # -- choices -----------------------------------------------------------------------------------

    def _on_choice(self) -> None:
        """Show the estimate for the run, and whether an unfinished store can be resumed."""
        if self.left:
            return
        self._show_possible()
        target = self._target()
        path = None if target is None else target.path
        self.estimate.show_for(self.layer.value, self.session.model, self.planes.value, self.dtype.value, path)

    def _show_possible(self) -> None:
        """Enable the buttons that can be used, and show which unfinished store can be resumed."""
        running, saving = self._clock is not None, self.saving is not None
        pausable = running and self.result is not None and self.result.state.tiles[1] > 0  # it computes
        able = {"start": not running and not saving, "pause": pausable, "stop": running or saving, "save": not saving}
        for name, button in self.buttons.items():
            button.enabled = able[name]
        target, opened = self._target(), None if running else unfinished_in(self.viewer)
        if opened is not None:
            self.started.setText(
                f"{opened.folder.name} is unfinished ({opened.fraction:.0%}). Press Resume to compute the rest from "
                f"'{opened.source.get('name')}'."
            )
        elif target is not None and target.partial and not target.overwrite and not running:
            self.started.setText(f"{target.partial} is unfinished. Press Resume to complete it.")
        else:
            self.started.setText("")
        self.started.setVisible(bool(self.started.text()))
        self.buttons["start"].text = with_mnemonic("Resume" if self.started.text() else "Start")

    def _target(self) -> Target | None:
        """Return the destination of the result; None for memory."""
        path = self.destination.path
        return None if path is None else Target(path, self.overwrite.value)
