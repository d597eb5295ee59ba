"""One source layer, one model, and the work that super-resolves the layer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.model import Model
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


def result_key(layer: Image, model: Model, planes: str | None, dtype: str) -> tuple[Any, ...]:
    """Return what must be equal for a result to be the one asked for."""
    return *source_key(layer), model.fingerprint, planes, dtype


class Result(QObject):
    """One worker for a source layer and a model, and the lazy layer that it fills.

    Preview and volume only ask the worker for tiles, in view or all. What is computed for one is there for the other.

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
        ``auto``, ``cpu`` or ``cuda``.
    cache : TileCache, optional
        Where tiles are held, shared with other results.

    Attributes
    ----------
    layer : Image, optional
        The SR layer, which appears with its first tile or overview; None until the worker is ready.
    shown : SRLayer
        Shows it.
    follower : ViewFollower
        What of it is looked at.
    inputs : tuple of str
        The files that are read.
    live : bool
        Whether the model is one of a training under way.

    Raises
    ------
    ValueError
        If layer and model do not fit each other.
    """

    changed = Signal()  # tiles, the layer, or the whole volume finished
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
    ) -> None:
        super().__init__()
        self.source_layer, self.dtype = layer, dtype
        self._source = source_of(layer)
        self.inputs = self._source.files
        self._settings = (acquisition_of(self._source), planes, device, dtype)
        self.layer: Image | None = None
        self.live = self._closed = False
        self._waiting: tuple[Path | None, str] | None = None  # a run that was asked for before the worker was ready
        self.worker = LiveWorker(TileCache() if cache is None else cache, source_key(layer))
        self.shown = SRLayer(viewer, layer, result_transform(layer, self._settings[0]))
        self.follower = ViewFollower(viewer, self.shown, self.worker)
        self.follower.looked.connect(self.changed)
        self.shown.box_removed.connect(self.follower.stop)
        self.shown.removed.connect(self.close)
        self.use(model)
        self._job = Job(self.worker.steps, interrupt=self.worker.close)
        self._job.progressed.connect(self._on_progress)
        self._job.failed.connect(self.failed)
        self._job.ended.connect(self.changed)
        self._job.start()

    def use(self, model: Model) -> None:
        """Use another model from now on, in the same layer; its old tiles are shown until the new ones are there.

        Raises
        ------
        ValueError
            If layer and model do not fit each other.
        """
        acquisition, planes, *_ = self._settings
        model.check_fits(acquisition)
        self.model, self.key = model, result_key(self.source_layer, model, planes, self.dtype)
        self.worker.use(lambda: SuperResolution(self._source, model, *self._settings, parallel=False), self.key)

    @property
    def result(self) -> SuperResolution | None:
        """What computes tiles; None until the worker is ready."""
        return self.worker.result

    @property
    def state(self) -> RunState:
        """Where the worker stands now."""
        return self.worker.state

    @property
    def alive(self) -> bool:
        """Whether tiles can still be asked for."""
        return not self._closed and self._job.running

    @property
    def running_all(self) -> bool:
        """Whether a run over the whole volume is under way or about to begin."""
        return self.alive and (self._waiting is not None or self.state.running)

    @property
    def busy(self) -> bool:
        """Whether anything that was asked for is not done yet."""
        return self.alive and (self.follower.due or self._waiting is not None or self.state.busy)

    @property
    def looking(self) -> bool:
        """Whether tiles in view are still to come."""
        return self.alive and (self.follower.due or self.state.looking)

    def run_all(self, destination: Path | None = None, existing: str = "refuse") -> None:
        """Ask for every tile, into memory or an OME-Zarr at ``destination``.

        Parameters
        ----------
        destination : path, optional
            Ends in ``.ome.zarr``.
        existing : str
            What to do about an output, or an unfinished one, that is there: ``refuse``, ``resume`` or ``overwrite``.

        Raises
        ------
        ValueError
            If the name ends in something else than ``.ome.zarr``.
        OSError
            If the destination cannot be written.
        """
        if destination is not None:
            if output_kind(destination) != ".ome.zarr":
                raise ValueError(
                    f"Got destination {destination.name!r}, expected a name ending in .ome.zarr: rename it, "
                    "or press Save, which computes what is missing and writes it."
                )
            check_output(destination, existing, self.inputs)
        self._waiting = (destination, existing)
        if self.result is not None:
            self._begin_run(self.result)

    def stop_all(self) -> None:
        """Stop asking for every tile; what is finished stays."""
        self.worker.stop_all()
        self._waiting = None
        self._tell()

    def close(self) -> None:
        """Stop the work and let go of the viewer; the layer, if it stays, keeps what it shows."""
        if self._closed:
            return
        self._closed = True
        self.follower.close()
        self.shown.close()
        self._job.stop(wait=True)
        self._tell()

    def _tell(self) -> None:
        """Say that something has changed, unless the window has gone before its viewer."""
        with contextlib.suppress(RuntimeError):
            self.changed.emit()

    def _on_progress(self, state: RunState) -> None:
        """Show where the worker stands."""
        if self._closed:
            return
        result, lazy = self.worker.result, self.worker.in_view.lazy
        if self.layer is None and result is not None and lazy is not None:
            self.layer = self.shown.make(lazy, result.describe())
            if self.follower.following or self.follower.due:
                self.follower.look_now()
            self._begin_run(result)
        self.shown.show(state)
        while self.worker.failures:
            self.failed.emit(sentence(self.worker.failures.popleft().error))
        while self.worker.saved:
            self.saved.emit(str(self.worker.saved.popleft()))
        self._tell()

    def _begin_run(self, result: SuperResolution) -> None:
        """Begin the run over the volume that was asked for, if any."""
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
