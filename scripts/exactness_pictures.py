"""The pictures of ``docs/exactness.md``.

``tiles.png`` is drawn to scale from the paper's network. ``difference.png`` and ``phase.png`` are measured: two
networks are trained on the sample and compared by the code of ``cropeq verify``, and a network with a stride is applied
to crops.

Usage: python scripts/exactness_pictures.py [--patches 1000]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import nn

import napari_cropeq as cq
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.network import ValidNetwork
from napari_cropeq.evidence.picture import write_picture
from napari_cropeq.evidence.verify.slices import Slices, middle
from napari_cropeq.evidence.verify.tile_check import TileCheck, TilesFound
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.sample import light_sheet_sample

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "exactness"
TILE = 64  # side of a tile that is kept, px
ROWS, COLUMNS = 3, 4  # of tiles in the drawn plane
WIDE, DPI = 7.0, 200  # inches; at 700 px, a point is 1.4 px
READ, COMPUTED, KEPT, WRONG, LINE = "#f3c679", "#d9e3ea", "#4a86c5", "#d9534f", "#555555"
OFFSETS = range(9)  # of crops, px


# -- drawn to scale ------------------------------------------------------------------------------------


def draw_tiles(network: ValidNetwork, path: Path) -> None:
    """Draw what is read, computed and kept of a tile: in the plane, along a line, and layer by layer."""
    figure = Figure(figsize=(WIDE, 6.6), layout="constrained", facecolor="white")
    (plane, line), (valid, padded) = figure.subplots(2, 2, height_ratios=(1.25, 1))
    draw_plane(plane, network.halo)
    draw_line(line, network.halo)
    draw_layers(valid, network.layers, network.halo, "Without padding: a layer is smaller\nthan the one before")
    draw_layers(padded, network.layers, 0, "With zero padding: zeros spread\nby one pixel in each layer")
    names = {
        READ: f"read: the tile and its halo, {TILE + network.shrink} px",
        COMPUTED: "computed: the layers between",
        KEPT: f"kept: the tile, {TILE} px",
        WRONG: "wrong, because it depends on the zeros",
    }
    patches = [Patch(facecolor=colour, edgecolor=LINE, label=name) for colour, name in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    write_picture(figure, path, DPI)


def draw_plane(axes: Axes, halo: int) -> None:
    """Draw a plane in tiles, with what two of them read."""
    high, wide = ROWS * TILE, COLUMNS * TILE
    axes.add_patch(Rectangle((0, 0), wide, high, facecolor="#ececec", edgecolor="none"))
    for row, column in ((1, 2), (2, 0)):
        place, size = (column * TILE - halo, row * TILE - halo), TILE + 2 * halo
        axes.add_patch(Rectangle(place, size, size, facecolor=READ, edgecolor=LINE, linewidth=0.8))
        axes.add_patch(Rectangle((column * TILE, row * TILE), TILE, TILE, facecolor=KEPT))
        axes.text(
            (column + 0.5) * TILE, (row + 0.5) * TILE, "tile", color="white", ha="center", va="center", fontsize=9
        )
        axes.text((column + 0.5) * TILE, row * TILE - halo / 2, "halo", ha="center", va="center", fontsize=8)
    for at in range(TILE, wide, TILE):
        axes.plot((at, at), (0, high), color="white", linewidth=1)
    for at in range(TILE, high, TILE):
        axes.plot((0, wide), (at, at), color="white", linewidth=1)
    axes.add_patch(Rectangle((0, 0), wide, high, fill=False, edgecolor="black", linewidth=1.4))
    axes.text(wide, high + 4, "border of the volume", ha="right", va="top", fontsize=8)
    axes.text(-halo, high + halo + 4, "beyond it: mirrored", ha="left", va="top", fontsize=8)
    axes.set(xlim=(-halo - 6, wide + 6), ylim=(high + halo + 20, -6), aspect="equal")
    axes.set_title("A plane in tiles", fontsize=9.5)
    axes.set_anchor("N")
    axes.set_axis_off()


def draw_line(axes: Axes, halo: int) -> None:
    """Draw what tiles along a line read and keep: the stride is the size of what is kept."""
    for number in range(ROWS):
        low = 1 - 0.3 * number
        axes.add_patch(Rectangle((number * TILE - halo, low), TILE + 2 * halo, 0.2, facecolor=READ, edgecolor=LINE))
        axes.add_patch(Rectangle((number * TILE, low), TILE, 0.2, facecolor=KEPT))
        axes.text(
            (number + 0.5) * TILE, low + 0.1, f"tile {number + 1}", color="white", ha="center", va="center", fontsize=8
        )
        axes.add_patch(Rectangle((number * TILE, -0.05), TILE, 0.2, facecolor=KEPT, edgecolor="white"))
    for at in range(0, TILE * ROWS + 1, TILE):
        axes.plot((at, at), (-0.05, 1.2), color=LINE, linewidth=0.7, linestyle=":")
    axes.text(
        1.5 * TILE, -0.09, "the result: tiles side by side, nothing is blended", ha="center", va="top", fontsize=8
    )
    axes.annotate(
        "", (TILE, 1.3), (0, 1.3), arrowprops={"arrowstyle": "<->", "color": "black", "shrinkA": 0, "shrinkB": 0}
    )
    axes.text(TILE / 2, 1.33, f"stride {TILE} px", ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-halo - 4, TILE * ROWS + halo + 4), ylim=(-0.35, 1.5))
    axes.set_title("Tiles along a line: reads overlap", fontsize=9.5)
    axes.set_axis_off()


def draw_layers(axes: Axes, layers: int, halo: int, title: str) -> None:
    """Draw the width of each layer of a network, and what zeros beyond the tile reach if there is no halo."""
    for layer in range(layers + 1):
        low, gone = layers - layer, layer if halo else 0
        start, width = -halo + gone, TILE + 2 * (halo - gone)
        colour = READ if layer == 0 else COMPUTED if layer < layers else KEPT
        axes.add_patch(Rectangle((start, low), width, 1, facecolor=colour, edgecolor="white", linewidth=0.4))
        if not halo and layer:
            for left in (0, TILE - layer):
                axes.add_patch(Rectangle((left, low), layer, 1, facecolor=WRONG, edgecolor="white", linewidth=0.4))
    edge = 17 if halo else 6
    axes.text(TILE / 2, layers + 1.4, "input", ha="center", va="bottom", fontsize=8)
    axes.text(TILE / 2, -0.4, f"output of {layers} layers", ha="center", va="top", fontsize=8)
    if not halo:
        for place in (-edge / 2, TILE + edge / 2):
            axes.text(place, layers / 2, "0", ha="center", va="center", fontsize=11, color=WRONG, weight="bold")
    axes.set(xlim=(-23, TILE + 23), ylim=(-2.6, layers + 3.6))
    axes.set_title(title, fontsize=9.5)
    axes.set_axis_off()


# -- measured ------------------------------------------------------------------------------------------


def the_sample() -> Image:
    """Return the vessels of the sample (z, y, x)."""
    source = light_sheet_sample()[0]
    return replace(source, data=source.data[0], axes="zyx", channel_names=(), channel_colors=())


def measured(source: Image, network: str, patches: int) -> tuple[npt.NDArray[np.float32], TilesFound]:
    """Train a network, and return the middle plane (axial, lateral) at once, and the check of its tiles."""
    model = cq.train(source, fwhm=2.2, network=network, filters=16, patches=patches)
    slices = Slices(model, source)
    box = middle(slices.predictor.sr_shape, slices.in_plane)
    *_, found = TileCheck(slices, box, TILE).run()
    assert isinstance(found, TilesFound)
    centre = box.shape[1] // 2
    row = Box(
        (box.start[0], box.start[1] + centre, box.start[2]), (box.stop[0], box.start[1] + centre + 1, box.stop[2])
    )
    ((_, whole),) = slices.whole(row)
    return whole[:, 0], found


def draw_difference(results: list[tuple[npt.NDArray[np.float32], TilesFound]], path: Path) -> None:
    """Draw the middle plane of each network and |tile - whole| below it, on one colour scale."""
    figure = Figure(figsize=(WIDE, 4.1), layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(results))
    limit = max(found.agreement.largest for _, found in results)
    for column, (whole, found) in zip(axes.T, results, strict=True):
        low, high = np.percentile(whole, (0.5, 99.8))
        column[0].imshow(whole, cmap="gray", vmin=low, vmax=high)
        column[0].set_title(f"{TITLES[found.slices.kind]}\ncomputed at once", fontsize=9.5)
        difference = found.difference[:, found.difference.shape[1] // 2]
        shown = column[1].imshow(difference, cmap="magma", vmin=0, vmax=limit / 4)
        column[1].set_title(caption(found, float(np.ptp(whole))), fontsize=9)
        for axis in column:
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("axial")
    bar = figure.colorbar(shown, ax=axes[1, :], shrink=0.9, extend="max")
    bar.set_label("|tile − whole|\n(intensity)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    write_picture(figure, path, DPI)


TITLES = {"valid": "No padding", "padded": "Zero padding"}


def caption(found: TilesFound, extent: float) -> str:
    """Return what a check found, as a title; ``extent`` is the range of intensities."""
    agreement = found.agreement
    if agreement.exact:
        return f"tiles of {found.tile} − whole:\nall {agreement.voxels:,} voxels identical"
    share, largest = 100 * agreement.differing / agreement.voxels, 100 * agreement.largest / extent
    return f"tiles of {found.tile} − whole: {share:.0f} % of voxels\ndiffer, by up to {largest:.0f} % of the range"


class Strided(nn.Module):
    """Every second pixel is convolved, and the result is brought back to all pixels: as in a U-Net, without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 8, 4, stride=2), nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) -> (N, 1, H - 2, W - 2) if H and W are even."""
        found: torch.Tensor = self.up(torch.relu(self.down(image)))
        return found


@torch.inference_mode()
def phases(network: nn.Module, margin: int, offsets: range = OFFSETS) -> list[float]:
    """Return, for crops that start at each offset along a line, the largest |crop's output - output's crop|."""
    image = torch.rand(1, 1, 128, 128)
    whole = apply(network, image)  # (1, 1, 128 - 2 * margin, 128 - 2 * margin)
    largest = []
    for at in offsets:
        crop = apply(network, image[..., at : at + 96])  # (1, 1, 128 - 2 * margin, 96 - 2 * margin)
        largest.append(float((crop - whole[..., at : at + 96 - 2 * margin]).abs().max()))
    return largest


def apply(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Apply a network as it is applied to a volume."""
    found: torch.Tensor = network.predict(image) if isinstance(network, ValidNetwork) else network(image)
    return found


