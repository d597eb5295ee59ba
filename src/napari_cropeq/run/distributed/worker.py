"""The task of a worker of a cluster: compute tiles with a model that stays in memory, and write them."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_cropeq.compute.fill import Failed, Group, TileFiller, retried
from napari_cropeq.compute.fingerprint import fingerprint_of
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.host import torch_threads
from napari_cropeq.core.model import Model
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.errors import ArgumentError, CropeqError, ImageError, MismatchError, StoppedError
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import FOLDER
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.folder import MODEL
from napari_cropeq.store.journal import Record, differences
from napari_cropeq.store.lock import WriteToken
from napari_cropeq.store.memory import TileCache
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.shards import Shards

__all__ = ["Outcome", "Work", "check_source", "compute"]

ASK_SECONDS = 0.5  # between checks whether the run has been stopped

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a task: what was written, or why not."""

    records: tuple[Record, ...] = ()
    failure: Exception | None = None  # the source could not be read


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that a worker needs to compute and write tiles of a store."""

    source: str  # path
    folder: str  # of the unfinished store, which contains the model
    acquisition: Acquisition
    planes: str
    device: str
    dtype: str
    fingerprint: str  # JSON
    token: str  # the write token
    missing: float | None = None  # what planes that the source lacks are read as
    scene: str | None = None  # which image of a file with several is read

    @classmethod
    def of(cls, store: DiskStore, result: SuperResolution) -> Work:
        """Return the work on a store that is open in this process, with a new write token.

        Raises
        ------
        ArgumentError
            If the source is not a file, so that workers cannot open it.
        """
        path = check_source(result)
        planes = "both" if len(result.planes) > 1 else "zyx"[result.planes[0]]
        dtype = "source" if result.dtype == result.source.data.dtype else str(result.dtype)
        return cls(
            source=path,
            folder=str(store.folder.partial.absolute()),
            acquisition=result.acquisition,
            planes=planes,
            device=result.exactness.device,
            dtype=dtype,
            fingerprint=json.dumps(store.fingerprint),
            token=store.folder.token.grant(),
            missing=result.source.missing,
            scene=result.source.scene or None,
        )


def check_source(result: SuperResolution) -> str:
    """Return the path of the source, which workers open themselves.

    Raises
    ------
    ArgumentError
        If it is in the memory of this process.
    """
    if result.source.path is None:
        raise ArgumentError(
            f"{result.source.name} is in the memory of this process, where the workers of a cluster cannot read it.",
            "Save it as a file first, or compute it without a cluster.",
            setting="cluster",
        )
    return result.source.path


class _Computed:
    """The tiles of one group, until they are written."""

    def __init__(self, grid: TileGrid) -> None:
        self.grid = grid
        self.voxels: dict[Tile, npt.NDArray[Any]] = {}

    def __contains__(self, tile: Tile) -> bool:
        return tile in self.voxels

    def __len__(self) -> int:
        return len(self.voxels)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.voxels)

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        return None

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        self.voxels[tile] = voxels

    def flush(self) -> None:
        pass


class _Asker:
    """Returns whether the run has been stopped; it reads the disk now and then."""

    def __init__(self, token: WriteToken) -> None:
        self._token, self._asked, self._stopped = token, time.monotonic(), False

    def __call__(self) -> bool:
        if not self._stopped and time.monotonic() - self._asked > ASK_SECONDS:
            self._stopped, self._asked = not self._token.valid, time.monotonic()
        return self._stopped


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C: the client ends the workers that it has started. distributed calls this in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# A process computes one group at a time, with all threads of the worker, while others are being written.
_computing = threading.Lock()
_kept: tuple[Work, SuperResolution, Shards] | None = None


def compute(work: Work, group: Group) -> Outcome:
    """Compute and write a group of tiles; the client records them.

    Parameters
    ----------
    work : Work
        The same for all groups of a store, so that its model is loaded once per process.
    group : Group
        Tiles of one leading index, in SR voxels (z, y, x).

    Raises
    ------
    StoppedError
        If the run that submitted it is over.
    ValueError
        If this worker would compute other bits, or cannot open the source.
    OSError
        If the store cannot be written.
    """
    token = WriteToken(Path(work.folder), work.token)
    stop = _Asker(token)
    with _computing:
        if not token.valid:
            raise StoppedError
        with torch_threads(_threads()):
            result, shards = _prepared(work, stop)
            computed = _Computed(shards.grid)
            with closing(TileSource(result, side_by_side=1)) as source:
                for event in TileFiller(computed, source).fill([group], stop, lambda: 0):
                    if isinstance(event, Failed):
                        return Outcome(failure=_plain(event.error))
    with token.writing():
        return Outcome(tuple(shards.write(tile, voxels) for tile, voxels in computed.voxels.items()))


def _prepared(work: Work, stop: _Asker) -> tuple[SuperResolution, Shards]:
    """Return the super-resolution and the shards to write to, made once for all groups of a store."""
    global _kept
    if _kept is None or _kept[0] != work:
        _kept = None  # one model a worker
        try:
            result = retried(lambda: _result(work), stop)
        except (OSError, ValueError) as error:
            problem = error.problem if isinstance(error, CropeqError) else str(error)
            raise ImageError(
                f"The worker {_name()} cannot open {work.source}: {problem.rstrip('.')}.",
                "Share the folder of the files, so that workers see them under the same path, then resume.",
                setting="cluster",
            ) from None
        logger.info("the worker computes %s, %s", work.source, result.exactness)
        started: Mapping[str, Any] = json.loads(work.fingerprint)
        now = json.loads(json.dumps(fingerprint_of(result))) | {"tile grid": started["tile grid"]}
        found = list(differences(started, now))
        if found:
            raise MismatchError(
                f"The worker {_name()} would not compute the same bits: it differs in {'; in '.join(found)}.",
                "Remove it from the cluster, then resume.",
                setting="cluster",
            )
        _kept = work, result, Shards(Path(work.folder), 0, TileCache(0))
    return _kept[1], _kept[2]


def _result(work: Work) -> SuperResolution:
    model = Model.load(Path(work.folder) / FOLDER / MODEL)
    source = open_image(work.source, work.missing, work.scene)
    return SuperResolution(source, model, work.acquisition, work.planes, work.device, work.dtype)


def _threads() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def _name() -> str:
    from distributed import get_worker

    worker = get_worker()
    return f"{worker.name} at {worker.address}" if str(worker.name) != worker.address else worker.address


def _plain(error: Exception) -> Exception:
    """Return a copy of an error that can be pickled: without its cause and traceback."""
    if isinstance(error, CropeqError):
        return type(error)(error.problem, error.remedy, setting=error.setting)
    kind = next((kind for kind in (ValueError, MemoryError) if isinstance(error, kind)), OSError)
    return kind(str(error) or type(error).__name__)
