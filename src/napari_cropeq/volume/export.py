"""Whole volumes into files: the same tiles as the preview, run to the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_cropeq.volume.ome_metadata import write_metadata
from napari_cropeq.volume.ome_tiff import write_ome_tiff
from napari_cropeq.volume.pyramid import build_pyramid, levels_of
from napari_cropeq.volume.reuse import Reuse
from napari_cropeq.volume.scheduler import Done, Failed, Scheduler
from napari_cropeq.volume.store import DiskStore, TileStore, check_output, replace_folder
from napari_cropeq.volume.superres import SuperResolution

__all__ = ["SUFFIXES", "ExportProgress", "export", "finish", "output_kind", "output_path"]

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
    computed: Sequence[TileStore] = (),
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
    computed : sequence of TileStore
        Where tiles are finished already and need no network.

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
    compute = Reuse(lambda: computed, result.compute)
    scheduler, start, done = Scheduler(result.bulk_part), time.monotonic(), 0
    store = DiskStore(folder, result, tile)
    try:
        total = store.grid.count * len(result.leads)
        scheduler.run_all(store, result.leads, compute)
        yield ExportProgress("tiles", 0, total, 0.0)
        for event in scheduler.run():
            if isinstance(event, Failed):
                raise event.error
            done += event.tiles if isinstance(event, Done) else 0
            yield ExportProgress("tiles", done, total, time.monotonic() - start)
        yield ExportProgress("saving", done, total, time.monotonic() - start)
        if kind == ".ome.zarr":
            finish(store, result)
        else:
            _convert(store, path, result)
    finally:
        store.discard()


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
    write_metadata(store.partial, result.image, levels_of(store.partial))
    store.finish()


def _convert(store: DiskStore, path: Path, result: SuperResolution) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        write_ome_tiff(store.level0, partial, result.image)
        replace_folder(partial, path)
    finally:
        if partial.exists():
            os.unlink(partial)
