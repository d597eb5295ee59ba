"""The comparison of tiles with whole slices (paper, section 3.1); resumable."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from napari_cropeq.core.geometry import AXIS_NAMES, Box
from napari_cropeq.core.whole_file import whole_file
from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.evidence.records import CELLS, check_folder, write_json
from napari_cropeq.evidence.verify.slices import Assembly, Slices, Voxels, agreement

__all__ = ["TILES", "Row", "Verification", "VerificationProgress", "tiles_for"]

logger = logging.getLogger(__name__)

FORMAT = "napari-cropeq verification 1"
TILES = (64, 96, 128, 192)
"""Default sides of tiles, SR voxels (paper, Table 2)."""


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """State of a verification."""

    what: str  # is being computed
    share: float  # done, of everything


@dataclass(frozen=True)
class Row:
    """One network at one tile size, and the same network applied to whole planes.

    Parameters
    ----------
    values : dict
        A row of the table, as in the JSON file.
    tiled, whole : (axial, lateral)
        The middle plane of the compared box.
    """

    values: dict[str, Any]
    tiled: Voxels
    whole: Voxels


@dataclass(frozen=True)
class Computed:
    """Output of a network and its time."""

    voxels: Voxels
    seconds: float


class Verification:
    """Compares tiles with the whole, for several networks and tile sizes.

    Parameters
    ----------
    networks : sequence of Slices
        Networks on the same volume.
    tiles : sequence of int
        Sides of tiles, SR voxels.
    folder : path
        Created if it does not exist. Outputs of networks are saved in ``cells/`` and reused by a later run.
    box : Box
        SR voxels to compare.

    Attributes
    ----------
    rows : list of Row
        The finished comparisons, network by network.

    Raises
    ------
    ArgumentError
        If tiles are not smaller than the box.
    AccessError
        If the folder cannot be written.
    """

    def __init__(self, networks: Sequence[Slices], tiles: Sequence[int], folder: str | Path, box: Box) -> None:
        sides = [box.shape[axis] for axis in networks[0].in_plane]
        for tile in tiles:
            if not 1 <= tile < max(sides):
                most = max(sides) - 1
                smaller = f"Choose tiles of 1 to {most}, for example {max(1, most // 4)} and {max(1, most // 2)}."
                raise ArgumentError(
                    f"Tiles of {tile} cannot be compared in planes of {' x '.join(map(str, sides))} SR voxels.",
                    smaller if most else "Compare larger planes.",
                    setting="tiles",
                )
        self.networks, self.tiles, self.box = tuple(networks), tuple(tiles), box
        self.folder = check_folder(folder)
        self.rows: list[Row] = []

    def run(self) -> Iterator[VerificationProgress]:
        """Compute missing outputs; :attr:`rows` grows by one for each network and tile size."""
        each = 1 + len(self.tiles)
        steps = each * len(self.networks)
        for number, slices in enumerate(self.networks):
            whole = yield from self._computed(slices, None, number * each, steps)
            for position, tile in enumerate(self.tiles, number * each + 1):
                tiled = yield from self._computed(slices, tile, position, steps)
                self.rows.append(self._row(slices, tile, tiled, whole))

    def report(self) -> dict[str, Any]:
        """Return the finished comparisons, as JSON values."""
        first = self.networks[0]
        axial, plane = first.in_plane
        return {
            "format": FORMAT,
            "volume": first.described,
            "compared": {
                "start": list(self.box.start),
                "shape": list(self.box.shape),
                "planes": AXIS_NAMES[axial] + AXIS_NAMES[plane],
                "data_range": float(np.ptp(self.rows[0].whole)) if self.rows else None,
            },
            "rows": [row.values for row in self.rows],
            "machine": describe_machine(),
        }

    def _row(self, slices: Slices, tile: int, tiled: Computed, whole: Computed) -> Row:
        found = agreement(tiled.voxels, whole.voxels)
        exactness = slices.exactness
        values = {
            "network": slices.kind,
            "model": slices.model.fingerprint,
            "filters": slices.model.network.filters,
            "tile": tile,
            "range": float(np.ptp(whole.voxels)),
            **asdict(found),
            "identical": found.identical,
            "seconds": round(tiled.seconds, 3),
            "whole_seconds": round(whole.seconds, 3),
            "redundant": round(slices.redundant(self.box, tile), 4),
            "exactness": None if exactness is None else str(exactness),
            "as_promised": found.largest <= slices.promised and not (slices.promised == 0 and found.differing),
        }
        return Row(values, self._middle(slices, tiled.voxels), self._middle(slices, whole.voxels))

    def _middle(self, slices: Slices, voxels: Voxels) -> Voxels:
        """Return the middle plane, axial axis first."""
        axial, plane = slices.in_plane
        across = 3 - axial - plane
        image: Voxels = voxels.take(voxels.shape[across] // 2, across)
        return image if axial < plane else image.T

    def _computed(
        self, slices: Slices, tile: int | None, number: int, steps: int
    ) -> Generator[VerificationProgress, None, Computed]:
        """Return the output of a network in tiles, or in whole planes; read from its file if it has been saved."""
        what = f"{slices.kind}, {'whole planes' if tile is None else f'tiles of {tile}'}"
        path = self._path(slices, tile)
        saved = read_computed(path, self.box)
        if saved is not None:
            logger.info("%s: already computed", what)
            yield VerificationProgress(f"{what}, kept", (number + 1) / steps)
            return saved
        if path.exists():
            logger.warning("%s: %s is damaged and computed again", what, path.name)
        parts = slices.whole(self.box) if tile is None else slices.tiled(self.box, tile)
        assembly = Assembly(parts, self.box)
        for share in assembly.run():
            yield VerificationProgress(what, (number + share) / steps)
        computed = Computed(assembly.voxels, assembly.seconds)
        write_computed(path, computed)
        logger.info("%s: computed in %.1f s", what, computed.seconds)
        return computed

    def _path(self, slices: Slices, tile: int | None) -> Path:
        key = {
            "format": FORMAT,
            "model": slices.model.fingerprint,
            "volume": slices.digest,
            "planes": slices.in_plane,
            "box": [self.box.start, self.box.stop],
            "tile": tile,
            "device": slices.predictor.device.type,
        }
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / CELLS / f"{slices.kind}_{'whole' if tile is None else tile}_{digest}.npz"

    def write(self) -> Path:
        """Write ``verify.json`` into the folder and return its path."""
        path = self.folder / "verify.json"
        write_json(path, self.report())
        return path


def tiles_for(box: Box, in_plane: Sequence[int]) -> list[int]:
    """Return the tile sizes to compare by default: those of the paper that are smaller than the planes of ``box``."""
    longest = max(box.shape[axis] for axis in in_plane)
    return [tile for tile in TILES if tile < longest] or [max(1, longest // 2)]


def read_computed(path: Path, box: Box) -> Computed | None:
    """Return the saved output of a network; None if the file does not exist or is damaged."""
    try:
        # Opened here, since np.load does not close a damaged file.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            voxels, seconds = arrays["voxels"], float(arrays["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return Computed(voxels, seconds) if voxels.shape == box.shape and voxels.dtype == np.float32 else None


def write_computed(path: Path, computed: Computed) -> None:
    """Save the output of a network; the file appears only once it is complete."""
    with whole_file(path) as file:
        np.savez(file, voxels=computed.voxels, seconds=computed.seconds)
