"""The findings of a verification: sentences, a table, and a page with figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_cropeq.evidence.page import Page
from napari_cropeq.evidence.verify.figures import draw_differences, draw_mismatch, draw_profiles
from napari_cropeq.evidence.verify.verification import Verification

__all__ = ["HEADER", "cells", "conclusion", "write_page"]

HEADER = ("network", "tile", "MSE", "largest difference", "identical voxels", "seconds", "redundant work")


def cells(values: dict[str, Any]) -> list[str]:
    """Return a row of the table as text."""
    identical = values["identical"]
    share = "all" if values["differing"] == 0 else f"{100 * min(identical, 0.999999):.4f} %"
    return [
        values["network"],
        str(values["tile"]),
        f"{values['mse']:.3g}",
        f"{values['largest']:.3g}",
        share,
        f"{values['seconds']:.1f}",
        f"{100 * values['redundant']:.0f} %",
    ]


def conclusion(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence for each network on whether its tiles equal the whole."""
    found = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        differing, largest = max(row["differing"] for row in own), max(row["largest"] for row in own)
        tiles = ", ".join(str(row["tile"]) for row in own)
        if differing == 0:
            found.append(
                f"{network}: in tiles of {tiles} every one of {own[0]['voxels']:,} voxels has the bits of the whole."
            )
        else:
            spread = own[0]["range"]
            share = f" ({100 * largest / spread:.3g} % of the range of its intensities)" if spread > 0 else ""
            found.append(
                f"{network}: in tiles of {tiles} up to {differing:,} of {own[0]['voxels']:,} voxels differ from the "
                f"whole, by at most {largest:.3g}{share}."
            )
    return found


def write_page(verification: Verification, command: str) -> list[str]:
    """Draw the figures and write ``verify.html`` into the folder; return the names of the files."""
    folder, rows, report = verification.folder, verification.rows, verification.report()
    pictures = {
        "differences.png": (draw_differences, "Tile minus whole in the middle plane, one colour scale for all."),
        "profiles.png": (draw_profiles, "Intensities on a line across the tile border where tiles differ most."),
        "mismatch.png": (
            draw_mismatch,
            "Mean difference between tiles and the whole near tile borders, and for each tile size.",
        ),
    }
    for name, (draw, _) in pictures.items():
        draw(rows, folder / name)
    volume, compared, machine = report["volume"], report["compared"], report["machine"]
    page = Page(f"Tiles against the whole: {volume['name']}")
    page.command(command)
    for sentence in conclusion(report["rows"]):
        page.text(sentence)
    page.table(HEADER, [cells(row) for row in report["rows"]])
    page.text(
        f"Compared: {' x '.join(map(str, compared['shape']))} SR voxels (z, y, x) from {compared['start']}, planes "
        f"{compared['planes']}, in source intensities before rounding; their range is {compared['data_range']:.4g}. "
        "Tile: the side of the square that a tile writes. A crop-equivariant network also reads a halo around it; a "
        "zero-padded network has only zeros beyond the tile. Redundant work: multiply-adds for tiles beyond those for "
        "the whole."
    )
    for name, (_, caption) in pictures.items():
        page.picture(folder / name, caption)
    page.text(
        f"Machine: {machine['processor']}, {machine['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    )
    page.write(folder / "verify.html")
    return [*pictures, "verify.html"]
