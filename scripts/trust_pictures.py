"""Draw the pictures of docs/trust.md from the sample data.

Without a model, one is trained on the sample first (a few minutes). The truth of the sample is known, so the pictures
also show true errors, and what happens to structure that is planted into a result.

Usage: python scripts/trust_pictures.py [MODEL]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import napari_cropeq as cq
from napari_cropeq.compute.consistency import consistency_of
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.evidence.picture import write_picture
from napari_cropeq.evidence.trust.figures import BEYOND, draw_differences, draw_maps
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.sample import light_sheet_sample

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "trust"
SIDE, PATCHES, FWHM = 192, 3200, 2.2
PLACE = (slice(34, 46), slice(88, 102), slice(12, 25))  # of the planted blob, SR voxels, in a dark region
STRIPES = (slice(20, 100), slice(80, 112), slice(145, 185))


def the_sample() -> tuple[Image, np.ndarray]:
    """Return the vessels of the sample (z, y, x), and their truth."""
    source, truth = light_sheet_sample()
    own = replace(source, data=source.data[0, :, :SIDE, :SIDE], axes="zyx", channel_names=(), channel_colors=())
    return own, np.asarray(truth.data[0, :, :SIDE, :SIDE])


def draw_errors(error: np.ndarray, expected: np.ndarray, path: Path) -> None:
    """Draw the true errors of an axial plane beside the expected ones."""
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    limit = float(np.percentile(error, 99.5))
    for axis, (title, image) in zip(
        figure.subplots(1, 2), (("true error", error), ("expected error", expected)), strict=True
    ):
        shown = axis.imshow(image, cmap="inferno", vmin=0, vmax=limit)
        axis.set_title(title, fontsize=10)
        axis.set(xticks=[], yticks=[], xlabel="x", ylabel="z")
    figure.colorbar(shown, ax=figure.axes, label="intensity", shrink=0.8)
    write_picture(figure, path)


def draw_planted(results: Sequence[tuple[str, np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw an axial plane of results in a row each, with the consistency beside it."""
    figure = Figure(figsize=(10.5, 3.3 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 2, squeeze=False)
    for row, (title, image, consistency) in zip(axes, results, strict=True):
        left = row[0].imshow(image, cmap="gray", vmin=90, vmax=420)
        right = row[1].imshow(consistency, cmap="RdBu_r", vmin=-5, vmax=5)
        row[0].set_title(title, fontsize=10)
        row[1].set_title("consistency", fontsize=10)
        row[1].set_facecolor(BEYOND)
        for axis in row:
            axis.set(xticks=[], yticks=[], xlabel="x", ylabel="z")
        figure.colorbar(left, ax=row[0], label="intensity", shrink=0.8)
        figure.colorbar(right, ax=row[1], label="(acquired - imaged) / noise", shrink=0.8)
    write_picture(figure, path)


def planted(result: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the result with a blob, and with stripes that the microscope cannot see: every second row is brighter."""
    blob, stripes = (result.astype(np.float32) for _ in range(2))
    blob[PLACE] += 150
    inside = stripes[STRIPES]
    inside += np.where(np.arange(len(inside)) % 2, 60, -60)[:, None, None].astype(np.float32)
    return [("a planted blob", blob), ("planted stripes, one SR voxel thick", stripes)]


def main() -> None:
    """Draw all pictures."""
    OUT.mkdir(parents=True, exist_ok=True)
    source, truth = the_sample()
    model = cq.Model.load(sys.argv[1]) if len(sys.argv) > 1 else cq.train(source, fwhm=FWHM, patches=PATCHES)
    with TemporaryDirectory() as folder:
        path = cq.export(source, model, Path(folder) / "sample_SR.ome.zarr", error=True)
        report = cq.trust(path, source, model)
        draw_maps(report, OUT / "maps.png")
        draw_differences(report, OUT / "differences.png")
        result = np.asarray(cq.open_image(path).data)
    section = report.section.box.slices
    error = np.abs(report.section.result - truth[section][:, 0])
    draw_errors(error, report.section.error, OUT / "errors.png")
    computed = SuperResolution(source, model)
    consistency, whole = consistency_of(computed, ()), Box.whole(result.shape)
    drawn = []
    for title, volume in planted(result):
        differences = consistency.map(volume, whole, np.asarray(source.data), whole)[section][:, 0]
        differences[np.isnan(report.section.consistency)] = np.nan
        drawn.append((title, volume[section][:, 0], differences))
    draw_planted(drawn, OUT / "planted.png")
    for sentence in (*report.sentences.values(), *report.warnings, report.methods):
        print(sentence)


if __name__ == "__main__":
    main()
