"""Whole volumes into files: the same tiles as the preview, run to the end, and gone on with after whatever happened."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from napari_cropeq.compute.fill import Event, Failed, Filled, TileFiller
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.scheduler import Scheduler
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.errors import CompletedMeanwhileError
from napari_cropeq.formats.ome_tiff import write_ome_tiff
from napari_cropeq.formats.paths import FOLDER, check_output, old_of, output_kind, remove, replace_folder
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.distributed.run import spread
from napari_cropeq.run.distributed.worker import check_source
from napari_cropeq.run.partition import Partition
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.disk_errors import disk_errors
from napari_cropeq.store.folder import sweep, unfinished
from napari_cropeq.store.protocol import TileStore

__all__ = ["ExportProgress", "complete", "export", "failure_of", "mended"]


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """Where an export stands."""

    stage: str  # "tiles", "saving", or "shared": this process's part is done, and others are at work
    done: int  # tiles
    total: int  # tiles
    seconds: float
    started: int = 0  # tiles that an earlier run had done
    damaged: int = 0  # shards of an earlier run that were damaged since, and are made anew

    @property
    def seconds_left(self) -> float:
        """Estimated time until all tiles are done, s."""
        gained = self.done - self.started
        return self.seconds * (self.total - self.done) / gained if gained > 0 else float("inf")

    @property
    def rate(self) -> float:
        """Tiles a second, of this run."""
        return (self.done - self.started) / self.seconds if self.seconds > 0 else 0.0


def export(
    result: SuperResolution,
    path: str | Path,
    tile: int | None = None,
    existing: str = "refuse",
    computed: Sequence[TileStore] = (),
    part_of: tuple[int, int] = (0, 1),
    cluster: Cluster | None = None,
) -> Iterator[ExportProgress]:
    """Compute a whole volume into an OME-Zarr or OME-TIFF, yielding after every part.

    Nothing bears the final name before it is complete. What was begun stays beside it, as ``NAME.partial.ome.zarr``,
    when the generator is closed or fails or the process is killed, and ``existing="resume"`` goes on from it.

    Parameters
    ----------
    result : SuperResolution
        Source and model.
    path : path
        Ends in ``.ome.zarr`` or ``.ome.tif``.
    tile : int, optional
        Side of a tile in SR voxels, instead of 128 x 256 x 256.
    existing : str
        What to do about an output, or an unfinished one, that stands there: ``refuse``, ``resume`` (a complete one is
        left as it is) or ``overwrite`` (replaced once the new one is complete).
    computed : sequence of TileStore
        Where tiles are finished already and need no network.
    part_of : (int, int)
        Which of how many processes that share the work this one is, from 0; the last one completes the output.
    cluster : Cluster, optional
        Whose workers compute; they must see source and output under the same paths. ``computed`` is not asked then.

    Raises
    ------
    FileExistsError, OSError
        If the output cannot be written, or tiles of the source not read.
    ValueError
        If the name's suffix is unknown, the source holds NaN or lies where it would be removed, or an unfinished store
        was begun with something else.
    """
    path, partition = Path(path), Partition(*part_of)
    check_options(tile, existing, partition, cluster)
    if cluster is not None:
        check_source(result)
    store = _store(path, result, tile, existing, partition)
    if store is None:
        yield ExportProgress("saving", 1, 1, 0.0, 1)
        return
    try:
        with closing(_events(store, result, computed, partition, cluster)) as events:
            yield from _tiles(store, partition, events, result.source.axes)
        total = partition.number_of(store)
        if not store.has_all():
            yield ExportProgress("shared", total, total, 0.0)
            return
        yield ExportProgress("saving", total, total, 0.0)
        complete(store, result)
    finally:
        store.release()


def _store(
    path: Path, result: SuperResolution, tile: int | None, existing: str, partition: Partition
) -> DiskStore | None:
    """Return the store to fill, None where the output is complete already, or is so now."""
    check_output(path, "resume" if partition.count > 1 else existing, result.source.files)
    if existing != "overwrite" and path.exists() and unfinished(path) is None:
        sweep(path)
        return None
    try:
        return DiskStore(path, store_spec(result), tile, existing, (partition.number, partition.count))
    except CompletedMeanwhileError:
        return None


def check_options(tile: int | None, existing: str, partition: Partition, cluster: Cluster | None) -> None:
    """Raise ValueError for options of :func:`export` that do not go together."""
    if tile is not None and tile < 8:
        raise ValueError(f"Got tiles of {tile} voxels, expected at least 8: choose larger ones.")
    if existing == "overwrite" and partition.count > 1:
        raise ValueError(
            "Got --overwrite for work that is shared, expected --resume or nothing: remove the old output."
        )
    if cluster is not None and partition.count > 1:
        raise ValueError("Got a cluster and --shard-id, expected one of the two: a scheduler shares the work.")


def _events(
    store: DiskStore,
    result: SuperResolution,
    computed: Sequence[TileStore],
    partition: Partition,
    cluster: Cluster | None,
) -> Generator[Event | None, None, None]:
    """Have the missing tiles computed here or by a cluster, and yield what happens."""
    if cluster is not None:
        yield from spread(store, result, cluster)
        return
    scheduler = Scheduler()
    scheduler.fill(TileFiller(store, TileSource(result, lambda: computed), partition.holds(store)))
    yield from scheduler.run()


def _tiles(
    store: DiskStore, partition: Partition, events: Iterator[Event | None], axes: str
) -> Iterator[ExportProgress]:
    start, total, started = time.monotonic(), partition.number_of(store), partition.done_of(store)
    damaged = len(store.damaged)
    yield ExportProgress("tiles", started, total, 0.0, started, damaged)
    for event in events:
        if isinstance(event, Failed) and event.bulk:
            raise event.error
        if isinstance(event, Filled) and event.failures:
            raise failure_of(event.failures, axes) from event.failures[0].error
        yield ExportProgress("tiles", partition.done_of(store), total, time.monotonic() - start, started, damaged)


def complete(store: DiskStore, result: SuperResolution) -> None:
    """Make the output of a store whose tiles are all there.

    Raises
    ------
    ValueError
        If tiles are missing.
    FileExistsError
        If something stands there that was not to be replaced.
    OSError
        If the output cannot be written.
    """
    if output_kind(store.folder.path) == ".ome.zarr":
        store.finish()
        return
    store.complete_levels()
    folder = store.folder
    partial = folder.partial / FOLDER / folder.path.name  # what is in there is ours
    try:
        with disk_errors(folder.partial.name):
            write_ome_tiff(store.levels[0].array, partial, result.image)
        folder.check_place(partial)
        replace_folder(partial, folder.path, old_of(folder.partial))
    finally:
        remove(partial)
    store.discard()


def mended(damaged: int) -> str:
    """Return what is told of so many shards of an earlier run that were damaged since; nothing where there are none."""
    return f"{damaged} damaged {'part' if damaged == 1 else 'parts'} made anew" if damaged else ""


def failure_of(failures: Sequence[Failed], axes: str = "zyx") -> Exception:
    """Return one error for what could not be computed: how much, where the first is, and why.

    Parameters
    ----------
    failures : sequence of Failed
        With their boxes.
    axes : str
        Names of all axes of the source.
    """
    first = failures[0]
    assert first.box is not None
    place = [f"{name} {index}" for name, index in zip(axes, first.leading, strict=False)]
    place += [f"{name} {a} to {b}" for name, a, b in zip(AXIS_NAMES, first.box.start, first.box.stop, strict=True)]
    what = "1 box" if len(failures) == 1 else f"{len(failures)} boxes"
    kind = next((kind for kind in (ValueError, MemoryError) if isinstance(first.error, kind)), OSError)
    mend = "make memory free" if kind is MemoryError else "mend the source"
    return kind(
        f"Got {what} that could not be computed, the first at {', '.join(place)} (voxels of the result): "
        f"{str(first.error).rstrip('.')}. The others are kept: {mend} and resume."
    )
