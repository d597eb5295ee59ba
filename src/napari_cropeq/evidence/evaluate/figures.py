"""Figures of an evaluation: scores over factors (paper, Figure 5), and the middle plane of one volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from napari_cropeq.evidence.evaluate.experiment import methods
from napari_cropeq.evidence.evaluate.middle_plane import MiddlePlane, Restored
from napari_cropeq.evidence.evaluate.seeds import MEASURES
from napari_cropeq.evidence.evaluate.table import budget_of
from napari_cropeq.evidence.picture import write_picture

__all__ = ["draw_planes", "draw_scores"]

PALETTE = ("#8c8c8c", "#1b1b1b", "#d55e00", "#009e73", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of Okabe and Ito, safe for colour-blind readers; a method has the same colour in every figure."""

WIDTH = 0.8  # of all boxes of a factor; factors are 1 apart
SEEN = 99.9  # percentile of all |errors| that has the last colour
PANEL, LEAST = 2.1, 1.4  # width of a plane and of its title, inches
TALLEST = 2.0  # height of a plane over PANEL

Record = Mapping[str, Any]
"""What was measured in one experiment, see :mod:`napari_cropeq.evidence.records`."""

Kind = tuple[str, float, str]
"""Method, and budget as a number to sort by and as text."""


def draw_scores(records: Sequence[Record], measure: str, path: Path) -> None:
    """Draw a score over the factors: a point for each volume, and a box if there are several volumes.

    Parameters
    ----------
    records : sequence
        Records of :class:`napari_cropeq.evidence.evaluate.evaluation.Evaluation`; those without a finite score are
        left out.
    measure : str
        ``psnr`` or ``ssim``.
    path : Path
        The PNG file.
    """
    factors = sorted({record["key"]["factor"] for record in records})
    kinds = sorted({_kind(record) for record in records}, key=_place)
    volumes = list(dict.fromkeys(record["key"]["checksum"] for record in records))
    colours = _colours(kinds)
    figure = Figure(figsize=(max(5.0, 1.6 + 0.42 * len(factors) * max(len(kinds), 2) + 1.6), 4.2))
    figure.set_layout_engine("constrained")
    axes, step = figure.subplots(), WIDTH / len(kinds)
    for number, kind in enumerate(kinds):
        colour = colours[kind]
        for place, factor in enumerate(factors):
            own = {r["key"]["checksum"]: r["scores"][measure] for r in records if _fits(r, factor, kind, measure)}
            centre = place + (number - (len(kinds) - 1) / 2) * step
            values = list(own.values())
            if len(values) > 1:
                _box(axes, values, centre, 0.8 * step, colour)
            # A volume has the same place in every box.
            shifts = [0.5 * step * ((volumes.index(c) + 0.5) / len(volumes) - 0.5) for c in own]
            axes.scatter(
                [centre + s for s in shifts],
                values,
                s=36 if len(volumes) == 1 else 16,
                color=colour,
                edgecolors="white",
                linewidths=0.5,
            )
    for place in range(1, len(factors)):
        axes.axvline(place - 0.5, color="#d5d5dc", linewidth=0.8)
    axes.set_xticks(range(len(factors)), [f"{factor:g}" for factor in factors])
    axes.set_xlim(-0.5, len(factors) - 0.5)
    axes.set_xlabel("factor: step between slices (voxels)")
    axes.set_ylabel(MEASURES[measure])
    axes.grid(axis="y", color="#e6e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    handles = [Patch(color=colours[kind], label=_label(kind)) for kind in kinds]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    write_picture(figure, path)


def draw_planes(planes: Sequence[MiddlePlane], border: int, path: Path) -> None:
    """Draw truth, degraded and restored planes in a row for each factor, with |error| below each restored plane.

    Parameters
    ----------
    planes : sequence of MiddlePlane
        At least one; all of the same volume.
    border : int
        Voxels left out of the scores on every side.
    path : Path
        The PNG file.
    """
    columns = 2 + max(len(plane.restored) for plane in planes)
    ratios = [plane.truth.shape[0] / plane.truth.shape[1] for plane in planes]
    heights = [PANEL * min(TALLEST, max(0.3, ratio)) for ratio in ratios]
    rows = [height + 0.35 for height in heights for _ in range(2)]
    width = max(LEAST, PANEL * min(1.0, TALLEST / min(ratios)))
    figure = Figure(figsize=(width * columns + 1.1, sum(rows) + 0.3))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(2 * len(planes), columns, squeeze=False, height_ratios=rows)
    errors = [_error(plane, restored) for plane in planes for restored in plane.restored if restored.image is not None]
    limit = float(np.percentile(np.concatenate([e.ravel() for e in errors]), SEEN)) if errors else 0.0
    shown = None
    for axis in axes.flat:
        axis.set_axis_off()
    for number, plane in enumerate(planes):
        above, below = axes[2 * number], axes[2 * number + 1]
        low, high = np.percentile(plane.truth, (0.5, 99.5))
        gray = {"cmap": "gray", "vmin": low, "vmax": high if high > low else low + 1, "interpolation": "nearest"}
        _show(above[0], plane.truth, f"truth ({plane.axes[0]} down, {plane.axes[1]} across)", **gray)
        count, wide = plane.degraded.shape
        bottom = plane.first + count * plane.factor
        extent = (-0.5, wide - 0.5, bottom - 0.5, plane.first - 0.5)  # left, right, bottom, top
        _show(above[1], plane.degraded, f"degraded, factor {plane.factor:g}", extent=extent, **gray)
        above[1].set_ylim(len(plane.truth) - 0.5, -0.5)
        for column, restored in enumerate(plane.restored, 2):
            psnr = "∞" if restored.psnr is None else f"{restored.psnr:.2f}"
            title = f"{restored.name}\n{psnr} dB"
            if restored.image is None:
                above[column].set_title(title, fontsize=8)
                above[column].text(0.5, 0.5, "no model file", ha="center", fontsize=8, color="#55555f")
                continue
            _show(above[column], restored.image, title, **gray)
            error = _error(plane, restored)
            scale = {"cmap": "magma", "vmin": 0, "vmax": limit or 1.0, "interpolation": "nearest"}
            shown = _show(below[column], error, "|error|", **scale)
            _frame(below[column], plane, border)
    if shown is not None:
        figure.colorbar(shown, ax=axes, label="|error| (intensity)", shrink=0.6, pad=0.01, extend="max")
    write_picture(figure, path)


def _error(plane: MiddlePlane, restored: Restored) -> Any:
    """Return |restored - truth| (axial, lateral) in float64."""
    assert restored.image is not None
    return np.abs(restored.image.astype(np.float64) - plane.truth)


def _show(axes: Axes, image: Any, title: str, **options: Any) -> Any:
    axes.set_title(title, fontsize=8)
    return axes.imshow(image, **options)


def _kind(record: Record) -> Kind:
    key = record["key"]
    return key["method"], float(key.get("minutes") or key.get("patches") or 0), budget_of(key)


def _fits(record: Record, factor: float, kind: Kind, measure: str) -> bool:
    return record["key"]["factor"] == factor and _kind(record) == kind and record["scores"][measure] is not None


def _place(kind: Kind) -> tuple[int, float]:
    return methods().index(kind[0]), kind[1]


def _colours(kinds: Sequence[Kind]) -> dict[Kind, str]:
    """Return the colour of each kind: that of its method, paler for smaller budgets."""
    found = {}
    for kind in kinds:
        own = [other for other in kinds if other[0] == kind[0]]
        share = (own.index(kind) + 1) / len(own)
        white = 0.6 * (1 - share)
        colour = PALETTE[methods().index(kind[0]) % len(PALETTE)]
        red, green, blue = ((1 - white) * part + white for part in to_rgb(colour))
        found[kind] = to_hex((red, green, blue))
    return found


def _label(kind: Kind) -> str:
    return f"{kind[0]}, {kind[2]}" if kind[1] else kind[0]


def _box(axes: Axes, values: Sequence[float], centre: float, width: float, colour: str) -> None:
    """Draw quartiles and median, with whiskers to the smallest and the largest value."""
    line = {"color": colour, "linewidth": 1.1}
    axes.boxplot(
        [list(values)],
        positions=[centre],
        widths=width,
        whis=(0, 100),
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": colour + "33", "edgecolor": colour, "linewidth": 1.1},
        medianprops=line | {"linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
    )


def _frame(axes: Axes, plane: MiddlePlane, border: int) -> None:
    """Draw the edge of the scored part of the plane, as far as it is visible."""
    (top, high), (left, wide) = (
        (border - plane.box.start[a] - 0.5, plane.whole[a] - 2 * border) for a in map("zyx".index, plane.axes)
    )
    axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor="white", linewidth=0.8, linestyle=":"))
