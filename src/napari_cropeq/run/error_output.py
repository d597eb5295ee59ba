"""The expected errors of a result, exported as an image of their own beside it, in the same pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.core.geometry import Box, LeadingIndex
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.formats.paths import output_kind
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.spec import StoreSpec

__all__ = ["FieldStores", "error_of", "error_spec"]

TYPICAL = 0.1  # share of the range of intensities that viewers show an expected error up to


def error_of(path: Path) -> Path:
    """Return the path of the expected errors of the result ``path``: ``NAME.error.ome.zarr`` or ``.ome.tif``."""
    suffix = output_kind(path)
    stem = path.name
    for ending in (".tiff", ".tif", ".zarr", ".ome"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    return path.with_name(f"{stem}.error{suffix}")


def error_spec(result: SuperResolution) -> StoreSpec:
    """Return the specification of a store for the expected errors of ``result``.

    Raises
    ------
    ArgumentError
        If the model has no expected error.
    """
    dtype, spec, tail = with_error(result), store_spec(result), result.model.error_tail
    assert tail is not None
    weights = [np.ascontiguousarray(values.numpy()).tobytes() for values in tail.tail.state_dict().values()]
    digest = hashlib.sha256(b"".join(weights)).hexdigest()[:16]
    intervals = {str(level): width for level, width in tail.intervals.items()}
    about = {"quantity": "expected absolute error", "error tail": digest, "intervals": intervals}
    windows = tuple((0.0, TYPICAL * (n.high - n.low)) for n in result.normalisations)
    return replace(
        spec,
        dtype=dtype["error"],
        image=replace(
            spec.image,
            name=f"{spec.image.name} expected error".strip(),
            windows=windows,
            provenance=dict(spec.image.provenance or {}) | about,
        ),
        description=dict(spec.description) | about,
        fingerprint=dict(spec.fingerprint) | {"type": "expected error", "error tail": digest},
    )


class FieldStores:
    """Stores that are filled at once: of each voxel, every one gets the field that it is named by.

    Parameters
    ----------
    stores : mapping of DiskStore
        By the names of fields, all on one grid of tiles. The last one gets its tiles last.
    """

    def __init__(self, stores: Mapping[str, DiskStore]) -> None:
        self._stores = stores
        first = next(iter(stores.values()))
        self.leading_indices: list[LeadingIndex] = first.leading_indices
        self.folder = first.folder
        self.grid: TileGrid = first.grid

    @property
    def damaged(self) -> list[Any]:
        """Shards that are missing or damaged on disk."""
        return [shard for store in self._stores.values() for shard in store.damaged]

    def __contains__(self, tile: Tile) -> bool:
        return all(tile in store for store in self._stores.values())

    def __len__(self) -> int:
        return min(map(len, self._stores.values()))

    def __iter__(self) -> Iterator[Tile]:
        first, *others = self._stores.values()
        return (tile for tile in first if all(tile in store for store in others))

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return None: no tile is read before all are finished."""
        return None

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Store a finished tile, each of its fields where it is not finished yet."""
        for field, store in self._stores.items():
            if tile not in store:
                store.put(tile, voxels[field])

    def flush(self) -> None:
        """Wait until all tiles are on disk; raise AccessError if one could not be written."""
        for store in self._stores.values():
            store.flush()
