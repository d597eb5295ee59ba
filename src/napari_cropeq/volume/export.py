"""Whole volumes into files: the same tiles as the preview, run to the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.predict import never
from napari_cropeq.volume.ome_tiff import write_ome_tiff
from napari_cropeq.volume.pyramid import build_pyramid, write_metadata
from napari_cropeq.volume.scheduler import Scheduler
from napari_cropeq.volume.store import DiskStore, TileStore, check_output, replace_folder
from napari_cropeq.volume.superres import Lead, SuperResolution

__all__ = ["SUFFIXES", "ExportProgress", "bulk_part", "export", "finish", "output_kind", "output_path"]

SUFFIXES = (".ome.zarr", ".ome.tif")


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """Where an export stands."""

    stage: str  # "tiles" or "saving"
    done: int  # tiles
    total: int  # tiles
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Estimated time until all tiles are done, s."""
        return self.seconds * (self.total / self.done - 1) if self.done else float("inf")


def output_kind(path: Path) -> str:
    """Return ``.ome.zarr`` or ``.ome.tif``.

    Raises
    ------
    ValueError
        If the name ends in neither.
    """
    name = path.name.lower()
    if name.endswith((".ome.tif", ".ome.tiff")):
        return ".ome.tif"
    if name.endswith(".zarr"):
        return ".ome.zarr"
    raise ValueError(f"Got output {path.name!r}, expected a name ending in .ome.zarr or .ome.tif: rename it.")


def output_path(folder: Path, name: str, suffix: str = ".ome.zarr") -> Path:
    """Return where the result of an image called ``name`` goes in a folder."""
    return folder / f"{name}_SR{suffix}"


def export(
    result: SuperResolution,
    path: str | Path,
    tile: int | None = None,
    overwrite: bool = False,
    computed: TileStore | None = None,
) -> Iterator[ExportProgress]:
    """Compute a whole volume into an OME-Zarr or OME-TIFF, yielding after every tile.

    Nothing bears the final name before it is complete; what was begun is removed when the generator is
    closed or fails.

    Parameters
    ----------
    result : SuperResolution
        Source and model.
    path : path
        Ends in ``.ome.zarr`` or ``.ome.tif``.
    tile : int, optional
        Side of a tile in SR voxels, instead of 128 x 256 x 256.
    overwrite : bool
        Replace what stands there, once the new one is complete.
    computed : TileStore, optional
        Tiles that are finished already and need no network.

    Raises
    ------
    FileExistsError, OSError
        If the output cannot be written.
    ValueError
        If the name's suffix is unknown or the source holds NaN.
    """
    path = Path(path)
    kind = output_kind(path)
    if tile is not None and tile < 8:
        raise ValueError(f"Got tiles of {tile} voxels, expected at least 8: choose larger ones.")
    check_output(path, overwrite)
    folder = path if kind == ".ome.zarr" else path.with_name(f"{path.name}.tiles.zarr")
    compute = result.compute if computed is None else Reuse(computed, result).compute
    scheduler, start, done = Scheduler(compute, bulk_part(result)), time.monotonic(), 0
    store = DiskStore(folder, result, tile)
    try:
        total = store.grid.count * len(result.leads)
        scheduler.run_all(store, result.leads)
        yield ExportProgress("tiles", 0, total, 0.0)
        for finished in scheduler.run():
            done += finished.tiles if finished else 0
            yield ExportProgress("tiles", done, total, time.monotonic() - start)
        yield ExportProgress("saving", done, total, time.monotonic() - start)
        if kind == ".ome.zarr":
            finish(store, result)
        else:
            _convert(store, path, result)
    finally:
        store.discard()


def bulk_part(result: SuperResolution) -> IntTriple:
    """Return what is best computed at once in bulk, SR voxels (z, y, x): about a second of work."""
    return result.oriented(128, 256 if len(result.planes) == 1 else 64, 16)


def finish(store: DiskStore, result: SuperResolution) -> None:
    """Add pyramid and metadata to a store whose tiles are all done, and give it its name.

    Raises
    ------
    ValueError
        If tiles are missing.
    """
    total = store.grid.count * len(result.leads)
    if len(store) != total:
        raise ValueError(
            f"Got {len(store)} finished tiles, expected {total}: run the volume to its end before saving it."
        )
    for _ in build_pyramid(store.partial):
        pass
    write_metadata(store.partial, result)
    store.finish()


def _convert(store: DiskStore, path: Path, result: SuperResolution) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        write_ome_tiff(store.level0, partial, result)
        replace_folder(partial, path)
    finally:
        if partial.exists():
            os.unlink(partial)


class Reuse:
    """Takes a box from finished tiles where all of them are there, else computes it: the bits are the same.

    Parameters
    ----------
    computed : TileStore
        Tiles of ``result``.
    result : SuperResolution
        Computes what is missing.
    """

    def __init__(self, computed: TileStore, result: SuperResolution) -> None:
        self._computed, self._result = computed, result

    def compute(self, lead: Lead, box: Box, stop: Callable[[], bool] = never) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) at the leading indices ``lead``."""
        out = np.empty(box.shape, self._result.dtype)
        for index in self._computed.grid.indices(box):
            part = self._computed.grid.box(index).intersect(box)
            voxels = None if part is None else self._computed.read((lead, index), part)
            if part is None or voxels is None:
                return self._result.compute(lead, box, stop)
            out[part.relative_to(box.start).slices] = voxels
        return out
