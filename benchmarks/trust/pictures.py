"""The pictures of docs/trust.md: a section of each planted structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from methods import model_path
from planted import STRUCTURES

from napari_cropeq.evidence.picture import write_picture

PANELS = ("interpolated", "super-resolved", "truth", "expected error", "true error")


def draw_structures(models: Path, seed: int, folder: Path) -> None:
    """Draw the sections that were kept in ``models``, one picture for each structure."""
    for name in STRUCTURES:
        path = model_path(models, name, "planted", seed).with_suffix(".npz")
        if not path.exists():
            continue
        sections = np.load(path)
        figure = Figure(figsize=(9.6, 1.95), layout="constrained")
        cells = figure.subplots(1, len(PANELS))
        truth, error = sections["truth"], sections["true error"]
        brightest, largest = float(np.percentile(truth, 99.5)), float(np.percentile(error, 99.5))
        for axes, panel in zip(cells, PANELS, strict=True):
            of_error = panel.endswith("error")
            shown = axes.imshow(
                sections[panel],
                cmap="magma" if of_error else "gray",
                vmin=0,
                vmax=largest if of_error else brightest,
                interpolation="nearest",
            )
            axes.set_title("acquired, interpolated" if panel == "interpolated" else panel, fontsize=8)
            axes.set_axis_off()
            if panel in ("truth", "true error"):
                bar = figure.colorbar(shown, ax=axes, shrink=0.8)
                bar.ax.tick_params(labelsize=6)
                bar.set_label("photons", fontsize=6)
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(figure, folder / f"{name.replace(' ', '-')}.png")
