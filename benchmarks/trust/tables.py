"""Writes the report of the trust benchmark from the cells that are finished."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measures import summary
from scipy import stats

Record = dict[str, Any]

MARKS = "<!-- {}, made by make bench-trust -->\n", "\n<!-- end of {} -->"
"""The tables of docs/trust.md stand between them."""

METHODS = ("acquired", "interpolated", "super-resolved", "truth")
LEVELS = ("50 %", "80 %", "90 %")


def write_report(results: Path, page: Path) -> None:
    """Write ``trust.json`` and ``trust.md`` into the folder ``results``, and the tables into ``page``."""
    records = [json.loads(path.read_text()) for path in sorted((results / "trust-cells").glob("*.json"))]
    parts: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        parts[record["part"]][record["cell"]].append(record)
    tables = {
        "coverage": coverage_table(parts["coverage"]),
        "planted": planted_table(parts["planted"]),
        "tasks": task_table(parts["tasks"]),
    }
    machines = sorted({json.dumps(record["machine"], sort_keys=True) for record in records})
    known = {
        "machines": [json.loads(machine) for machine in machines],
        "tables": {name: {"head": table[0], "rows": table[1:]} for name, table in tables.items()},
    }
    (results / "trust.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    titles = {"coverage": "Coverage", "planted": "Planted structures", "tasks": "Tasks"}
    text = ["# What to trust", "Made by `make bench-trust`; see [docs/trust.md](../../docs/trust.md)."]
    text += [f"## {titles[name]}\n\n{in_markdown(table)}" for name, table in tables.items()]
    text += [f"## Coverage with one plane\n\n{in_markdown(coverage_table(parts['coverage'], 'one plane'))}"]
    (results / "trust.md").write_text("\n\n".join(text) + "\n")
    if page.exists():
        whole = page.read_text()
        for name, table in tables.items():
            first, last = (mark.format(name) for mark in MARKS)
            if first in whole:
                before, after = whole.index(first) + len(first), whole.index(last)
                whole = whole[:before] + in_markdown(table) + whole[after:]
        page.write_text(whole)


def coverage_table(cells: dict[str, list[Record]], planes: str = "both planes") -> list[list[str]]:
    """Return coverage, rank correlation and the rest of each cell, mean ± standard deviation over seeds."""
    names = (*LEVELS, "rank correlation", "error / expected", "flagged (%)")
    head = ["cell", "seeds", *(f"within {name}" if name in LEVELS else name for name in names)]
    head += ["rank correlation if exact", "promised too little (%)"]
    rows = [head]
    for cell, records in cells.items():
        scores = [record["scores"] for record in records]
        row = [cell, str(len(records))]
        row += [summary([s[planes][name] for s in scores]) for name in names]
        row += [summary([s[planes]["rank correlation if exact"] for s in scores])]
        row += [summary([100 * (s["one plane"]["error / expected"] - 1) for s in scores])]
        rows.append(row)
    return rows


def planted_table(cells: dict[str, list[Record]]) -> list[list[str]]:
    """Return what is recovered, invented and flagged of each structure."""
    head = ["structure", "seeds", "recovered, interpolated (%)", "recovered, super-resolved (%)"]
    head += ["invented, interpolated (%)", "invented, super-resolved (%)"]
    head += ["within 80 %", "within 90 %", "error / expected", "flagged (%)"]
    rows = [head]
    for cell, records in cells.items():
        scores = [record["scores"] for record in records]
        row = [cell, str(len(records))]
        for kind in ("recovered (%)", "invented (%)"):
            row += [summary([s[name][kind] for s in scores]) for name in ("interpolated", "super-resolved")]
        of_error = ("80 %", "90 %", "error / expected", "flagged (%)")
        rows.append(row + [summary([s["expected error"][name] for s in scores]) for name in of_error])
    return rows


def task_table(cells: dict[str, list[Record]]) -> list[list[str]]:
    """Return what was measured: means with their 95 % interval, and whether super-resolution is nearer to the truth."""
    rows = [["measured", "n", *METHODS, "super-resolved, against interpolated", "against acquired"]]
    for records in cells.values():
        several = [record["scores"] for record in records]
        repeats: list[dict[str, dict[str, float]]] = [
            s for scores in several for s in (scores if isinstance(scores, list) else [scores])
        ]
        for name in repeats[0]["truth"]:
            values = {method: np.array([r[method][name] for r in repeats]) for method in METHODS}
            away = {method: np.abs(values[method] - values["truth"]) for method in METHODS}
            row = [name, str(len(repeats)), *(with_interval(values[method]) for method in METHODS)]
            row += [verdict(away["super-resolved"] - away[other]) for other in ("interpolated", "acquired")]
            rows.append(row)
    return rows


def interval(values: Any) -> float:
    """Return half the width of the 95 % interval of a mean (Student)."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def with_interval(values: Any) -> str:
    """Return mean and 95 % interval in words."""
    half = interval(values)
    return in_words(values.mean(), 3) + (f" ± {in_words(half, 2)}" if half > 0 else "")


def in_words(value: float, digits: int) -> str:
    """Return a number with so many digits, and never with an exponent."""
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.{digits}g}"


def verdict(difference: Any) -> str:
    """Return whether a distance from the truth has become smaller, by its 95 % interval."""
    mean, half = float(difference.mean()), interval(difference)
    if not abs(mean) > half:
        return "no difference" if half == half else ""
    return "better" if mean < 0 else "worse"


def in_markdown(table: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its head."""
    if len(table) < 2:
        return "Nothing has been measured yet."
    rows = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
