"""Export whole volumes to files: the tiles of the preview, all of them, resumable after any interruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_cropeq.compute.fill import Event, Failed, Filled, TileFiller
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.scheduler import Scheduler
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.compute.tile_shapes import check_tile
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import AXIS_NAMES, IntTriple
from napari_cropeq.errors import (
    AccessError,
    ArgumentError,
    CompletedMeanwhileError,
    CropeqError,
    ImageError,
    MismatchError,
    OutOfMemoryError,
    OutputExistsError,
)
from napari_cropeq.formats.find import check_result
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.ome_tiff import write_ome_tiff
from napari_cropeq.formats.paths import FOLDER, check_output, old_of, output_kind, partial_of, remove, replace_folder
from napari_cropeq.formats.provenance import read_provenance
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.distributed.run import spread
from napari_cropeq.run.distributed.worker import check_source
from napari_cropeq.run.error_output import FieldStores, error_of, error_spec
from napari_cropeq.run.partition import Partition
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.disk_errors import disk_errors
from napari_cropeq.store.folder import sweep, unfinished
from napari_cropeq.store.protocol import TileStore
from napari_cropeq.store.spec import StoreSpec
from napari_cropeq.store.unfinished import Settings

__all__ = [
    "ExportProgress",
    "check_options",
    "complete",
    "export",
    "failure_of",
    "is_complete",
    "mended",
    "settings_of",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """State of an export."""

    stage: str  # "tiles", "saving", or "shared": this process's part is done, those of others are not
    done: int  # tiles
    total: int  # tiles
    seconds: float
    started: int = 0  # tiles that an earlier run has done
    damaged: int = 0  # shards of an earlier run that are damaged and computed again

    @property
    def seconds_left(self) -> float:
        """Estimated time until all tiles are done, s."""
        gained = self.done - self.started
        return self.seconds * (self.total - self.done) / gained if gained > 0 else float("inf")

    @property
    def rate(self) -> float:
        """Tiles per second of this run."""
        return (self.done - self.started) / self.seconds if self.seconds > 0 else 0.0


def export(
    result: SuperResolution,
    path: str | Path,
    tile: int | None = None,
    existing: str = "refuse",
    computed: Sequence[TileStore] = (),
    part_of: tuple[int, int] = (0, 1),
    cluster: Cluster | None = None,
    error: bool = False,
) -> Iterator[ExportProgress]:
    """Compute a whole volume into an OME-Zarr or OME-TIFF, yielding after every part.

    The file gets its final name only once it is complete. If the generator is closed or fails, or the process is
    killed, the finished tiles stay in ``NAME.partial.ome.zarr`` beside it, and ``existing="resume"`` continues.

    Parameters
    ----------
    result : SuperResolution
        Source and model.
    path : path
        Ends in ``.ome.zarr`` or ``.ome.tif``.
    tile : int, optional
        Side of a tile in SR voxels; 128 x 256 x 256 by default.
    existing : str
        What to do if the output, or an unfinished one, exists: ``refuse``, ``resume`` (a complete output is kept) or
        ``overwrite`` (the old output is replaced once the new one is complete).
    computed : sequence of TileStore
        Stores with finished tiles, which are copied instead of computed.
    part_of : (int, int)
        Number of this process, from 0, and how many processes share the work; the last to end completes the output.
    cluster : Cluster, optional
        Its workers compute the tiles; they must see source and output under the same paths. ``computed`` is not used.
    error : bool
        Whether to write the expected error of every voxel as well, into ``NAME.error.ome.zarr`` beside the result. A
        result that is complete already gets its expected errors.

    Raises
    ------
    FileExistsError, OSError
        If the output cannot be written, or tiles of the source cannot be read.
    ValueError
        If the name's suffix is unknown, the source contains NaN or would be removed, or an unfinished store was
        started with other settings.
    """
    path, partition = Path(path), Partition(*part_of)
    check_options(tile, existing, partition, cluster, error)
    if error:
        yield from _with_error(path, result, tile, existing)
    else:
        yield from _alone(path, result, tile, existing, computed, partition, cluster)


def _alone(
    path: Path,
    result: SuperResolution,
    tile: int | None,
    existing: str,
    computed: Sequence[TileStore],
    partition: Partition,
    cluster: Cluster | None,
) -> Generator[ExportProgress, None, None]:
    """Compute the result, or this process's part of it."""
    if existing == "overwrite" and path.exists() and error_of(path).exists():
        raise OutputExistsError(
            f"{error_of(path).name} has the expected errors of the result that would be replaced.",
            "Remove it, or write expected errors as well.",
            setting="existing",
        )
    if cluster is not None:
        check_source(result)
    store = _store(path, store_spec(result), tile, existing, partition)
    if store is None:
        yield ExportProgress("saving", 1, 1, 0.0, 1)
        return
    try:
        yield from _tiles(store, result, computed, partition, cluster)
        total = partition.number_of(store)
        if not store.is_last():
            yield ExportProgress("shared", total, total, 0.0)
            return
        if not store.levels[0].complete:  # shards that were damaged since they were finished, by any process
            yield from _tiles(store, result, computed, Partition(), cluster)
        yield ExportProgress("saving", total, total, 0.0)
        complete(store, result.image)
    finally:
        store.release()


