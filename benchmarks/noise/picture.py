"""The picture of docs/intensities.md: real stacks, interpolated and by the trainings, in an axial view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from methods import TRAININGS, applied, model_path, quintic
from scipy import ndimage
from volumes import REAL, real_stack

from napari_cropeq.core.model import Model
from napari_cropeq.evidence.picture import write_picture
from napari_cropeq.formats.image import acquisition_of

DEPTH, WIDTH = 72, 144  # of the part that is shown, SR voxels


def draw_stacks(data: Path, models: Path, seed: int, path: Path) -> None:
    """Draw the same part of each real stack with one intensity scale; the models must exist."""
    figure = Figure(figsize=(9.6, 1.75 * len(REAL)), layout="constrained")
    cells = figure.subplots(len(REAL), 1 + len(TRAININGS), squeeze=False)
    for row, name in zip(cells, REAL, strict=True):
        source, raw = real_stack(name, data)
        acquisition = acquisition_of(source)
        results = {"quintic interpolation": quintic(raw, acquisition)}
        for training in TRAININGS:
            model = Model.load(model_path(models, name, training, seed))
            results[training] = applied(model, raw, acquisition, "both")
        base = np.moveaxis(results["quintic interpolation"], acquisition.axial, 0)
        contrast = ndimage.gaussian_filter(base, 1.0).std(axis=(0, 2))
        y, x = int(contrast.argmax()), 0
        columns = ndimage.uniform_filter1d(ndimage.gaussian_filter(base[:, y], 1.0).std(axis=0), WIDTH)
        half = WIDTH // 2
        x = int(columns[half : len(columns) - half].argmax()) if len(columns) > WIDTH else 0
        z = max(0, (len(base) - DEPTH) // 2)
        part = np.s_[z : z + DEPTH, y, x : x + WIDTH]
        low, high = np.percentile(base[part], (1, 99.7))
        for axes, (title, result) in zip(row, results.items(), strict=True):
            axes.imshow(np.moveaxis(result, acquisition.axial, 0)[part], cmap="gray", vmin=low, vmax=high)
            axes.set_title(f"{name}: {title}", fontsize=8)
            axes.set_axis_off()
    write_picture(figure, path)
