"""Figure of two projections, cubic and super-resolved, each with an enlarged region and scale bars.

Projections beside each other; those that are long, above each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.evidence.mip.projection import LONG, ProjectedImage, Projection
from napari_cropeq.formats.metadata import PIXEL
from napari_cropeq.formats.ome_tiff import UNITS

__all__ = ["DPI", "Length", "bar_length", "colored", "draw_projection"]

DPI = 150
SIDE = 900  # px, longer side of a picture: a whole number of pixels per voxel, or less than one
COLUMN = 560  # px, least width of a column, so that a title fits above a narrow picture
MARGIN, GAP = 60, 36  # px
HEAD, TITLE, LABEL = 118, 44, 48  # px above the figure, above a picture, below a picture
LINE = 32  # px, a second line below the title of the figure
FLAT = 60  # px, least height of a picture that has its scale bar inside
LONGEST = 28  # most characters of a name that are shown

GROUND, INK, FAINT, MARK = "#101216", "#eceef2", "#9aa0ab", "#ffd166"
CYAN, MAGENTA = (0.0, 1.0, 1.0), (1.0, 0.0, 1.0)
# Makes a bar visible on a bright background.
OUTLINE: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="black")]


@dataclass(frozen=True)
class Length:
    """A round length, as text and in SR voxels."""

    text: str
    voxels: float


def bar_length(width: int, step: float, unit: str) -> Length:
    """Return 1, 2 or 5 times a power of ten, as close as possible to a fifth of a picture.

    Parameters
    ----------
    width : int
        Width of the picture, SR voxels.
    step : float
        Side of an SR voxel, in ``unit``.
    unit : str
        Full name; ``pixel`` if it is not known, in which case the length is in voxels.
    """
    if unit == PIXEL:
        step = 1.0
    fifth = width * step / 5
    power = math.floor(math.log10(fifth))
    steps = [(digit, exponent) for exponent in (power, power + 1) for digit in (1, 2, 5)]
    digit, exponent = min(steps, key=lambda s: abs(math.log(s[0] * 10.0 ** s[1] / fifth)))
    if unit == PIXEL:
        count = max(1, round(digit * 10.0**exponent))
        return Length(f"{count} voxel{'s' if count > 1 else ''}", count)
    length = float(f"{digit}e{exponent}")
    # Never in exponential notation, such as 1e+06.
    text = f"{length:.0f}" if exponent >= 0 else f"{length:.{-exponent}f}"
    return Length(f"{text} {UNITS.get(unit, unit)}", length / step)


def colored(images: Sequence[ProjectedImage], limits: Sequence[tuple[float, float]]) -> npt.NDArray[np.float32]:
    """Return one projection in gray, or the sum of two in cyan and magenta.

    Parameters
    ----------
    images : one or two (lateral, axial) arrays
        Intensities.
    limits : sequence of (float, float)
        Intensities of each that are black and fully bright.

    Returns
    -------
    (lateral, axial, 3) float32, from 0 to 1
    """
    colors = [(1.0, 1.0, 1.0)] if len(images) == 1 else [CYAN, MAGENTA]
    picture = np.zeros((*images[0].shape, 3), np.float32)
    for image, (low, high), color in zip(images, limits, colors, strict=True):
        bright = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
        picture += (bright[..., None] * color).astype(np.float32)
    return np.clip(picture, 0, 1, out=picture)


def draw_projection(projection: Projection) -> Figure:
    """Draw a projection that has run."""
    place = _Places(projection)
    layout = _Layout(*place.size)
    _write_head(layout, projection)
    zoom, upright = projection.zoom, projection.is_upright
    horizontal, vertical = (projection.lateral, projection.axial) if upright else (projection.axial, projection.lateral)
    columns = (("Cubic interpolation", projection.cubic), ("Super-resolved", projection.result))
    for number, (title, images) in enumerate(columns):
        picture = colored(images, projection.limits)
        left, top, wide, high = place.whole(number)
        layout.text(left + wide / 2, top - 12, title, color=INK, fontsize=11, weight="bold", ha="center", va="bottom")
        whole = layout.axes(left, top, wide, high)
        _show(whole, _turned(picture, upright))
        corner, (deep, across) = (zoom.axial - 0.5, zoom.lateral - 0.5), zoom.shape(projection.shape)
        mark = (corner[::-1], deep, across) if upright else (corner, across, deep)
        whole.add_patch(Rectangle(*mark, fill=False, edgecolor=MARK, linewidth=1.2))
        _draw_bar(whole, projection, projection.picture_shape, place.scale)
        faint: dict[str, Any] = {"color": FAINT, "fontsize": 8}
        if number or not place.stacked:
            layout.text(
                left + wide / 2, top + high + 8, f"{_axis(projection, horizontal)} →", ha="center", va="top", **faint
            )
        if not number or place.stacked:
            text, middle = f"← {_axis(projection, vertical)}", top + high / 2
            layout.text(left - 12, middle, text, ha="right", va="center", rotation=90, **faint)
        left, top, wide, high = place.zoom(number)
        close = layout.axes(left, top, wide, high)
        part = _turned(zoom.of(picture), upright)
        _show(close, part, MARK)
        _draw_bar(close, projection, (part.shape[0], part.shape[1]), wide / part.shape[1])
        text = f"{title}, zoomed"
        layout.text(left + wide / 2, top - 12, text, color=MARK, fontsize=9, ha="center", va="bottom")
    return layout.figure


def _turned(picture: npt.NDArray[np.float32], upright: bool) -> npt.NDArray[np.float32]:
    """Return a picture (lateral, axial, 3), with the axial axis vertical if it is ``upright``."""
    return picture.swapaxes(0, 1) if upright else picture


def _axis(projection: Projection, axis: int) -> str:
    return AXIS_NAMES[axis] + (" (axial)" if axis == projection.axial else "")


class _Places:
    """Where the pictures of a projection are: (left, top, width, height), px.

    Parameters
    ----------
    projection : Projection
        Gives the shapes, and whether there is a second line in the head.
    """

    def __init__(self, projection: Projection) -> None:
        high, wide = projection.picture_shape
        self.stacked = wide >= LONG * high  # such pictures are larger above each other
        # Voxels are cubes: both axes have the same scale, in whole pixels per voxel if there is room.
        room = (2 * COLUMN + GAP) / wide if self.stacked else SIDE / max(high, wide)
        self.scale = float(math.floor(room)) if room >= 1 else room
        self.wide, self.high = wide * self.scale, high * self.scale
        self.column = COLUMN if self.stacked else max(COLUMN, self.wide)
        zoomed = projection.zoom.shape(projection.shape)
        down, across = zoomed[::-1] if projection.is_upright else zoomed
        scale = self.column / max(down, across)
        self.zoomed = across * scale, down * scale
        self.head = HEAD + LINE * projection.slab.is_thinned

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        return 2 * MARGIN + 2 * self.column + GAP, self.zoom(0)[1] + self.zoomed[1] + LABEL

    def whole(self, number: int) -> tuple[float, float, float, float]:
        """Return the place of a whole picture."""
        room = 2 * self.column + GAP if self.stacked else self.column
        left = MARGIN + (room - self.wide) / 2 + (0 if self.stacked else number * (self.column + GAP))
        top = self.head + TITLE + (number * (self.high + LABEL + TITLE) if self.stacked else 0)
        return left, top, self.wide, self.high

    def zoom(self, number: int) -> tuple[float, float, float, float]:
        """Return the place of an enlarged region, below the whole pictures."""
        _, top, _, _ = self.whole(1)
        left = MARGIN + number * (self.column + GAP) + (self.column - self.zoomed[0]) / 2
        return left, top + self.high + LABEL + TITLE, *self.zoomed


class _Layout:
    """A figure laid out in pixels from its upper left corner, so that nothing is stretched or moved."""

    def __init__(self, wide: float, high: float) -> None:
        self.wide, self.high = math.ceil(wide), math.ceil(high)
        self.figure = Figure(figsize=(self.wide / DPI, self.high / DPI), dpi=DPI, facecolor=GROUND)

    def axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        bottom = self.high - top - high
        return self.figure.add_axes((left / self.wide, bottom / self.high, wide / self.wide, high / self.high))

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        # Names of files and channels may contain dollar signs, which would start a formula.
        self.figure.text(left / self.wide, 1 - top / self.high, text, parse_math=False, **style)


def _show(axes: Axes, picture: npt.NDArray[np.float32], edge: str | None = None) -> None:
    # Averages if a pixel contains several voxels; otherwise voxels stay squares.
    axes.imshow(picture, interpolation="antialiased", interpolation_stage="rgba", aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(edge is not None)
        spine.set_color(edge or GROUND)
        spine.set_linewidth(1.2)


def _draw_bar(axes: Axes, projection: Projection, shape: tuple[int, int], scale: float) -> None:
    """Draw a scale bar in the lower right corner, or below a flat picture.

    Parameters
    ----------
    axes : Axes
        Axes of the picture.
    projection : Projection
        Gives the size of a voxel.
    shape : (vertical, horizontal)
        Shape of the picture, SR voxels.
    scale : float
        Pixels per voxel.
    """
    high, wide = shape
    length = bar_length(wide, projection.acquisition.lateral_step, projection.acquisition.unit)
    flat = high * scale < FLAT
    thick, right = 6 / scale, wide - 0.5 - 16 / scale
    top = high - 0.5 + (10 / scale if flat else -16 / scale - thick)
    bar = Rectangle((right - length.voxels, top), length.voxels, thick, color="white", linewidth=0, clip_on=False)
    bar.set_path_effects(OUTLINE)
    axes.add_patch(bar)
    axes.annotate(
        length.text,
        (right, top + thick if flat else top),
        (0, -2 if flat else 3),
        textcoords="offset points",
        ha="right",
        va="top" if flat else "bottom",
        color="white",
        fontsize=9,
        weight="bold",
        path_effects=OUTLINE,
        annotation_clip=False,
    )


def _write_head(layout: _Layout, projection: Projection) -> None:
    slab, acquisition = projection.slab, projection.acquisition
    along = AXIS_NAMES[projection.along]
    layout.text(MARGIN, 30, f"Maximum intensity along {along}", color=INK, fontsize=14, weight="bold", va="top")
    is_whole = slab.stop - slab.start == slab.length
    voxels = f"all {slab.length} SR voxels" if is_whole else f"SR voxels {slab.start} to {slab.stop} of {slab.length}"
    unit = UNITS.get(acquisition.unit, acquisition.unit)
    step = "" if acquisition.unit == PIXEL else f", {acquisition.lateral_step:.4g} {unit} each"
    lines = [f"{_shortened(projection.names[1])}  ·  {voxels}{step}"]
    if slab.is_thinned:
        lines.append("A slab from the middle: in the whole depth, structures hide each other.")
    for number, text in enumerate(lines):
        layout.text(MARGIN, 78 + LINE * number, text, color=FAINT, fontsize=9, va="top")
    colors = [INK] if len(projection.channels) == 1 else [CYAN, MAGENTA]
    for number, (name, color) in enumerate(zip(projection.channel_names, colors, strict=True)):
        at = layout.wide - MARGIN
        layout.text(at, 34 + 40 * number, _shortened(name), color=color, fontsize=10, ha="right", va="top")


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
