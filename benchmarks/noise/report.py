"""Writes the report of the noise benchmark from the cells that are finished."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("psnr", "psnr apart", "ssim", "gain dim", "gain bright", "edge", "spots", "vessels", "patches to 90 %")


MARKS = "<!-- table -->\n", "\n<!-- end -->"
"""The table of docs/intensities.md stands between them."""

SHORT = ("psnr", "gain dim", "gain bright", "edge")


def write_report(results: Path, page: Path) -> None:
    """Write ``noise.json`` and ``noise.md`` into the folder ``results``, and the table into ``page``."""
    records = [json.loads(path.read_text()) for path in sorted((results / "noise-cells").glob("*.json"))]
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        cells[record["cell"]].append(record)
    summary = {name: _summary(of_cell) for name, of_cell in cells.items()}
    (results / "noise.json").write_text(json.dumps(summary, indent=1) + "\n")
    parts = [
        "# Intensities and noise",
        "Made by `make bench-noise`; see [docs/intensities.md](../../docs/intensities.md). Means over seeds, with "
        "their standard deviation. The name of a cell says its truth, the photons of its brightest voxel, its camera, "
        "the factor, and FWHM over step. Gaussian and Richardson-Lucy have the width and the number of iterations that "
        "are best by the truth.",
    ]
    for name, methods in summary.items():
        seeds = max((method["seeds"] for method in methods.values()), default=0)
        parts.append(f"## {name}\n\nSeeds: {seeds}.\n\n{_table(methods)}")
    (results / "noise.md").write_text("\n\n".join(parts) + "\n")
    text = page.read_text()
    before, after = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    page.write_text(text[:before] + short_table(summary) + text[after:])


def short_table(summary: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return a table with the means of the most important scores, one row for each cell and method.

    Bias and PSNR are those apart from hot pixels, if there are any.
    """
    if not summary:
        return "No cell has been measured yet."
    head = [
        "cell",
        "seeds",
        "method",
        "largest bias (%)",
        "PSNR (dB)",
        "noise gain, dim",
        "noise gain, bright",
        "edge (voxels)",
    ]
    rows = [head, ["---"] * len(head)]
    for name, methods in summary.items():
        for method, scores in methods.items():
            if method == "truth" or method.endswith("rounded"):
                continue
            best = scores | {name: scores[f"{name} apart"] for name in ("bias", "psnr") if f"{name} apart" in scores}
            known = [value for value in best.get("bias", ()) if value is not None]  # a bin may hold no light
            bias = f"{max(known, key=abs):+.1f}" if known else ""
            shown = [f"{best[key]:.4g}" if key in best else "" for key in SHORT]
            rows.append([name, str(scores["seeds"]), method, bias, *shown])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _summary(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation over seeds of each score of each method."""
    found: dict[str, dict[str, Any]] = {}
    for method in records[0]["scores"]:
        of_seeds = [record["scores"][method] for record in records if method in record["scores"]]
        found[method] = {"seeds": len(of_seeds)}
        for name in of_seeds[0]:
            values = np.array([scores[name] for scores in of_seeds], float)
            found[method][name] = _listed(values.mean(axis=0))
            found[method][f"{name}, sd"] = _listed(values.std(axis=0))
    return found


def _listed(values: Any) -> Any:
    """Return rounded numbers as JSON has them: None where there is none."""
    rounded = np.round(values, 4).tolist()
    return [None if v != v else v for v in rounded] if isinstance(rounded, list) else rounded


def _table(methods: dict[str, dict[str, Any]]) -> str:
    shown = [name for name in COLUMNS if any(name in method for method in methods.values())]
    bins = len(next(iter(methods.values())).get("bias", ()))
    head = ["method", *shown, *(f"bias {n + 1} (%)" for n in range(bins))]
    rows = [head, ["---"] * len(head)]
    for method, scores in methods.items():
        row = [method]
        row += [f"{scores[name]:.4g} ± {scores[f'{name}, sd']:.2g}" if name in scores else "" for name in shown]
        pairs = zip(scores.get("bias", ()), scores.get("error", ()), strict=True)
        row += ["" if value is None else f"{value:.2f} (se {error:.2f})" for value, error in pairs]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