def _with_error(
    path: Path, result: SuperResolution, tile: int | None, existing: str
) -> Generator[ExportProgress, None, None]:
    """Compute the result and its expected errors at once, or what is missing of the two."""
    specs = {"error": error_spec(result), "voxels": store_spec(result)}  # the result is completed last
    paths = {"error": error_of(path), "voxels": path}
    for output in paths.values():
        check_output(output, existing, result.source.files)
    with ExitStack() as opened:
        stores: dict[str, DiskStore] = {}
        size: int | IntTriple | None = tile
        for field in ("voxels", "error"):
            store = _store(paths[field], specs[field], size, existing, Partition())
            if store is not None:
                opened.callback(store.release)
                stores[field], size = store, store.grid.tile
        if not stores:
            yield ExportProgress("saving", 1, 1, 0.0, 1)
            return
        if "voxels" not in stores:
            _check_made_by(result, path)
        both = FieldStores({field: stores[field] for field in specs if field in stores})
        yield from _tiles(both, result, (), Partition(), None, with_error(result))
        total = Partition().number_of(both)
        yield ExportProgress("saving", total, total, 0.0)
        for field, spec in specs.items():
            if field in stores:
                complete(stores[field], spec.image)


def _check_made_by(result: SuperResolution, path: Path) -> None:
    """Raise MismatchError if a complete output, which lacks its expected errors, was made in another way."""
    record, own = read_provenance(path) or {}, result.describe()
    differing = [name for name in ("model", "planes", "factor", "axial") if record.get(name) != own[name]]
    if differing:
        raise MismatchError(
            f"{path.name} is complete, but it was made with another {differing[0]} than its expected errors would be.",
            "Give the model and settings that it was made with, or replace it.",
            setting=differing[0],
        )


def _store(
    path: Path, spec: StoreSpec, tile: int | IntTriple | None, existing: str, partition: Partition
) -> DiskStore | None:
    """Return the store to fill; None if the output is complete, or another process has just completed it."""
    check_output(path, partition.existing(existing), spec.inputs)
    if existing != "overwrite" and is_complete(path):
        sweep(path)
        logger.info("%s is complete already", path)
        return None
    try:
        return DiskStore(path, spec, tile, existing, (partition.number, partition.count))
    except CompletedMeanwhileError:
        return None


def is_complete(path: Path) -> bool:
    """Return whether an output exists, and no run has started to replace it.

    Raises
    ------
    OutputExistsError
        If something else has its name, which this package has not made.
    """
    if not path.exists() or unfinished(path) is not None:
        return False
    check_result(path)
    return True


def settings_of(
    path: Path, existing: str, planes: str | None, device: str, dtype: str | None
) -> tuple[str | None, str, str]:
    """Return planes, device and dtype of an export: those given, or those of the unfinished output to resume.

    Parameters
    ----------
    path : path
        The output.
    existing : str
        What to do about an output, complete or unfinished, that exists.
    planes, device, dtype : str
        As given; None, and ``auto`` for the device, if not.

    Raises
    ------
    ImageError
        If the unfinished output cannot be read.
    """
    started = Settings.of(partial_of(path)) if existing == "resume" else Settings()
    return (
        started.planes if planes is None else planes,
        started.device if device == "auto" else device,
        started.dtype if dtype is None else dtype,
    )


def check_options(
    tile: int | None, existing: str, partition: Partition, cluster: Cluster | None, error: bool = False
) -> None:
    """Raise ArgumentError if an option of :func:`export` cannot be used, or two do not go together."""
    check_tile(tile)
    partition.check(existing, cluster is not None)
    if error and (cluster is not None or partition.count > 1):
        raise ArgumentError(
            "Processes that share the work cannot write expected errors.",
            "Export in one process, or without expected errors.",
            setting="error",
        )


