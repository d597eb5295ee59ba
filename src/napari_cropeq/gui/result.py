"""The super-resolution of one source layer by one model."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.super_resolution import AUTOMATIC, SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.formats.paths import check_output, output_kind
from napari_cropeq.gui.jobs import Job, sentence
from napari_cropeq.gui.layers.source import result_transform, source_key, source_of
from napari_cropeq.gui.layers.sr_layer import SRLayer
from napari_cropeq.gui.layers.view_follower import ViewFollower
from napari_cropeq.run.live import LiveWorker, RunState
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.memory import TileCache

__all__ = ["Result", "result_key"]

logger = logging.getLogger(__name__)


def result_key(layer: Image, model: Model, planes: str | None, dtype: str) -> tuple[Any, ...]:
    """Return a key that is equal for two requests of the same result."""
    return *source_key(layer), model.fingerprint, planes or AUTOMATIC, dtype


class Result(QObject):
    """A worker for a source layer and a model, and the lazy layer that it fills.

    Preview and Volume request tiles from the worker, those in view or all of them. Each uses what was computed for the
    other.

    Parameters
    ----------
    viewer : napari viewer
        Where the layer appears.
    layer : Image
        The source.
    model : Model
        Trained for its factor.
    planes : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`.
    dtype : str
        ``source`` or ``float32``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``.
    cache : TileCache, optional
        Keeps the tiles in memory, shared with other results.
    label : str
        What the model is called in the name of the layer.

    Attributes
    ----------
    layer : Image, optional
        The SR layer, which appears with its first tile or overview; None until the worker is ready.
    shown : SRLayer
        Shows the layer.
    follower : ViewFollower
        Requests the tiles in view.
    inputs : tuple of str
        The files that are read.
    live : bool
        Whether the model is still being trained.

    Raises
    ------
    ValueError
        If layer and model do not fit each other.
    """

    changed = Signal()  # new tiles, the layer was added, or the whole volume is complete
    failed = Signal(str)  # one sentence
    saved = Signal(str)  # path of a finished store

    def __init__(
        self,
        viewer: Any,
        layer: Image,
        model: Model,
        planes: str | None = None,
        dtype: str = "source",
        device: str = "auto",
        cache: TileCache | None = None,
        label: str = "",
    ) -> None:
        super().__init__()
        self.source_layer, self.dtype = layer, dtype
        self._source = source_of(layer)
        self.inputs = self._source.files
        self._settings = (acquisition_of(self._source), planes, device, dtype)
        self.layer: Image | None = None
        self.live = self._closed = False
        self._waiting: tuple[Path | None, str] | None = None  # a run requested before the worker was ready
        self.worker = LiveWorker(TileCache() if cache is None else cache, source_key(layer))
        self.shown = SRLayer(viewer, layer, result_transform(layer, self._settings[0]))
        self.follower = ViewFollower(viewer, self.shown, self.worker)
        for part in (self.shown, self.follower):
            part.setParent(self)
        self.follower.looked.connect(self.changed)
        self.shown.box_removed.connect(self.follower.stop)
        self.shown.removed.connect(self.close)
        self.use(model, label)
        self._job = Job(self.worker.steps, interrupt=self.worker.close)
        self._job.progressed.connect(self._on_progress)
        self._job.failed.connect(self.failed)
        self._job.ended.connect(self.changed)
        logger.info("Super-resolving layer %r on device %s", layer.name, device)
        self._job.start()

    def use(self, model: Model, label: str = "") -> None:
        """Use another model from now on, in the same layer; old tiles are shown until the new ones are computed.

        Parameters
        ----------
        model : Model
            Trained for the same factor.
        label : str
            What it is called in the name of the layer; as before if empty.

        Raises
        ------
        ValueError
            If layer and model do not fit each other.
        """
        acquisition, planes, *_ = self._settings
        model.check_fits(acquisition)
        if label:
            self.shown.name_after(label)
        self.model, self.fingerprint = model, model.fingerprint
        self.key = result_key(self.source_layer, model, planes, self.dtype)
        self.worker.use(lambda: SuperResolution(self._source, model, *self._settings, parallel=False), self.key)

    @property
    def result(self) -> SuperResolution | None:
        """The object that computes tiles; None until the worker is ready."""
        return self.worker.result

    @property
    def state(self) -> RunState:
        """The current state of the worker."""
        return self.worker.state

    @property
    def alive(self) -> bool:
        """Whether tiles can still be requested."""
        return not self._closed and self._job.running

    @property
    def running_all(self) -> bool:
        """Whether a run over the whole volume is in progress or about to start."""
        return self.alive and (self._waiting is not None or self.state.running)

    @property
    def busy(self) -> bool:
        """Whether anything requested is not done yet."""
        return self.alive and (self.follower.due or self._waiting is not None or self.state.busy)

    @property
    def looking(self) -> bool:
        """Whether tiles in view are still missing."""
        return self.alive and (self.follower.due or self.state.looking)

    def run_all(self, destination: Path | None = None, existing: str = "refuse") -> None:
        """Request every tile, into memory or into an OME-Zarr at ``destination``.

        Parameters
        ----------
        destination : path, optional
            Ends in ``.ome.zarr``.
        existing : str
            What to do about an existing or an unfinished output: ``refuse``, ``resume`` or ``overwrite``.

        Raises
        ------
        ArgumentError
            If the name does not end in ``.ome.zarr``.
        OSError
            If the destination cannot be written.
        """
        if destination is not None:
            if output_kind(destination) != ".ome.zarr":
                raise ArgumentError(
                    f"Start writes OME-Zarr only, but the destination {destination.name!r} does not end in .ome.zarr.",
                    "Rename it, or press Save, which computes the missing tiles and writes the file.",
                )
            check_output(destination, existing, self.inputs)
        self._waiting = (destination, existing)
        if self.result is not None:
            self._start_run(self.result)

    def compare(self, on: bool) -> Image | None:
        """Return a layer of the interpolation in the same place if ``on``; it is interpolated where the user looks.

        There is none once the work has ended, since nothing would be interpolated in another view.
        """
        on = on and not self._closed
        if on != self.worker.in_view.compared:
            self.worker.compare(on)
        return self.shown.compare(self.worker.in_view.interpolated) if on else None

    def stop_all(self) -> None:
        """Request only the tiles in view from now on; finished tiles stay."""
        self.worker.stop_all()
        self._waiting = None
        self._emit_changed()

    def close(self) -> None:
        """Stop the work and disconnect from the viewer; the layer, if it stays, keeps what it shows."""
        if self._closed:
            return
        self._closed = True
        self.follower.close()
        self.shown.close()
        self._job.stop(wait=True)
        with contextlib.suppress(RuntimeError):  # the window was deleted before its viewer
            self.changed.emit()
            self.deleteLater()

    def _emit_changed(self) -> None:
        """Emit the signal, unless the window was deleted before its viewer."""
        with contextlib.suppress(RuntimeError):
            self.changed.emit()

    def _on_progress(self, state: RunState) -> None:
        """Show the progress of the worker."""
        if self._closed:
            return
        result, lazy = self.worker.result, self.worker.in_view.lazy
        if self.layer is None and result is not None and lazy is not None:
            self.layer = self.shown.make(lazy, result.describe())
            if self.follower.following or self.follower.due:
                self.follower.look_now()
            self._start_run(result)
        self.shown.show(state)
        while self.worker.failures:
            self.failed.emit(sentence(self.worker.failures.popleft().error))
        while self.worker.saved:
            self.saved.emit(str(self.worker.saved.popleft()))
        self._emit_changed()

    def _start_run(self, result: SuperResolution) -> None:
        """Start the run over the volume that was requested, if any."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        destination, existing = waiting
        try:
            if destination is None:
                self.worker.run_all()
            else:
                self.worker.run_all(lambda: DiskStore(destination, store_spec(result), existing=existing))
        except (ValueError, OSError) as error:
            self.failed.emit(sentence(error))
