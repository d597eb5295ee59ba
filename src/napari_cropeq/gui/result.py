"""The SR layer of one source layer and one model, and the work that fills it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.formats.paths import check_output, output_kind
from napari_cropeq.gui.jobs import Job, sentence
from napari_cropeq.gui.layers.box_layer import BoxLayer
from napari_cropeq.gui.layers.source import appearance, result_transform, source_key, source_of
from napari_cropeq.gui.layers.viewport import box_view, view_of, view_signals
from napari_cropeq.run.live import LiveWorker, RunState
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.memory import TileCache
from napari_cropeq.view.view import View

__all__ = ["Result", "result_key"]

DEBOUNCE_MS = 50
FIRST_MS, REFRESH_MS = 15, 250  # the first tile of a view at once, the others a few times a second
BOX = 128
COVERING = ("opaque", "translucent", "translucent_no_depth")


def result_key(layer: Image, model: Model, planes: str | None, dtype: str) -> tuple[Any, ...]:
    """Return what must be equal for a result to be the one asked for."""
    return *source_key(layer), model.fingerprint, planes, dtype


class Result(QObject):
    """One lazy SR layer and one worker for a source layer and a model.

    The layer appears with its first tile or overview; preview and volume only ask the worker for tiles, in view or
    all. What is computed for one is there for the other.

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
        self.viewer, self.source_layer, self.dtype = viewer, layer, dtype
        self._source, self._planes, self._device = source_of(layer), planes, device
        self.acquisition = acquisition_of(self._source)
        self._transform = result_transform(layer, self.acquisition)
        self.layer: Image | None = None
        self.box: BoxLayer | None = None
        self.box_size, self.box_region = BOX, _nowhere
        self.view: View | None = None  # what was looked at last
        self.superseded: list[Image] = []  # SR layers of other models, hidden once this one is shown
        self.hid_source = False
        self.live = False  # whether its model is one of a training under way
        self._waiting_to_run = self._closed = self._following = False
        self._wanted: list[Callable[[], None]] = []  # asked for before the worker was ready
        self._shown = 0  # which of the worker's changes
        self._look_timer = self._timer(DEBOUNCE_MS, self._look)
        self._refresh_timer = self._timer(FIRST_MS, self._refresh)
        self.worker = LiveWorker(TileCache() if cache is None else cache, source_key(layer))
        self.use(model)
        self._job = Job(self.worker.steps, interrupt=self.worker.close)
        self._job.progressed.connect(self._on_progress)
        self._job.failed.connect(self.failed)
        self._job.ended.connect(self.changed)
        viewer.layers.events.removed.connect(self._on_removed)
        self._job.start()

    def use(self, model: Model) -> None:
        """Use another model from now on, in the same layer; its old tiles are shown until the new ones are there.

        Raises
        ------
        ValueError
            If layer and model do not fit each other.
        """
        model.check_fits(self.acquisition)
        self.model = model
        self.key = result_key(self.source_layer, model, self._planes, self.dtype)
        settings = (self.acquisition, self._planes, self._device, self.dtype)
        self.worker.use(lambda: SuperResolution(self._source, model, *settings, crew=False), self.key)

    @property
    def result(self) -> SuperResolution | None:
        """What computes tiles; None until the worker is ready."""
        return self.worker.result

    @property
    def inputs(self) -> list[str]:
        """The files that are read."""
        return [] if self._source.path is None else [self._source.path]

    @property
    def alive(self) -> bool:
        """Whether tiles can still be asked for."""
        return not self._closed and self._job.running

    @property
    def following(self) -> bool:
        """Whether the view is followed."""
        return self._following

    @property
    def state(self) -> RunState:
        """Where the worker stands now."""
        return self.worker.state

    @property
    def running_all(self) -> bool:
        """Whether a run over the whole volume is under way or about to begin."""
        return self.alive and (self._waiting_to_run or self.state.running)

    @property
    def complete(self) -> bool:
        """Whether every tile of the last run over the volume is there."""
        return self.state.complete

    @property
    def busy(self) -> bool:
        """Whether the worker has wishes left."""
        return self.alive and (self._look_timer.isActive() or bool(self._wanted) or self.state.busy)

    @property
    def looking(self) -> bool:
        """Whether tiles in view are still to come."""
        return self.alive and (self._look_timer.isActive() or self.state.looking)

    def follow(self, on: bool = True) -> None:
        """Ask for what is in view, now and (while on) whenever the view changes."""
        if on != self._following:
            for signal in view_signals(self.viewer):
                (signal.connect if on else signal.disconnect)(self._on_view)
        self._following = on
        if on:
            self.look()

    def look(self) -> None:
        """Ask for the tiles that are in view now, nearest the centre first."""
        self._look_timer.start()

    def look_away(self) -> None:
        """Ask for nothing in view any more."""
        self._look_timer.stop()
        self.worker.look(None)

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
        self._waiting_to_run = True
        if self.result is None:
            self._wanted.append(lambda: self._run_all(destination, existing))
        else:
            self._run_all(destination, existing)

    def pause_all(self, paused: bool = True) -> None:
        """Hold the run over the whole volume, or let it go on."""
        self.worker.pause_all(paused)
        self._tell()

    def stop_all(self) -> None:
        """Stop asking for every tile; what is finished stays."""
        self.worker.stop_all()
        self._waiting_to_run = False
        self._wanted.clear()
        self._tell()

    def close(self) -> None:
        """Stop the work and let go of the viewer; the layer, if it stays, keeps what it shows."""
        if self._closed:
            return
        self.follow(False)
        self._closed = True
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        with contextlib.suppress(RuntimeError):  # Qt may have been torn down before Python
            for timer in (self._look_timer, self._refresh_timer):
                timer.stop()
        if self.box is not None:
            self.box.hide()
        self._job.stop(wait=True)
        self._tell()

    def _tell(self) -> None:
        """Say that something has changed, unless the window has gone before its viewer."""
        with contextlib.suppress(RuntimeError):
            self.changed.emit()

    def _timer(self, milliseconds: int, call: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(call)
        return timer

    def _on_progress(self, _: Any) -> None:
        """Show where the worker stands; what happens in quick succession is told once."""
        if self._closed:
            return
        worker = self.worker
        if self.layer is None and worker.result is not None:
            self._make_layer()
        if self.layer is not None and self.layer not in self.viewer.layers and worker.state.shown:
            self._add_layer(self.layer)
        elif worker.state.changes != self._shown and not self._refresh_timer.isActive():
            self._refresh_timer.start()
        while worker.failures:
            self.failed.emit(sentence(worker.failures.popleft().error))
        while worker.saved:
            self.saved.emit(str(worker.saved.popleft()))
        self._tell()

    def _add_layer(self, layer: Image) -> None:
        """Show the SR; a source that would shine through it, and double its intensities, is hidden."""
        self.viewer.add_layer(layer)
        for other in self.superseded:
            other.visible = False
        if self.source_layer.blending not in COVERING and self.source_layer.visible:
            self.source_layer.visible = False
            self.hid_source = True

    def _make_layer(self) -> None:
        """Make the layer, which is added once there is something to see, and ask for what was wished meanwhile."""
        lazy = self.worker.in_view.lazy
        assert self.worker.result is not None and lazy is not None
        source, levels = self.source_layer, lazy.levels
        self.layer = Image(
            levels if len(levels) > 1 else levels[0],
            multiscale=len(levels) > 1,
            name=f"{source.name} SR",
            cache=False,
            metadata={"napari-cropeq": self.worker.result.describe()},
            **appearance(source),
            **self._transform,
        )
        if self._following or self._look_timer.isActive():
            self._look()
        for wish in self._wanted:
            wish()
        self._wanted.clear()

    def _run_all(self, destination: Path | None, existing: str) -> None:
        result = self.worker.result
        assert result is not None
        self._waiting_to_run = False
        try:
            if destination is None:
                self.worker.run_all()
            else:
                self.worker.run_all(lambda: DiskStore(destination, store_spec(result), existing=existing))
        except (ValueError, OSError) as error:
            self.failed.emit(sentence(error))

    def _look(self) -> None:
        if self._closed or self.layer is None:
            return
        if self.viewer.dims.ndisplay == 3:
            self.view = box_view(self.viewer, self.layer, self.box_size, self.box_region())
        else:
            self.view = view_of(self.viewer, self.layer)
        self._show_box()
        self.worker.look(self.view)
        self._refresh_timer.setInterval(FIRST_MS)
        self._tell()

    def _show_box(self) -> None:
        """Show a 3D view as a box of its own."""
        if self.view is not None and self.view.across is None and self.viewer.dims.ndisplay == 3:
            lazy = self.worker.in_view.lazy
            assert self.layer is not None and lazy is not None
            self.box = self.box or BoxLayer(self.viewer, self.layer, lazy)
            self.box.show(self.view)
        elif self.box is not None:
            self.box.hide()

    def _on_view(self, event: Any = None) -> None:
        self._look_timer.start()

    def _refresh(self) -> None:
        """Read the layers anew; a display that takes long is left more time in between."""
        if self.layer is None or self._closed:
            return
        begun, self._shown = time.perf_counter(), self.state.changes
        for layer in (self.layer, None if self.box is None else self.box.layer):
            if layer is not None and layer.visible:
                layer.refresh(extent=False, thumbnail=False, highlight=False)
        self._refresh_timer.setInterval(max(REFRESH_MS, round(4000 * (time.perf_counter() - begun))))

    def _on_removed(self, event: Any) -> None:
        if self.box is not None and event.value is self.box.layer:
            self.box.hide()
            self.follow(False)
            self.look_away()
        if event.value not in (self.source_layer, self.layer):
            return
        if event.value is self.layer and self.hid_source:
            self.source_layer.visible = True
        self.close()


def _nowhere() -> None:
    """Say that no region is chosen."""
