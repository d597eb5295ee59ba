"""The SR layer of one source layer and one model, and the work that fills it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import never
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers import finest, result_transform, source_of
from napari_cropeq.gui.viewport import nearest_first, view_of
from napari_cropeq.volume.export import bulk_part, finish, output_kind
from napari_cropeq.volume.lazy import LazyView
from napari_cropeq.volume.scheduler import Done, Scheduler
from napari_cropeq.volume.store import DiskStore, MemoryStore, check_output
from napari_cropeq.volume.superres import Lead, SuperResolution, acquisition_of

__all__ = ["Result", "result_key"]

MEMORY_CAP = 2**31
DEBOUNCE_MS = 60
REFRESH_MS = 100
MAX_VISIBLE_TILES = 4096


def result_key(layer: Image, model: Model, planes: str | None, dtype: str) -> tuple[Any, ...]:
    """Return what must be equal for a result to be the one asked for: a layer that was moved has another."""
    maps = (layer.scale, layer.translate, layer.rotate, layer.shear, layer.affine.affine_matrix)
    place = np.concatenate([np.ravel(m) for m in maps]).tobytes()
    data = id(finest(layer))
    return id(layer), data, place, str(layer.units), layer.axis_labels, model.fingerprint, planes, dtype


class Result(QObject):
    """One lazy SR layer, one scheduler and one worker for a source layer and a model.

    The layer appears once the worker has built the overview; preview and volume only ask the scheduler
    for tiles, in view or all. What is computed for one is there for the other.

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
    ) -> None:
        super().__init__()
        self.viewer, self.source_layer, self.model, self.dtype = viewer, layer, model, dtype
        self.key = result_key(layer, model, planes, dtype)
        source = source_of(layer)
        self.acquisition = acquisition_of(source)
        model.check_fits(self.acquisition)
        self._transform = result_transform(layer, self.acquisition)
        self._prepare: Callable[[], SuperResolution] = lambda: SuperResolution(
            source, model, self.acquisition, planes, device, dtype
        )
        self.result: SuperResolution | None = None
        self.layer: Image | None = None
        self.memory: MemoryStore | None = None
        self.disk: DiskStore | None = None
        self.filling: MemoryStore | DiskStore | None = None  # what the last run fills
        self.scheduler: Scheduler | None = None
        self._view: LazyView | None = None
        self._part = 0.0
        self._waiting_to_run = False
        self._closed = False
        self._following = False
        self._wanted: list[Callable[[], None]] = []  # asked for before the worker was ready
        self._look_timer = self._timer(DEBOUNCE_MS, self._look)
        self._refresh_timer = self._timer(REFRESH_MS, self._refresh)
        self._job = Job(self._steps, interrupt=self._interrupt)
        self._job.progressed.connect(self._on_progress)
        self._job.failed.connect(self.failed)
        self._job.ended.connect(self.changed)
        viewer.layers.events.removed.connect(self._on_removed)
        self._job.start()

    @property
    def alive(self) -> bool:
        """Whether tiles can still be asked for."""
        return not self._closed and self._job.running

    @property
    def tiles(self) -> tuple[int, int]:
        """Finished and total tiles of the store that is being filled."""
        store = self.memory if self.filling is None else self.filling  # an empty store is false
        if store is None or self.result is None:
            return 0, 0
        return len(store), store.grid.count * len(self.result.leads)

    @property
    def fraction(self) -> float:
        """Share of the whole that is done, parts of a tile under way counted."""
        done, total = self.tiles
        return min(1.0, (done + self._part) / total) if total else 0.0

    @property
    def running_all(self) -> bool:
        """Whether a run over the whole volume is under way or about to begin."""
        return self.alive and (self._waiting_to_run or (self.scheduler is not None and self.scheduler.running_all))

    @property
    def complete(self) -> bool:
        """Whether every tile is there."""
        done, total = self.tiles
        return total > 0 and done == total

    @property
    def busy(self) -> bool:
        """Whether the scheduler has wishes left."""
        return self.alive and (self.scheduler is None or not self.scheduler.idle)

    def follow(self, on: bool = True) -> None:
        """Ask for what is in view, now and (while on) whenever the view changes."""
        scene = getattr(self.viewer, "scene", self.viewer)
        events = (scene.camera.events.center, scene.camera.events.zoom, self.viewer.dims.events)
        if on and not self._following:
            for event in events:
                event.connect(self._on_view)
        elif not on and self._following:
            for event in events:
                event.disconnect(self._on_view)
        self._following = on
        if on:
            self.look()

    def look(self) -> None:
        """Ask for the tiles that are in view now, nearest the centre first."""
        self._look_timer.start()

    def look_away(self) -> None:
        """Ask for nothing in view any more."""
        self._look_timer.stop()
        if self.scheduler is not None and self.memory is not None:
            self.scheduler.look_at(self.memory, [])

    def run_all(self, destination: Path | None = None, overwrite: bool = False) -> None:
        """Ask for every tile, into memory or an OME-Zarr at ``destination``.

        Raises
        ------
        ValueError
            If the result does not fit into memory, or the name ends in something else than ``.ome.zarr``.
        OSError
            If the destination cannot be written.
        """
        if destination is not None:
            if output_kind(destination) != ".ome.zarr":
                raise ValueError(
                    f"Got destination {destination.name!r}, expected a name ending in .ome.zarr: rename it, "
                    "or compute in memory and save as .ome.tif."
                )
            check_output(destination, overwrite)
        self._waiting_to_run = True
        self._when_ready(lambda: self._run_all(destination))

    def stop_all(self) -> None:
        """Stop asking for every tile; what is finished stays."""
        if self.scheduler is not None:
            self.scheduler.stop_all()
        self._waiting_to_run = False
        self._wanted.clear()
        self.changed.emit()

    def close(self) -> None:
        """Stop the work and let go of the viewer; the layer, if it stays, keeps what it shows."""
        if self._closed:
            return
        self.follow(False)
        self._closed = True
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for timer in (self._look_timer, self._refresh_timer):
            timer.stop()
        self._job.stop(wait=True)
        if self.disk is not None:
            self.disk.discard()
        self.changed.emit()

    def _timer(self, milliseconds: int, call: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(call)
        return timer

    # -- in the worker's thread ------------------------------------------------------------------

    def _steps(self) -> Iterator[Any]:
        result = self._prepare()
        view = LazyView(result, [])
        memory = MemoryStore(result.sr_shape, MEMORY_CAP, result.oriented(32, 64, 16))
        view.stores.append(memory)
        view.overview.build(result.leads[0])

        def compute(lead: Lead, box: Box, stop: Callable[[], bool] = never) -> npt.NDArray[Any]:
            view.overview.build(lead)
            return result.compute(lead, box, stop)

        self.scheduler = Scheduler(compute, bulk_part(result))
        self.memory, self._view, self.result = memory, view, result
        yield self
        for done in self.scheduler.run(wait=True):
            self._count(done)
            disk = self.disk
            if disk is not None and not disk.finished and len(disk) == disk.grid.count * len(result.leads):
                finish(disk, result)
                self.saved.emit(str(disk.path))
            yield done

    def _count(self, done: Done | None) -> None:
        """Note which share of the tile under way the finished parts are."""
        if done is None or self.filling is None:
            return
        size = Box.whole(self.filling.grid.tile).size
        self._part = 0.0 if done.tiles else self._part + done.box.size / size

    def _interrupt(self) -> None:
        if self.scheduler is not None:
            self.scheduler.close()

    # -- on the GUI thread -----------------------------------------------------------------------

    def _on_progress(self, done: Any) -> None:
        if self._closed:
            return
        if self.layer is None and self.result is not None:
            self._add_layer()
            for wish in self._wanted:
                wish()
            self._wanted.clear()
        elif not self._refresh_timer.isActive():
            self._refresh_timer.start()
        self.changed.emit()

    def _add_layer(self) -> None:
        assert self.result is not None and self._view is not None
        source, levels = self.source_layer, self._view.levels
        self.layer = self.viewer.add_image(
            levels if len(levels) > 1 else levels[0],
            multiscale=len(levels) > 1,
            name=f"{source.name} SR",
            contrast_limits=tuple(source.contrast_limits),
            colormap=source.colormap,
            gamma=source.gamma,
            blending=source.blending,
            cache=False,
            metadata={"napari-cropeq": self.result.describe()},
            **self._transform,
        )

    def _when_ready(self, wish: Callable[[], None]) -> None:
        if self.layer is None:
            self._wanted.append(wish)
        else:
            wish()

    def _run_all(self, destination: Path | None) -> None:
        assert self.result is not None and self.scheduler is not None and self._view is not None
        assert self.memory is not None
        self._waiting_to_run = False
        try:
            self.filling = self.memory
            if destination is None:
                self._check_memory(self.result)
                self.scheduler.run_all(self.memory, self.result.leads)
                return
            if self.disk is None or self.disk.finished or self.disk.path != destination:
                self._replace_disk(DiskStore(destination, self.result))
            assert self.disk is not None
            self.filling = self.disk
            self.scheduler.run_all(self.disk, self.result.leads)
        except (ValueError, OSError) as error:
            self.failed.emit(str(error))

    def _replace_disk(self, store: DiskStore) -> None:
        """Fill ``store`` from now on; an unfinished one before it is given up."""
        assert self._view is not None
        if self.disk is not None:
            self._view.stores.remove(self.disk)
            self.disk.discard()
        self.disk = store
        self._view.stores.insert(0, store)

    @staticmethod
    def _check_memory(result: SuperResolution) -> None:
        if result.nbytes > MEMORY_CAP:
            raise ValueError(
                f"Got a result of {result.nbytes / 1e9:.1f} GB and a memory cap of {MEMORY_CAP / 1e9:.1f} GB: "
                "choose a destination on disk."
            )

    def _look(self) -> None:
        if self._closed:
            return
        if self.layer is None or self.scheduler is None or self.memory is None:
            self._when_ready(self._look)
            return
        view = view_of(self.viewer, self.layer)
        if view is None:
            self.scheduler.look_at(self.memory, [])
            return
        indices = nearest_first(self.memory.grid, view)[:MAX_VISIBLE_TILES]
        self.scheduler.look_at(self.memory, [(view.lead, index) for index in indices])
        self.changed.emit()

    def _on_view(self, event: Any = None) -> None:
        self._look_timer.start()

    def _refresh(self) -> None:
        if self.layer is not None and not self._closed:
            self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _on_removed(self, event: Any) -> None:
        if event.value in (self.source_layer, self.layer):
            self.close()
