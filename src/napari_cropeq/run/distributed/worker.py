"""What a worker of a cluster does: it computes tiles with one model that it keeps, and writes them itself."""

from __future__ import annotations

import json
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
from napari_cropeq.errors import StoppedError
from napari_cropeq.formats.image import open_source
from napari_cropeq.formats.paths import FOLDER
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.folder import MODEL
from napari_cropeq.store.journal import Record, differences
from napari_cropeq.store.lock import WriteToken
from napari_cropeq.store.memory import TileCache
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.shards import Shards

__all__ = ["Outcome", "Work", "check_source", "compute"]

ASK_SECONDS = 0.5  # how often the network asks whether the run is still on


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a group of tiles."""

    records: tuple[Record, ...] = ()
    failure: Exception | None = None  # the source could not be read


@dataclass(frozen=True, slots=True)
class Work:
    """All that a worker needs to compute and write tiles of a store."""

    source: str  # path
    folder: str  # of the unfinished store, which holds the model
    acquisition: Acquisition
    planes: str
    device: str
    dtype: str
    fingerprint: str  # JSON
    token: str  # under which it may be written

    @classmethod
    def of(cls, store: DiskStore, result: SuperResolution) -> Work:
        """Return the work on a store that this process holds, under a token that is granted now.

        Raises
        ------
        ValueError
            If the source is no file that a worker could open.
        """
        path = check_source(result)
        planes = "both" if len(result.planes) > 1 else "zyx"[result.planes[0]]
        dtype = "source" if result.dtype == result.source.data.dtype else str(result.dtype)
        return cls(
            source=str(Path(path).absolute()),
            folder=str(store.folder.partial.absolute()),
            acquisition=result.acquisition,
            planes=planes,
            device=result.exactness.device,
            dtype=dtype,
            fingerprint=json.dumps(store.fingerprint),
            token=store.folder.token.grant(),
        )


def check_source(result: SuperResolution) -> str:
    """Return the path of the source, which workers open themselves.

    Raises
    ------
    ValueError
        If it is in this process's memory.
    """
    if result.source.path is None:
        raise ValueError(
            f"Got {result.source.name}, which is in this process's memory, expected a file that the workers of a "
            "cluster can open: save it first, or compute it without a cluster."
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
    """Says whether work has been called off, looking on the disk now and then."""

    def __init__(self, token: WriteToken) -> None:
        self._token, self._asked, self._stopped = token, time.monotonic(), False

    def __call__(self) -> bool:
        if not self._stopped and time.monotonic() - self._asked > ASK_SECONDS:
            self._stopped, self._asked = not self._token.valid, time.monotonic()
        return self._stopped


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the client, which ends the workers it has started; distributed calls this in each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# One group at a time is computed in a process, by all threads the worker may use, while others are being written.
_computing = threading.Lock()
_kept: tuple[Work, SuperResolution, Shards] | None = None


def compute(work: Work, group: Group) -> Outcome:
    """Compute and write a group of tiles; the client claims them.

    Parameters
    ----------
    work : Work
        The same for all groups of a store: what is made of it is kept in the process.
    group : Group
        Tiles of one lead, in SR voxels (z, y, x).

    Raises
    ------
    StoppedError
        If the run that asked for it is over.
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
    """Return what computes and what writes, made once for all groups of a store."""
    global _kept
    if _kept is None or _kept[0] != work:
        _kept = None  # one model a worker
        try:
            result = retried(lambda: _result(work), stop)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"Got the worker {_name()}, which cannot work on {work.source} ({error}), expected it to see the same "
                "files as this process: share their folder, and resume."
            ) from None
        started: Mapping[str, Any] = json.loads(work.fingerprint)
        now = json.loads(json.dumps(fingerprint_of(result))) | {"tile grid": started["tile grid"]}
        found = list(differences(started, now))
        if found:
            raise ValueError(
                f"Got the worker {_name()}, which has another {'; another '.join(found)}, expected what gives the same "
                "bits: take it out of the cluster, and resume."
            )
        _kept = work, result, Shards(Path(work.folder), 0, TileCache(0))
    return _kept[1], _kept[2]


def _result(work: Work) -> SuperResolution:
    model = Model.load(Path(work.folder) / FOLDER / MODEL)
    source = open_source(work.source)
    return SuperResolution(source, model, work.acquisition, work.planes, work.device, work.dtype)


def _threads() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def _name() -> str:
    from distributed import get_worker

    worker = get_worker()
    return f"{worker.name} at {worker.address}" if str(worker.name) != worker.address else worker.address


def _plain(error: Exception) -> Exception:
    """Return an error as one that can be sent."""
    kind = ValueError if isinstance(error, ValueError) else OSError
    return kind(str(error) or type(error).__name__)
