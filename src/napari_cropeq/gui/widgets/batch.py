"""The Batch dock widget: many images, one after another, into files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, FileEdit, FloatSpinBox, LineEdit
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QLabel
from superqt.utils import QSignalDebouncer, QSignalThrottler

from napari_cropeq.compute.super_resolution import DTYPES
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.config import Recipe
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Source, acquisition_of, open_source
from napari_cropeq.formats.paths import EXISTING
from napari_cropeq.gui.jobs import Job, sentence
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.gui.parts.batch_table import BatchTable
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.widgets.panel import Panel
from napari_cropeq.gui.widgets.result_panel import PLANES
from napari_cropeq.run.batch import Batch, BatchProgress, BatchSettings, Item, summary
from napari_cropeq.run.naming import FIELDS, PATTERN, Naming, stem_of
from napari_cropeq.run.train_to_file import OwnTraining

__all__ = ["BatchWidget"]

FOLDER, FILES, LAYERS = "folder", "files", "layers"
IN_USE, EACH = "in use", "each"
FORMATS = (("OME-Zarr", ".ome.zarr"), ("OME-TIFF", ".ome.tif"))
LISTING_MS, SHOWING_MS = 300, 250  # each new text composes napari's whole window: 20 ms on two cores without a GPU

Listed = tuple[list[Item], dict[str, Any]]
"""The images meant, and what is known of the first for the example of a name."""


class BatchWidget(Panel):
    """Super-resolves a folder, files or the selected layers, and shows what becomes of each.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.form.remove(self.layer)  # layers are those selected in the list
        self._job: Job | None = None
        self._batch: Batch | None = None
        self._progress: BatchProgress | None = None
        self._begun = 0.0
        self._stopped = False
        self._listing = 0  # number of the last wish to list the images
        self._known: dict[str, Any] = {}  # of the first image listed, for the example
        self._add_fields()
        self.table = BatchTable()
        self._layout.addWidget(self.table)
        self.buttons = self.add_buttons(start=self.start, stop=self.stop)
        self.buttons["stop"].tooltip = "What is unfinished is kept: Start with Existing: resume goes on from it"
        self.add_status()
        self._show_soon = QSignalThrottler(parent=self)
        self._show_soon.setTimeout(SHOWING_MS)
        self._show_soon.triggered.connect(self._show_progress)
        self._list_soon = QSignalDebouncer(parent=self)
        self._list_soon.setTimeout(LISTING_MS)
        self._list_soon.triggered.connect(lambda: self.attempt(self.list_images))
        self._connect()
        self._show_fields()
        self._show_model()
        self._enable()

    def sizeHint(self) -> QSize:
        """Ask for room for the table."""
        return QSize(540, 760)

    def _add_fields(self) -> None:
        fields = "\n".join(f"{{{name}}}: {told}" for name, told in FIELDS.items())
        choices = [("a folder, or a pattern", FOLDER), ("files", FILES), ("the selected layers", LAYERS)]
        self.images = ComboBox(label="Images", choices=choices, tooltip="What is super-resolved")
        self.folder = FileEdit(
            label="Folder", mode="d", nullable=True, value=None, tooltip="or a pattern, such as data/*_raw.ome.zarr"
        )
        self.files = FileEdit(label="Files", mode="rm", nullable=True, value=None)
        self.which = ComboBox(label="Model", choices=[("none yet", IN_USE), ("train on each", EACH)])
        self.minutes = FloatSpinBox(
            label="Minutes", value=2.0, min=0.01, max=1e6, step=0.5, tooltip="Time to train on each image"
        )
        self.format = ComboBox(label="Format", choices=FORMATS)
        self.destination = FileEdit(
            label="Destination", mode="d", nullable=True, value=None, tooltip="The folder of the results"
        )
        self.pattern = LineEdit(label="Names", value=PATTERN, tooltip=fields)
        self.dtype = ComboBox(label="Type", choices=list(DTYPES), tooltip="source: rounded and clipped to its range")
        self.planes = ComboBox(
            label="Planes", choices=PLANES, tooltip="Lateral axis that shares the planes with the axial one"
        )
        told = "What is done about outputs that are there; resume skips what is done and completes what is not"
        self.existing = ComboBox(label="Existing", choices=list(EXISTING), tooltip=told)
        self.form.extend([self.images, self.folder, self.files, self.which, self.minutes, self.format])
        self.form.extend([self.destination, self.pattern, self.dtype, self.planes, self.existing])
        self.example = QLabel("")
        self.example.setWordWrap(True)
        self._layout.addWidget(self.example)

    def _connect(self) -> None:
        for field in (self.images, self.folder, self.files):
            field.changed.connect(lambda: self._list_soon.throttle())
        self.images.changed.connect(self._show_fields)
        self.which.changed.connect(self._show_fields)
        for field in (self.pattern, self.format, self.dtype):
            field.changed.connect(self._show_example)
        self.session.model_changed.connect(self._show_model)
        self.viewer.layers.selection.events.changed.connect(self._on_selection)

    # -- actions -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Check what can be checked at once, then work in the background."""
        if self._job is not None:
            return
        naming, settings, words = self._naming(), self._settings(), self._words()
        sources = self._sources() if self.images.value == LAYERS else None
        if naming.folder.parent.is_dir() and not naming.folder.exists():
            naming.folder.mkdir()
        self._batch, self._progress, self._stopped = None, None, False
        self._begun = time.monotonic()

        def steps() -> Iterator[BatchProgress]:
            self._batch = Batch(find_images(words) if sources is None else sources, naming, settings)
            yield from self._batch.run()

        self._list_soon.cancel()
        self._listing += 1  # what is still being listed, or about to be, is of no interest any more
        self.bar.setValue(0)
        self.say("Looking at the images.")
        self._job = self.run(steps, self._on_progress, self._on_ended)
        self._enable()

    def stop(self) -> None:
        """Stop at the next tile or training step; what is unfinished is kept."""
        if self._job is not None:
            self._stopped = True
            self.say("Stopping.")
            self._job.stop()

    def list_images(self) -> None:
        """Show which images are meant, found in the background."""
        if self._job is not None:
            return
        self._listing += 1
        wish = self._listing
        if self.images.value == LAYERS:
            layers = self._selected()
            known = {"name": layers[0].name} | factor_of(lambda: source_of(layers[0])) if layers else {}
            self._show_listed(([Item(layer.name, layer.name) for layer in layers], known))
            return
        words = self._words(complain=False)
        if not words:
            self._show_listed(([], {}))
            return

        def steps() -> Iterator[Listed]:
            paths = find_images(words)
            known = {"name": stem_of(paths[0].name), "folder": paths[0].parent.name}
            known |= factor_of(lambda: open_source(paths[0]))
            yield [Item(str(path), path.name) for path in paths], known

        def show(listed: Listed) -> None:
            if wish == self._listing and not self.left:
                self._show_listed(listed)

        self._show_listed(([], {}))
        self.run(steps, show, lambda: None)

    def stop_work(self) -> None:
        """Stop listening when the dock is closed; the job is stopped by the session."""
        self._list_soon.cancel()
        self.viewer.layers.selection.events.changed.disconnect(self._on_selection)

    # -- what is chosen ----------------------------------------------------------------------------

    def _words(self, complain: bool = True) -> list[Path]:
        """Return the folder, the pattern or the files that are named."""
        if self.images.value == LAYERS:
            return []
        value = self.folder.value if self.images.value == FOLDER else self.files.value
        words = [Path(word) for word in (value if isinstance(value, Sequence) else [value] if value else [])]
        words = [word for word in words if str(word) not in ("", ".")]
        if complain and not words:
            raise ValueError(f"Got no {self.images.value} to work on, expected some: choose images above.")
        return words

    def _selected(self) -> list[Any]:
        return [layer for layer in self.viewer.layers if layer in self.viewer.layers.selection]

    def _sources(self) -> list[Source]:
        """Return the selected layers as sources, in the order of the list."""
        layers = self._selected()
        if not layers:
            raise ValueError("Got no selected layer, expected at least one: select layers in the layer list.")
        for layer in layers:
            if "napari-cropeq" in layer.metadata:
                raise ValueError(
                    f"Got the layer '{layer.name}', which is a result, expected acquired volumes: select its source."
                )
        return [source_of(layer) for layer in layers]

    def _naming(self) -> Naming:
        value = self.destination.value
        if value is None or str(value).strip() in ("", "."):
            raise ValueError("Got no destination, expected the folder of the results: choose one.")
        return Naming(Path(value), self.pattern.value, self.format.value)

    def _settings(self) -> BatchSettings:
        device, planes, dtype = Preferences.read().device, self.planes.value, self.dtype.value
        return BatchSettings(self._model(), self.existing.value, planes, dtype, device=device, crew=False)

    def _model(self) -> Model | OwnTraining:
        if self.which.value == EACH:
            return OwnTraining(Recipe.preset("fast", minutes=self.minutes.value))
        if self.session.model is None:
            raise ValueError(
                "Got no model, expected one: train or load one in the Train widget, or choose to train on each image."
            )
        return self.session.model

    # -- what is shown -----------------------------------------------------------------------------

    def _show_fields(self, _: Any = None) -> None:
        self.folder.visible = self.images.value == FOLDER
        self.files.visible = self.images.value == FILES
        self.minutes.visible = self.which.value == EACH

    def _show_model(self) -> None:
        # Choices that are set anew change their order.
        self.which.native.setItemText(0, self.session.model_name or "none yet: train or load one")
        self._show_example()

    def _show_listed(self, listed: Listed) -> None:
        items, self._known = listed
        self.table.show_items(items)
        if not self.complaining:
            self.say("1 image." if len(items) == 1 else f"{len(items)} images." if items else "")
        self._show_example()

    def _show_example(self, _: Any = None) -> None:
        """Show what the first image's result would be called."""
        known = self._known | ({} if self.dtype.value == "source" else {"dtype": self.dtype.value})
        try:
            name = Naming(Path(), self.pattern.value, self.format.value).example(**known)
            self.example.setText(f"Example: {name}{self.format.value}")
        except ValueError as error:
            self.example.setText(str(error))

    def _on_selection(self, _: Any = None) -> None:
        if self.images.value == LAYERS:
            self._list_soon.throttle()

    def _on_progress(self, progress: BatchProgress) -> None:
        self._progress = progress
        self._show_soon.throttle()

    def _show_progress(self) -> None:
        progress = self._progress
        if progress is None or self._job is None:
            return
        item = progress.item
        self.table.show_items(progress.items)
        self.table.scrollToItem(self.table.item(progress.current, 0))
        self.bar.setValue(int(1000 * progress.fraction))
        if not self._stopped:
            place = f"{progress.current + 1} of {len(progress.items)}"
            self.say(f"{place}: {item.name}, {item.status}{', ' if item.detail else ''}{item.detail}.")

    def _on_ended(self) -> None:
        self._job = None
        if self._batch is not None:
            self.table.show_items(self._batch.items)
        if self._batch is not None and not self.complaining:
            told = summary(self._batch.items)
            if all(item.ended for item in self._batch.items):
                self.bar.setValue(self.bar.maximum())
                self.say(f"{told}, in {duration(time.monotonic() - self._begun)}.{self._first_failure()}")
            else:
                self.say(f"Stopped: {told}. What is unfinished is kept: choose Existing: resume to go on from it.")
        self._enable()

    def _first_failure(self) -> str:
        """Return what is wrong with the first image that failed."""
        items = [] if self._batch is None else self._batch.items
        wrong = [f" {item.name}: {sentence(item.error)}" for item in items if item.error is not None]
        return wrong[0] if wrong else ""

    def _enable(self) -> None:
        idle = self._job is None
        self.buttons["start"].enabled = idle
        self.buttons["stop"].enabled = not idle


def factor_of(opened: Callable[[], Source]) -> dict[str, Any]:
    """Return the factor and type of an image for the example of a name; nothing of what cannot be read."""
    try:
        source = opened()
        return {"factor": acquisition_of(source).factor, "dtype": str(source.data.dtype)}
    except Exception:  # noqa: BLE001 (what is wrong with it is told once the batch is run)
        return {}
