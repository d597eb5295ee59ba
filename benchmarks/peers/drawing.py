"""The pictures of docs/peers.md: quality against training time, and one plane of every result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from plan import TRAINED, Cell
from stacks import VOLUMES, Stack
from volumes import Volume

from napari_cropeq.evidence.picture import write_picture

WHITE = 99.3
"""Percentile of the plane of the truth that is white; as many of its voxels are black."""

PART = 96
"""Side of what is shown, from the middle of the plane, voxels."""

LINES = {
    ("ours", "both planes"): ("ours, both planes", "C0", "-"),
    ("ours", "one plane"): ("ours, one plane", "C0", ":"),
    ("padded", "both planes"): ("padded, both planes", "C1", "-"),
    ("CARE", "result"): ("IsotropicCARE", "C2", "-"),
    ("ECLARE", "result"): ("ECLARE, batch 16", "C3", "-"),
}
FLAT = {("interpolation", "quintic"): "quintic", ("Richardson-Lucy", None): "Richardson-Lucy"}


def keep_planes(folder: Path, cell: Cell, results: dict[str, Volume], stack: Stack) -> None:
    """Write the middle plane (z, x) of each result, and of the truth, with the intensity scale of the truth."""
    low, high = np.percentile(stack.truth[:, stack.truth.shape[1] // 2], (100 - WHITE, WHITE))
    truth = {folder / f"{Cell(cell.volume, 'truth').name}.png": stack.truth}
    for path, volume in (truth | {plane_of(folder, cell, row): result for row, result in results.items()}).items():
        plane = (volume[:, volume.shape[1] // 2] - low) / (high - low)
        Image.fromarray(np.rint(255 * np.clip(plane, 0, 1)).astype(np.uint8)).save(path, optimize=True)


def plane_of(folder: Path, cell: Cell, row: str) -> Path:
    """Return the file of the middle plane of a result; Richardson-Lucy has one, whatever its number of iterations."""
    return folder / f"{cell.name}{'' if 'iteration' in row else '-' + row.replace(' ', '-')}.png"


def draw_curves(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw PSNR against minutes of training, a panel for each volume; bars are standard deviations over seeds."""
    names = [name for name in VOLUMES if any(record["volume"] == name for record in records)]
    figure = Figure(figsize=(9.6, 3.4 * -(-len(names) // 2) + 0.5), layout="constrained")
    panels = figure.subplots(-(-len(names) // 2), 2, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        here = [record for record in records if record["volume"] == name]
        for (method, row), label in FLAT.items():
            for record in here:
                if record["method"] == method:
                    psnr = next(found["psnr"] for key, found in record["rows"].items() if row in (None, key))
                    axes.axhline(psnr, color="0.5", linestyle="--" if row else ":", label=label)
        for (method, row), (label, colour, line) in LINES.items():
            found: dict[float, list[float]] = defaultdict(list)
            for record in here:
                if record["method"] == method:
                    found[record["minutes"]].append(record["rows"][row]["psnr"])
            if found:
                times = sorted(found)
                means = [float(np.mean(found[t])) for t in times]
                spread = [float(np.std(found[t], ddof=1)) if len(found[t]) > 1 else np.nan for t in times]
                fill = "white" if line == ":" else colour
                style = {"color": colour, "linestyle": line, "marker": "o", "markerfacecolor": fill}
                axes.errorbar(times, means, spread, label=label, capsize=3, **style)
        axes.set_xscale("log")
        axes.set_xticks([3, 15, 60], ["3", "15", "60"])
        axes.minorticks_off()
        axes.set_xlim(2.4, 75)
        axes.set_title(name)
        axes.set_xlabel("CPU minutes of training")
        axes.set_ylabel("PSNR (dB)")
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    known = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=4)
    write_picture(figure, path)


def draw_picture(folder: Path, records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the middle part of one plane of all methods, after the longest training that all networks have.

    If there is none, what there is.
    """
    rows = {}
    for name in VOLUMES:
        done = {(record["method"], record["minutes"]) for record in records if record["volume"] == name}
        times = [t for many in (all, any) for t in (60, 15, 3) if many((method, t) in done for method in TRAINED)]
        if times:
            cells = {"truth": (Cell(name, "truth"), "")}
            cells |= {"quintic": (Cell(name, "interpolation"), "quintic")}
            cells |= {"Richardson-Lucy": (Cell(name, "Richardson-Lucy"), "iterations")}
            for method, row in (("padded", "both planes"), ("CARE", "result"), ("ECLARE", "result")):
                cells[method] = Cell(name, method, times[0]), row
            rows[name, times[0]] = cells | {"ours, both planes": (Cell(name, "ours", times[0]), "both planes")}
    if not rows:
        return
    columns = max(len(cells) for cells in rows.values())
    figure = Figure(figsize=(1.9 * columns, 2.15 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, ((name, minutes), cells) in zip(panels, rows.items(), strict=True):
        for axes, (title, (cell, row)) in zip(line, cells.items(), strict=True):
            file = folder / f"{cell.name}.png" if title == "truth" else plane_of(folder, cell, row)
            if not file.exists():
                axes.set_axis_off()
                continue
            plane = np.asarray(Image.open(file))
            z, x = ((n - PART) // 2 for n in plane.shape)
            axes.imshow(plane[z : z + PART, x : x + PART], cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title("ECLARE, batch 16" if title == "ECLARE" else title, fontsize=9)
        line[0].set_ylabel(f"{name}\n{minutes:g} min", fontsize=8)
    write_picture(figure, path)
