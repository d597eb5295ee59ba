"""Figures of a verification: difference maps, line profiles, tile mismatch (paper, Figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from napari_cropeq.evidence.picture import write_picture
from napari_cropeq.evidence.verify.slices import Voxels
from napari_cropeq.evidence.verify.verification import Row

__all__ = ["draw_differences", "draw_mismatch", "draw_profiles"]

REACH = 24  # SR voxels shown on either side of a tile border


def draw_differences(rows: Sequence[Row], path: Path) -> None:
    """Draw tile minus whole in the middle plane: a row per network, a column per tile size, one colour scale."""
    networks = list(dict.fromkeys(row.values["network"] for row in rows))
    tiles = sorted({row.values["tile"] for row in rows})
    high, wide = rows[0].whole.shape
    figure = Figure(figsize=(2.6 * (1 + len(tiles)) + 1, max(1.6, 2.6 * high / wide) * len(networks) + 0.8))
    axes = figure.subplots(len(networks), 1 + len(tiles), squeeze=False)
    figure.set_layout_engine("constrained")
    limit = max(float(np.abs(row.tiled - row.whole).max()) for row in rows) or 1.0
    shown = None
    for row in rows:
        down, across = networks.index(row.values["network"]), 1 + tiles.index(row.values["tile"])
        whole = axes[down, 0]
        whole.imshow(row.whole, cmap="gray", vmin=np.percentile(row.whole, 0.5), vmax=np.percentile(row.whole, 99.5))
        whole.set_title(f"{row.values['network']}, all at once", fontsize=9)
        whole.set_ylabel("axial", fontsize=9)
        whole.set_xlabel("lateral", fontsize=9)
        shown = axes[down, across].imshow(row.tiled - row.whole, cmap="RdBu_r", vmin=-limit, vmax=limit)
        largest = float(np.abs(row.tiled - row.whole).max())
        axes[down, across].set_title(f"tiles of {row.values['tile']}: here |difference| ≤ {largest:.3g}", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    if shown is not None:
        figure.colorbar(shown, ax=axes[:, -1], label="tile minus whole (intensity)", shrink=0.8)
    write_picture(figure, path)


def draw_profiles(rows: Sequence[Row], path: Path) -> None:
    """Draw, for each network, intensities on a line across the axial or lateral tile border where tiles differ most."""
    networks = list(dict.fromkeys(row.values["network"] for row in rows))
    figure = Figure(figsize=(9, 3.2 * len(networks)))
    axes = figure.subplots(len(networks), 2, squeeze=False, width_ratios=(2, 1))
    figure.set_layout_engine("constrained")
    axis, line, border = max((_crossing(row, axis) for row in rows for axis in (0, 1)), key=lambda found: found[0])[1]
    along = ("axial", "lateral")[axis]
    for number, network in enumerate(networks):
        own = [row for row in rows if row.values["network"] == network]
        low, high = max(0, border - REACH), min(own[0].whole.shape[axis], border + REACH)
        place = np.arange(low, high)
        lines, differences = axes[number]
        whole = _line(own[0].whole, axis, line)[low:high]
        lines.plot(place, whole, color="black", linewidth=2.5, alpha=0.5, label="all at once")
        for row in own:
            label, tiled = f"tiles of {row.values['tile']}", _line(row.tiled, axis, line)[low:high]
            lines.plot(place, tiled, linewidth=1, label=label)
            differences.plot(place, tiled - _line(row.whole, axis, line)[low:high], linewidth=1, label=label)
        for drawn in (lines, differences):
            drawn.axvline(border - 0.5, color="gray", linestyle=":", linewidth=1)
            drawn.set_xlabel(f"SR voxel along the {along} axis")
        lines.set_title(f"{network}: across the tile border at {along} voxel {border}", fontsize=9)
        differences.set_title("tile minus whole", fontsize=9)
        lines.set_ylabel("intensity")
        lines.legend(fontsize=8)
    write_picture(figure, path)


def draw_mismatch(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean |tile - whole| over the distance from the nearest tile border, and the MSE over the tile size."""
    figure = Figure(figsize=(10, 3.6))
    near, sizes = figure.subplots(1, 2)
    figure.set_layout_engine("constrained")
    for row in rows:
        distance, mean = mismatch(row)
        near.plot(distance, mean, linewidth=1.2, label=f"{row.values['network']}, tiles of {row.values['tile']}")
    for network in dict.fromkeys(row.values["network"] for row in rows):
        own = [row.values for row in rows if row.values["network"] == network]
        sizes.plot([v["tile"] for v in own], [v["mse"] for v in own], marker="o", label=network)
    near.set_xlabel("distance from the nearest tile border (SR voxels)")
    near.set_ylabel("mean |tile - whole| (intensity)")
    near.legend(fontsize=7)
    sizes.set_xlabel("tile (SR voxels)")
    sizes.set_ylabel("mean squared difference")
    sizes.legend(fontsize=8)
    write_picture(figure, path)


def mismatch(row: Row) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return distances (n,) from the nearest border between tiles, voxels from 0, and the mean |differences| (n,)."""
    distances = np.minimum.outer(*(_from_border(n, row.values["tile"]) for n in row.whole.shape))
    difference = np.abs(row.tiled.astype(np.float64) - row.whole)
    limit = max(1, row.values["tile"] // 2)
    counts = np.bincount(np.minimum(distances, limit).ravel(), minlength=limit + 1)[:limit]
    sums = np.bincount(np.minimum(distances, limit).ravel(), weights=difference.ravel(), minlength=limit + 1)[:limit]
    known = counts > 0
    return np.flatnonzero(known), sums[known] / counts[known]


def _from_border(length: int, tile: int) -> npt.NDArray[np.int64]:
    """Return the distance of each of ``length`` voxels to the nearest border between tiles (not of the image)."""
    place, borders = np.arange(length), np.arange(tile, length, tile)
    if not len(borders):
        return np.full(length, length)
    distances: npt.NDArray[np.int64] = np.min([np.where(place < b, b - 1 - place, place - b) for b in borders], axis=0)
    return distances


def _line(image: Voxels, axis: int, number: int) -> Voxels:
    """Return a line of a plane (axial, lateral) along an axis."""
    return image[number] if axis else image[:, number]


def _crossing(row: Row, axis: int) -> tuple[float, tuple[int, int, int]]:
    """Return the largest |tile - whole| beside tile borders along an axis, and its axis, line and border."""
    difference = np.abs(row.tiled - row.whole)
    difference = difference if axis else difference.T  # (line, along)
    borders = np.arange(row.values["tile"], difference.shape[1], row.values["tile"])
    if not len(borders):  # a tile is as wide as the plane
        return -1.0, (axis, 0, difference.shape[1] // 2)
    beside = np.maximum(difference[:, borders - 1], difference[:, borders])
    line, number = np.unravel_index(int(beside.argmax()), beside.shape)
    return float(beside.max()), (axis, int(line), int(borders[number]))
