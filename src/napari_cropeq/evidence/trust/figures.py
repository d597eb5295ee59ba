"""Pictures of a report: the maps on one axial plane, and the distribution of the differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from napari_cropeq.core.imaging.agreement import EDGES
from napari_cropeq.evidence.picture import write_picture
from napari_cropeq.evidence.trust.report import TrustReport
from napari_cropeq.formats.ome_tiff import UNITS

__all__ = ["draw_differences", "draw_maps"]

LIMIT = 5.0  # of the colour scale of the differences, times the noise
WIDTH, HEIGHT = 5.6, 5.0  # of a panel at most, inches
BEYOND = "#b8b8c0"  # slices that cannot be compared


def draw_maps(report: TrustReport, path: Path) -> None:
    """Draw the acquired slices, the result, its expected error and its consistency on one axial plane."""
    section, noise = report.section, report.comparison.agreement.noise
    high, wide = section.result.shape
    width = min(WIDTH, HEIGHT * wide / high)
    figure = Figure(figsize=(2 * (width + 1.5), 2 * (width * high / wide + 0.9)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(2, 2).ravel()
    low, top = (float(p) for p in np.percentile(section.result, (0.3, 99.7)))
    gray = {"cmap": "gray", "vmin": low, "vmax": max(top, low + 1e-6)}
    largest = max(float(np.percentile(section.error, 99.5)), 1e-6)
    calibrated = report.expected.origin != "planes"
    differences = "(acquired - imaged) / noise" if noise.measurable else "(acquired - imaged) / least noise"
    unit, step = UNITS.get(report.about["unit"], report.about["unit"]), report.about["step"]
    panels = (
        ("acquired slices", section.acquired, gray, "intensity"),
        ("result", section.result, gray, "intensity"),
        (
            "expected error" if calibrated else "disagreement of planes",
            section.error,
            {"cmap": "inferno", "vmin": 0, "vmax": largest},
            "intensity",
        ),
        ("consistency", section.consistency, {"cmap": "RdBu_r", "vmin": -LIMIT, "vmax": LIMIT}, differences),
    )
    for axis, (title, image, options, label) in zip(axes, panels, strict=True):
        shown = axis.imshow(image, interpolation="nearest", extent=(0, wide * step, high * step, 0), **options)
        axis.set_title(title, fontsize=10)
        axis.set_facecolor(BEYOND)
        axis.set_ylabel(f"{section.axes[0]} ({unit})")
        axis.set_xlabel(f"{section.axes[1]} ({unit})")
        figure.colorbar(shown, ax=axis, label=label, shrink=0.85, aspect=18)
    write_picture(figure, path)


def draw_differences(report: TrustReport, path: Path) -> None:
    """Draw how often differences occur, beside those of Gaussian noise alone."""
    agreement = report.comparison.agreement
    middles, widths = np.sqrt(EDGES[1:] * EDGES[:-1]), np.diff(EDGES)
    density = agreement.counts[1:-1] / max(int(agreement.counts.sum()), 1) / widths
    seen = (middles > 0.1) & (middles < 30)
    figure = Figure(figsize=(6.4, 3.2))
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    axis.plot(middles[seen], density[seen], label="acquired - imaged", color="tab:blue")
    gauss = np.sqrt(2 / np.pi) * np.exp(-0.5 * middles[seen] ** 2)
    axis.plot(middles[seen], gauss, label="noise alone", color="black", linestyle=":")
    axis.axvline(3, color="tab:red", linewidth=1, label="3 times the noise")
    axis.set(yscale="log", xscale="log", ylim=(1e-6, 3))
    axis.set(xlabel="|difference| / noise", ylabel="share of voxels per unit")
    axis.legend(fontsize=8)
    write_picture(figure, path)
