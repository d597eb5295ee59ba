"""The Volume dock widget: the whole volume into a lazy layer, and into a file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FileEdit

from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.result_panel import ResultPanel
from napari_cropeq.volume.export import ExportProgress, export, output_kind
from napari_cropeq.volume.store import check_output
from napari_cropeq.volume.superres import DTYPES

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
        self.overwrite = CheckBox(label="Overwrite", value=False)
        self.form.extend([self.dtype, self.destination, self.overwrite])
        self.buttons = self.add_buttons(start=self.start, stop=self.stop, save=self.save)
        self.add_status()
        self._saving: Job | None = None
        self._started = 0.0
        self._begun = 0.0
        self._running = False

    def start(self) -> None:
        """Compute every tile; those in view go first."""
        path = self._path()
        result = self.open_result(self.dtype.value)
        result.run_all(path, self.overwrite.value)
        self._started, self._begun, self._running = time.monotonic(), result.worker.fraction, True
        self.show_state()

    def stop(self) -> None:
        """Stop the run and the saving; finished tiles stay."""
        if self.result is not None and self._running:
            self._running = False
            self.result.stop_all()
            self.say("Stopped: finished tiles stay, and Start goes on from there.")
        if self._saving is not None:
            self._saving.stop()

    def stop_work(self) -> None:
        """Stop the run when the dock is closed."""
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
        check_output(path, self.overwrite.value)
        result = self.open_result(self.dtype.value)
        if result.result is None:
            raise ValueError("Got a result that is still being prepared: wait a moment and press Save again.")
        whole, overwrite = result.result, self.overwrite.value
        computed = result.worker.finished_stores()
        complete: list[Path] = []

        def steps() -> Iterator[ExportProgress]:
            yield from export(whole, path, overwrite=overwrite, computed=computed)
            complete.append(path)

        self._saving = Job(steps)
        self._saving.progressed.connect(self._on_saving)
        self._saving.failed.connect(self.complain)
        self._saving.ended.connect(lambda: self._on_saved(complete))
        self.jobs[:] = [self._saving]
        self._saving.start()

    @property
    def saving(self) -> bool:
        """Whether a file is being written."""
        return self._saving is not None

    def _path(self) -> Path | None:
        value = self.destination.value
        return None if value is None or not str(value).strip() or str(value) == "." else Path(value)

    def say_saved(self, path: str) -> None:
        """Tell that a file is complete."""
        self._running = False
        self.bar.setValue(self.bar.maximum())
        super().say_saved(path)

    def show_state(self) -> None:
        """Show how far the run is, and when it will be done."""
        result = self.result
        if result is None or result.result is None or self.complaining or self._saving is not None:
            return
        done, total = result.worker.tiles
        self.bar.setValue(int(1000 * result.worker.fraction))
        if not self._running:
            return
        if result.running_all:
            gained = result.worker.fraction - self._begun
            left = (
                (time.monotonic() - self._started) * (1 - result.worker.fraction) / gained if gained > 0 else math.inf
            )
            tell = f", {left:.0f} s left" if math.isfinite(left) else ""
            self.say(f"{done} of {total} tiles{tell}; {result.result.exactness}.")
        elif not result.alive:
            self._running = False
            self.say("Stopped: the result was closed.")
        elif result.complete:
            self._running = False
            self.say(f"All {total} tiles are done; {result.result.exactness}.")

    def _on_saving(self, progress: ExportProgress) -> None:
        self.bar.setValue(int(1000 * progress.done / max(progress.total, 1)))
        self.say(f"Saving: {progress.done} of {progress.total} tiles.")

    def _on_saved(self, complete: list[Path]) -> None:
        self._saving = None
        if not self.complaining:
            if complete:
                self.say_saved(str(complete[0]))
            else:
                self.say("Saving stopped: what was begun has been removed.")
