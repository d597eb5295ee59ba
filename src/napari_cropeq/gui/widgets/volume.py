"""The Volume dock widget: the whole volume into a lazy layer, and into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FileEdit
from qtpy.QtWidgets import QLabel

from napari_cropeq.compute.super_resolution import DTYPES, SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.formats.paths import check_output, output_kind
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.unfinished_layer import (
    remove_stale,
    resume_from,
    source_in_place,
    unfinished_in,
    unfinished_layers,
)
from napari_cropeq.gui.parts.activity import Activity
from napari_cropeq.gui.parts.estimate_label import EstimateLabel
from napari_cropeq.gui.parts.run_clock import RunClock
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.widgets.result_panel import ResultPanel
from napari_cropeq.run.export import ExportProgress, export, mended
from napari_cropeq.store.folder import unfinished
from napari_cropeq.store.unfinished import Unfinished

__all__ = ["VolumeWidget"]


class VolumeWidget(ResultPanel):
    """Fills the lazy SR layer tile by tile, in memory or straight into an OME-Zarr, and saves it.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.dtype = ComboBox(label="Type", choices=list(DTYPES), tooltip="source: rounded and clipped to its range")
        self.destination = FileEdit(
            label="Destination", mode="w", nullable=True, value=None, tooltip=".ome.zarr or .ome.tif; empty: memory"
        )
        self.overwrite = CheckBox(label="Overwrite", value=False, tooltip="Replace what is there once this is complete")
        self.form.extend([self.dtype, self.destination, self.overwrite])
        self.estimate = EstimateLabel(self)
        self.column.rows.addWidget(self.estimate)
        self.begun = QLabel("")
        self.begun.setWordWrap(True)
        self.column.rows.addWidget(self.begun)
        self.buttons = self.add_buttons(start=self.start, pause=self.pause, stop=self.stop, save=self.save)
        self.add_status()
        self._saving: Job | None = None
        self._activity: Activity | None = None
        self._clock: RunClock | None = None  # while a run is under way
        for field in (self.layer, self.planes, self.dtype, self.destination, self.overwrite):
            field.changed.connect(self._on_choice)
        self._enable()
        self.session.model_changed.connect(self._on_choice)
        self._on_choice()

    # -- actions -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Compute every tile, those in view first; an unfinished store is gone on with."""
        opened = self._opened()
        if opened is not None and opened.channels > 1:
            self._go_on_with(opened)
            return
        if opened is not None:
            self._take_up(opened)
        path = self._path()
        result = self.open_result(self.dtype.value)
        result.superseded += unfinished_layers(self.viewer)
        result.run_all(path, self._existing(path))
        self._clock = RunClock(result.worker)
        self._activity = self._activity or Activity(f"Super-resolving {self.layer.value.name}")
        self._enable()
        self.show_state()

    def pause(self) -> None:
        """Hold the run, or let it go on."""
        if self.result is None or self._clock is None:
            return
        paused = not self.result.state.paused
        self.result.pause_all(paused)
        self._clock.hold(paused)
        self.show_state()

    def stop(self) -> None:
        """Stop the run and the saving; finished tiles stay."""
        if self.result is not None and self._clock is not None:
            some = self.result.state.tiles[0] > 0
            self.result.stop_all()
            self._end_run()
            kept = f" in {self._partial()}" if self._partial() else ""
            if some:
                self.say(f"Stopped: finished tiles stay{kept}, and {self.buttons['start'].text} goes on from there.")
            else:
                self.say("Stopped before the first tile was finished: nothing is kept.")
        if self._saving is not None:
            self._saving.stop()

    def stop_work(self) -> None:
        """Stop the run when the dock is closed."""
        self.estimate.stop()
        self._end_run()
        if self.result is not None and self.result.alive:
            self.result.stop_all()

    def save(self) -> None:
        """Write the whole result to the destination; tiles that are finished are not computed again."""
        path = self._path()
        if path is None:
            raise ValueError("Got no destination, expected a name ending in .ome.zarr or .ome.tif: choose one.")
        if self._saving is not None:
            raise ValueError("Got a second wish to save while one is under way: wait for it or press Stop.")
        output_kind(path)
        existing = self._existing(path)
        result = self.open_result(self.dtype.value)
        check_output(path, existing, result.inputs)
        if result.result is None:
            raise ValueError("Got a result that is still being prepared: wait a moment and press Save again.")
        whole = result.result
        computed = result.worker.finished_stores
        self._write(lambda: export(whole, path, existing=existing, computed=computed), path)

    def _go_on_with(self, opened: Unfinished) -> None:
        """Complete a store of several channels, which no layer holds together, straight from its source's file."""
        if self._saving is not None:
            raise ValueError("Got a second wish to save while one is under way: wait for it or press Stop.")
        source, device = source_in_place(opened), Preferences.read().device

        def work() -> Iterator[ExportProgress]:
            model = Model.load(opened.model_path)
            result = SuperResolution(source, model, None, opened.planes, device, opened.dtype, crew=False)
            yield from export(result, opened.output, existing="resume")

        self._write(work, opened.output, shown=True)

    def _write(self, work: Callable[[], Iterator[ExportProgress]], path: Path, shown: bool = False) -> None:
        """Write a file in the background, and open it in the end if it is to be ``shown``."""
        complete: list[Path] = []

        def steps() -> Iterator[ExportProgress]:
            yield from work()
            complete.append(path)

        self._activity = self._activity or Activity(f"Saving {path.name}")
        self._saving = Job(steps)
        self._saving.progressed.connect(self._on_saving)
        self._saving.failed.connect(self.complain)
        self._saving.ended.connect(lambda: self._on_saved(complete, shown))
        self.jobs[:] = [self._saving]
        self._enable()
        self._saving.start()

    @property
    def saving(self) -> bool:
        """Whether a file is being written."""
        return self._saving is not None

    # -- state -------------------------------------------------------------------------------------

    def say_saved(self, path: str) -> None:
        """Tell that a file is complete."""
        self._end_run()
        self.bar.setValue(self.bar.maximum())
        super().say_saved(path)
        remove_stale(self.viewer)
        self._on_choice()

    def show_state(self) -> None:
        """Show how far the run is, and when it will be done."""
        result = self.result
        if result is None or self._saving is not None:
            return
        clock = self._clock
        if not result.running_all:
            self._end_run()
        if result.result is None:
            return
        state = result.state
        done, total = state.tiles
        fraction = state.fraction
        self.bar.setValue(int(1000 * fraction))
        if clock is None or self.complaining:
            return
        if result.running_all:
            text = f"{done} of {total} tiles, {clock.text}" if total else "Reading what is there"
            self.say("; ".join(filter(None, (text, mended(state.damaged), str(result.result.exactness)))) + ".")
            if self._activity is not None:
                self._activity.show(fraction, f"{result.source_layer.name}: {done} of {total} tiles")
            self.buttons["pause"].text = "Go on" if state.paused else "Pause"
        elif not result.alive:
            self.say("Stopped: the result was closed.")
        elif result.complete:
            self.say(f"All {total} tiles are done; {result.result.exactness}.")

    def _end_run(self) -> None:
        self._clock = None
        self.buttons["pause"].text = "Pause"
        if self._activity is not None and self._saving is None:
            self._activity.close()
            self._activity = None
        self._enable()
        self._show_begun()

    def _enable(self) -> None:
        """Let only what can be done be pressed."""
        running, saving = self._clock is not None, self.saving
        able = {"start": not running and not saving, "pause": running, "stop": running or saving, "save": not saving}
        for name, button in self.buttons.items():
            button.enabled = able[name]

    def _on_saving(self, progress: ExportProgress) -> None:
        self.bar.setValue(int(1000 * progress.done / max(progress.total, 1)))
        text = f"Saving: {progress.done} of {progress.total} tiles"
        self.say("; ".join(filter(None, (text, mended(progress.damaged)))) + ".")
        if self._activity is not None:
            self._activity.show(progress.done / max(progress.total, 1), "Saving")

    def _on_saved(self, complete: list[Path], shown: bool) -> None:
        self._saving = None
        self._end_run()
        if not self.complaining:
            if complete:
                self.say_saved(str(complete[0]))
                if shown:
                    self.viewer.open(str(complete[0]), plugin="napari-cropeq")
            else:
                opened = self._opened()
                kept = self._partial() if opened is None else opened.folder.name
                self.say(f"Saving stopped: what was done stays in {kept}, and Save goes on from there.")

    # -- choices -----------------------------------------------------------------------------------

    def _on_choice(self, _: Any = None) -> None:
        """Say what the run would take, and whether there is something to go on with."""
        if self.left:
            return
        self._show_begun()
        self.estimate.show_for(self.layer.value, self.session.model, self.planes.value, self.dtype.value, self._path())

    def _show_begun(self) -> None:
        if "start" not in getattr(self, "buttons", {}):
            return
        opened, kept = self._opened(), self._partial()
        if opened is not None:
            self.begun.setText(
                f"{opened.folder.name} is unfinished ({opened.fraction:.0%}): Resume computes the rest from "
                f"'{opened.source.get('name')}'."
            )
        elif kept and not self.overwrite.value and self._clock is None:
            self.begun.setText(f"{kept} is unfinished: Resume goes on from there.")
        else:
            self.begun.setText("")
        self.begun.setVisible(bool(self.begun.text()))
        self.buttons["start"].text = "Resume" if self.begun.text() else "Start"

    def _opened(self) -> Unfinished | None:
        """Return an unfinished store that was opened as a layer."""
        return None if self._clock is not None else unfinished_in(self.viewer)

    def _take_up(self, opened: Unfinished) -> None:
        """Choose what an unfinished store was begun with: model, source, planes, type, destination."""
        layer, model = resume_from(self.viewer, opened)
        self.session.use_model(model, f"of {opened.folder.name}")
        self.layer.value = layer
        self.planes.value = opened.planes
        self.dtype.value = opened.dtype
        self.destination.value = opened.output
        self.overwrite.value = False

    def _path(self) -> Path | None:
        value = self.destination.value
        return None if value is None or not str(value).strip() or str(value) == "." else Path(value)

    def _partial(self) -> str:
        """Return the name of the destination's unfinished store, if there is one."""
        path = self._path()
        folder = None if path is None else unfinished(path)
        return "" if folder is None else folder.name

    def _existing(self, path: Path | None) -> str:
        if self.overwrite.value:
            return "overwrite"
        return "refuse" if path is None or unfinished(path) is None else "resume"