def _events(
    store: DiskStore | FieldStores,
    result: SuperResolution,
    computed: Sequence[TileStore],
    partition: Partition,
    cluster: Cluster | None,
    dtype: np.dtype[Any] | None,
) -> Generator[Event | None, None, None]:
    """Compute the missing tiles here or on a cluster, and yield the events."""
    if cluster is not None and not isinstance(store, FieldStores):
        yield from spread(store, result, cluster)
        return
    scheduler = Scheduler()
    scheduler.fill(TileFiller(store, TileSource(result, lambda: computed, dtype=dtype), partition.holds(store)))
    yield from scheduler.run()


def _tiles(
    store: DiskStore | FieldStores,
    result: SuperResolution,
    computed: Sequence[TileStore],
    partition: Partition,
    cluster: Cluster | None,
    dtype: np.dtype[Any] | None = None,
) -> Generator[ExportProgress, None, None]:
    start, total, started = time.monotonic(), partition.number_of(store), partition.done_of(store)
    damaged = len(store.damaged)
    logger.info("%s: %d of %d tiles are done, %s", store.folder.path, started, total, result.exactness)
    if result.rounding:
        logger.warning("%s: %s", store.folder.path, result.rounding)
    if damaged:
        logger.warning("%s: %d damaged shards are computed again", store.folder.path, damaged)
    yield ExportProgress("tiles", started, total, 0.0, started, damaged)
    with closing(_events(store, result, computed, partition, cluster, dtype)) as events:
        for event in events:
            if isinstance(event, Failed) and event.bulk:
                raise event.error
            if isinstance(event, Filled) and event.failures:
                raise failure_of(event.failures, result.source.axes) from event.failures[0].error
            yield ExportProgress("tiles", partition.done_of(store), total, time.monotonic() - start, started, damaged)
    logger.info("%s: all %d tiles are done after %.1f s", store.folder.path, total, time.monotonic() - start)


def complete(store: DiskStore, image: ImageInfo) -> None:
    """Make the output, with the metadata of ``image``, from a store whose tiles are all finished.

    Raises
    ------
    ValueError
        If tiles are missing.
    FileExistsError
        If a file with its name exists that may not be replaced.
    OSError
        If the output cannot be written.
    """
    start = time.monotonic()
    if output_kind(store.folder.path) == ".ome.zarr":
        store.finish()
    else:
        _complete_tiff(store, image)
    logger.info("%s: saved in %.1f s", store.folder.path, time.monotonic() - start)


def _complete_tiff(store: DiskStore, image: ImageInfo) -> None:
    store.complete_levels()
    folder = store.folder
    partial = folder.partial / FOLDER / folder.path.name  # everything in this folder was written by this package
    try:
        with disk_errors(folder.partial.name):
            write_ome_tiff(store.levels[0].whole, partial, image)
        folder.check_place(partial)
        replace_folder(partial, folder.path, old_of(folder.partial))
    finally:
        remove(partial)
    store.discard()


def mended(damaged: int) -> str:
    """Return a message about damaged shards of an earlier run that were computed again; empty if there are none."""
    return f"{damaged} damaged {'part' if damaged == 1 else 'parts'} computed again" if damaged else ""


def failure_of(failures: Sequence[Failed], axes: str = "zyx") -> Exception:
    """Return one error for all boxes that could not be computed: how many, where the first is, and why.

    Parameters
    ----------
    failures : sequence of Failed
        One or more, each with its box.
    axes : str
        Names of all axes of the source.
    """
    first = failures[0]
    assert first.box is not None
    place = [f"{name} {index}" for name, index in zip(axes, first.leading, strict=False)]
    place += [f"{name} {a} to {b}" for name, a, b in zip(AXIS_NAMES, first.box.start, first.box.stop, strict=True)]
    what = "1 box" if len(failures) == 1 else f"{len(failures)} boxes"
    kinds: dict[type[Exception], type[CropeqError]] = {ValueError: ImageError, MemoryError: OutOfMemoryError}
    kind = next((typed for built_in, typed in kinds.items() if isinstance(first.error, built_in)), AccessError)
    remedy, setting = ("Free memory", "memory") if kind is OutOfMemoryError else ("Repair the source", "")
    reason = str(first.error).rstrip(".")
    if isinstance(first.error, CropeqError):
        reason, setting = first.error.problem.rstrip("."), first.error.setting or setting
        remedy = first.error.remedy.rstrip(".") or remedy
    return kind(
        f"{what} could not be computed, the first at {', '.join(place)} (voxels of the result): {reason}. All others "
        "are kept.",
        f"{remedy}, then resume.",
        setting=setting,
    )