def draw_phases(path: Path) -> None:
    """Draw how far a crop's output is from the output's crop, over the place where the crop starts."""
    torch.manual_seed(0)
    valid = ValidNetwork(filters=8)
    nn.init.normal_(valid.tail.weight, std=0.1)  # an untrained tail is zero: every crop would agree
    figure = Figure(figsize=(WIDE, 2.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    strided = phases(Strided(), 1)
    axes.bar(list(OFFSETS), strided, 0.5, color=WRONG, label="stride 2 inside the network")
    axes.plot(
        OFFSETS, phases(valid, valid.halo), "o", color=KEPT, label="no stride", markersize=6, clip_on=False, zorder=3
    )
    axes.set(xticks=list(OFFSETS), ylim=(0, 1.35 * max(strided)))
    axes.set_xlabel("first pixel of the crop", fontsize=9)
    axes.set_ylabel("largest difference", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False, loc="upper left", ncols=2)
    write_picture(figure, path, DPI)


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=1000, help="of each training")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    draw_tiles(ValidNetwork(filters=1), OUT / "tiles.png")
    draw_phases(OUT / "phase.png")
    source = the_sample()
    results = [measured(source, network, options.patches) for network in TITLES]
    draw_difference(results, OUT / "difference.png")
    for _, found in results:
        print(found.sentence)


if __name__ == "__main__":
    main()
