"""The step Batch: super-resolve many images into files."""

from __future__ import annotations

from qtpy.QtWidgets import QLabel
from superqt.utils import QSignalDebouncer, QSignalThrottler

from napari_cropeq.gui.batch.form import LAYERS, BatchForm
from napari_cropeq.gui.batch.images import ImageList
from napari_cropeq.gui.batch.run import BatchRun
from napari_cropeq.gui.batch.table import BatchTable
from napari_cropeq.gui.hints import BATCH_HINTS
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.widgets.panel import Panel
from napari_cropeq.run.batch import BatchProgress

__all__ = ["BatchWidget"]

LISTING_MS = 300
SHOWING_MS = 250  # napari redraws its whole window for each new text: 20 ms on two cores without a GPU
TOOLTIPS = {
    "start": "Super-resolve the images, one after another",
    "stop": "Stop and keep unfinished outputs. To complete them, choose resume under Existing and press Start",
}


class BatchWidget(Panel):
    """Super-resolves a folder, files or the selected layers, and shows the status of each.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    hints = BATCH_HINTS

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__(session, layer)
        self._job: Job | None = None
        self._run: BatchRun | None = None
        self._images = ImageList()
        self._listing = 0  # number of the last request to list the images
        self._lister: Job | None = None
        self.fields = BatchForm(self.form, self.session)
        self.example = QLabel("")
        self.example.setWordWrap(True)
        self.table = BatchTable(self.colours)
        self.coloured.append(self.table)
        for widget in (self.example, self.table):
            self.below.rows.addWidget(widget)
        self.buttons = self.add_buttons(TOOLTIPS, start=self.start, stop=self.stop)
        self.add_status()
        self._show_soon = QSignalThrottler(parent=self)
        self._show_soon.setTimeout(SHOWING_MS)
        self._show_soon.triggered.connect(self._show_progress)
        self._list_soon = QSignalDebouncer(parent=self)
        self._list_soon.setTimeout(LISTING_MS)
        self._list_soon.triggered.connect(lambda: self.attempt(self.list_images))
        sizes = (*self.fields.voxel_size, self.fields.unit)
        for field in (self.fields.images, self.fields.folder, self.fields.files, *sizes):
            field.changed.connect(lambda: self._list_soon.throttle())
        for field in (self.fields.pattern, self.fields.format, self.fields.dtype):
            field.changed.connect(self._show_example)
        self.session.model_changed.connect(self._show_model)
        self.viewer.layers.selection.events.changed.connect(self._on_selection)
        self.fields.show_relevant()
        self._show_model()
        self._show_example()
        self._enable()

    def start(self) -> None:
        """Check the settings, then process the images in the background."""
        if self._job is not None:
            return
        choice = self.fields.choice()
        folder = choice.naming.folder
        if folder.parent.is_dir() and not folder.exists():
            folder.mkdir()
        self._list_soon.cancel()
        self._stop_listing()
        self._run = BatchRun(choice)
        self.bar.setValue(0)
        self.say("Reading the images.")
        self._job = self.run(self._run.steps, self._on_progress, self._on_ended)
        self._enable()

    def stop(self) -> None:
        """Stop at the next tile or training step; unfinished outputs are kept."""
        if self._job is not None and self._run is not None:
            self._run.stopped = True
            self.say("Stopping.")
            self._job.stop()

    def list_images(self) -> None:
        """Find the chosen images in the background, and show them."""
        if self._job is not None:
            return
        self._stop_listing()
        request, paths, assumed = self._listing, self.fields.paths(), self.fields.assumed()
        self._show_images(ImageList.of_layers(self.fields.layers()))
        if not paths:
            return

        def show(images: ImageList) -> None:
            if request == self._listing and not self.left:
                self._show_images(images)

        self._lister = self.run(lambda: ImageList.of_files(paths, assumed), show, lambda: None)

    def _stop_listing(self) -> None:
        """Ignore a listing that is still in progress."""
        self._listing += 1
        if self._lister is not None:
            self._lister.stop()

    def stop_work(self) -> None:
        """Disconnect from the viewer when the dock is closed; the session stops the job."""
        self.viewer.layers.selection.events.changed.disconnect(self._on_selection)

    def _show_model(self) -> None:
        self.fields.show_model()

    def _show_images(self, images: ImageList) -> None:
        self._images = images
        self.table.show_items(images.items)
        if not self.complaining:
            self.say(images.text)
        self._show_example()

    def _show_example(self) -> None:
        """Show the name of the first image's result."""
        self.example.setText(self.fields.example(self._images.known))

    def _on_selection(self) -> None:
        if self.fields.images.value == LAYERS:
            self._list_soon.throttle()

    def _on_progress(self, progress: BatchProgress) -> None:
        assert self._run is not None
        self._run.progress = progress
        self._show_soon.throttle()

    def _show_progress(self) -> None:
        run = self._run
        if run is None or run.progress is None or self._job is None:
            return
        self.table.show_items(run.progress.items)
        self.table.scrollToItem(self.table.item(run.progress.current, 0))
        self.bar.setValue(int(1000 * run.progress.fraction))
        if not run.stopped and not self.complaining:  # an error comes before the end
            self.say(run.text())

    def _on_ended(self) -> None:
        run, self._job = self._run, None
        if run is not None and run.items:
            self.table.show_items(run.items)
            if not self.complaining:
                if run.complete:
                    self.bar.setValue(self.bar.maximum())
                self.say(run.summary())
        self._enable()

    def _enable(self) -> None:
        idle = self._job is None
        self.buttons["start"].enabled = idle
        self.buttons["stop"].enabled = not idle
