"""Writes the report of the comparison with peers from the cells that are finished."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from plan import TRAINED, plan
from stacks import VOLUMES

CELLS = "peers-cells"
MARKS = "<!-- {} -->\n", "\n<!-- end -->"
"""A part of docs/peers.md, or of the README, stands between them."""

OURS, SHORT = "ours", 3
AGAINST, ONE_PLANE = "ours, both planes", "ours, one plane"
"""The row that peers are compared with, in every column; then the other one."""

SITE = "https://napari-cropeq.github.io/napari-cropeq/peers.html"
TITLES = {"padded": "padded", "CARE": "IsotropicCARE", "ECLARE": "ECLARE, batch 16"}
PROGRAMS = ("CARE", "ECLARE", "Richardson-Lucy")
IN_WORDS = {
    "padded": "zero-padded network",
    "Richardson-Lucy": "Richardson-Lucy, iterations by the truth",
    "ECLARE": "ECLARE, batch 16 and {share:.1f} % of its default patches",
}
DEFAULT_PATCHES = 1_000_000
"""Of ECLARE."""

HEAD = ("method", "training (min)", "n", "PSNR (dB)", "SSIM", "largest bias (%)", "noise gain, dim", "bright")
COSTS = ("training (CPU s)", "applying (CPU s)", "memory (MB)")

COLUMNS = (
    ("psnr", "PSNR", 1, "{:.2f} dB"),
    ("ssim", "SSIM", 1, "{:.4f}"),
    ("bias", "largest bias", -1, "{:.2f} %"),
    ("gain dim", "noise gain in dim regions", -1, "{:.3f}"),
    ("gain bright", "noise gain in bright regions", -1, "{:.3f}"),
    ("applying", "time to apply", -1, "{:.1f} s"),
    ("memory", "memory", -1, "{:.0f} MB"),
)
"""What a peer can win in: key of a row, name, sign of better values, format."""

Row = dict[str, Any]

MEASURED = ("train", "expected error")
"""Stages before a result that need memory of their own."""


def read_cells(results: Path) -> list[dict[str, Any]]:
    """Return the records of the finished cells, in the order of the plan."""
    files = {cell.name: results / CELLS / f"{cell.name}.json" for cell in plan()}
    return [json.loads(path.read_text(encoding="utf-8")) for path in files.values() if path.exists()]


def read(path: Path) -> Any:
    """Return what a JSON file holds, None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def rows_of(records: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows of one volume: means over seeds, with what the method costs."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for record in records:
        for name in record["rows"]:
            groups.setdefault((record["method"], name, record["minutes"]), []).append(record)
    return [_row(*key, found) for key, found in sorted(groups.items(), key=_place)]


def _place(group: tuple[tuple[str, str, float], Any]) -> tuple[int, float, str]:
    method, name, minutes = group[0]
    order = ("interpolation", "Richardson-Lucy", "padded", "CARE", "ECLARE", OURS)
    return order.index(method), minutes, name.replace("one", "a")


def _row(method: str, name: str, minutes: float, records: Sequence[dict[str, Any]]) -> Row:
    found = [record["rows"][name] for record in records]
    stages = [record["stages"] for record in records]
    psnr = [scores["psnr"] for scores in found]
    bias = np.mean([scores["bias"] for scores in found], axis=0)
    deconvolved = f"Richardson-Lucy, {name}".replace(" 1 iterations", " 1 iteration")
    title = {"interpolation": name, "Richardson-Lucy": deconvolved}.get(method, TITLES.get(method, method))
    row = {
        "method": title if name not in ("one plane", "both planes") else f"{method}, {name}",
        "group": method,
        "ours": method == OURS,
        "minutes": minutes,
        "patches": float(np.mean([record.get("patches", 0) for record in records])),
        "n": len(records),
        "psnr": float(np.mean(psnr)),
        "psnr, sd": float(np.std(psnr, ddof=1)) if len(psnr) > 1 else 0.0,
        "ssim": float(np.mean([scores["ssim"] for scores in found])),
        "bias": float(max(bias, key=abs)),
        "applying": float(np.mean([stage[f"infer, {name}"]["cpu_seconds"] for stage in stages])),
        "memory": float(
            max(stage[key]["peak_mb"] for stage in stages for key in (*MEASURED, f"infer, {name}") if key in stage)
        ),
    }
    if minutes:
        row["training"] = float(np.mean([stage["train"]["cpu_seconds"] for stage in stages]))
    gains = {key: float(np.mean([scores[key] for scores in found])) for key in found[0] if key.startswith("gain")}
    return row | gains


def first_line(rows: Sequence[Row]) -> str:
    """Return where a peer wins, from the rows of a volume: against :data:`AGAINST`, then where only against one plane.

    Networks are compared at equal training times, a method without training with every training time.
    """
    wins = _wins(rows, AGAINST)
    if wins is None:
        return "Ours has not been measured yet."
    alone = {what: how for what, how in (_wins(rows, ONE_PLANE) or {}).items() if what not in wins}
    left = ", ".join(TITLES.get(name, name) for name in TRAINED if all(row["group"] != name for row in rows))
    parts = [f"**Peers win** in {_listed(wins)}." if wins else "No peer wins in any column."]
    parts += [f"Against *{ONE_PLANE}*, peers also win in {_listed(alone)}."] if alone else []
    parts += [f"Not measured yet: {left}."] if left else []
    return " ".join(parts)


def _listed(wins: dict[str, str]) -> str:
    return "; ".join(f"{what} ({how})" for what, how in wins.items())


def _wins(rows: Sequence[Row], against: str) -> dict[str, str] | None:
    """Return in what a peer is better than a row of ours, and by how much; None if that is not measured."""
    own_rows = [row for row in rows if row["method"] == against]
    times = sorted({row["minutes"] for row in own_rows})
    if not times:
        return None
    wins = {}
    for key, what, sign, text in COLUMNS:
        costs = key in ("applying", "memory")  # which do not depend on the training time
        for minutes in times[:1] if costs else times:
            mine = [row for row in own_rows if row["minutes"] == minutes and key in row]
            peers = [row for row in rows if not row["ours"] and row["minutes"] in (0, minutes) and key in row]
            if not mine or not peers:
                continue
            winner = max(peers, key=lambda row: sign * abs(row[key]))
            own, best = abs(mine[0][key]), abs(winner[key])
            if sign * best > sign * own:
                after = "" if costs else f" after {minutes:g} min"
                wins[f"{what}{after}"] = f"{winner['method']}: {text.format(best)}, ours: {text.format(own)}"
    return wins


def table(rows: Sequence[Row]) -> str:
    """Return the rows of a volume as Markdown."""
    noisy = any("gain dim" in row for row in rows)
    head = [*(HEAD if noisy else HEAD[:-2]), *COSTS]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        spread = f" ± {row['psnr, sd']:.2f}" if row["n"] > 1 else ""
        line = [row["method"], *((f"{row['minutes']:g}", str(row["n"])) if row["minutes"] else ("", ""))]
        line += [f"{row['psnr']:.2f}{spread}", f"{row['ssim']:.4f}", f"{row['bias']:+.2f}"]
        line += [f"{row[key]:.3f}" for key in ("gain dim", "gain bright") if noisy]
        line += [
            f"{row['training']:.0f}" if "training" in row else "",
            f"{row['applying']:.1f}",
            f"{row['memory']:.0f}",
        ]
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(records: Sequence[dict[str, Any]], total: int) -> str:
    """Return the tables of all volumes, each after the line that says where a peer wins."""
    parts = []
    for name in VOLUMES:
        rows = rows_of([record for record in records if record["volume"] == name])
        if rows:
            parts.append(f"### {name}\n\n{first_line(rows)}\n\n{table(rows)}")
    left = total - len(records)
    if left:
        parts.append(f"{len(records)} of {total} cells have been measured.")
    return "\n\n".join(parts)


def details(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table with a row for each cell: its budget, its times, and the bias by intensity."""
    head = ["volume", "method", "min", "seed", "patches", "steps", "training (CPU s)", "(clock s)", "start-up (CPU s)"]
    yield f"| {' | '.join([*head, 'shift', 'load', 'bias by intensity (%)'])} |"
    yield f"|{' --- |' * (len(head) + 3)}"
    for record in records:
        stages, load = record["stages"], record["load"]["end"]
        trained = stages.get("train", {})
        bias = "; ".join(
            f"{name}: {' '.join(f'{b:+.1f}' for b in row['bias'])}" for name, row in record["rows"].items()
        )
        line = [record["volume"], record["method"], f"{record['minutes']:g}", record["seed"]]
        line += [record.get("patches", ""), record.get("steps", ""), trained.get("cpu_seconds", "")]
        line += [trained.get("seconds", ""), stages["start"]["cpu_seconds"]]
        line += [record.get("placement", {}).get("shift", ""), load[0] if load else "", bias]
        yield f"| {' | '.join(map(str, line))} |"


def sentence(records: Sequence[dict[str, Any]]) -> str:
    """Return the sentence of the README, with the volumes that all networks have been measured on.

    It names the network of the paper that is padded, and the best of the other programs on each volume.
    """
    parts = []
    for name in VOLUMES:
        rows = rows_of([record for record in records if record["volume"] == name])
        short = [row for row in rows if row["minutes"] in (0, SHORT)]
        best = {row["group"]: row for row in sorted(short, key=lambda row: row["psnr"])}
        if set(best) >= set(TRAINED):
            others = max((best[program] for program in PROGRAMS), key=lambda row: row["psnr"])
            parts.append(
                f"{best[OURS]['psnr']:.1f} dB on *{name}* ({_in_words(best['padded'])}: {best['padded']['psnr']:.1f}; "
                f"{_in_words(others)}: {others['psnr']:.1f}; interpolation: {best['interpolation']['psnr']:.1f})"
            )
    found = "; ".join(parts) or "not measured yet"
    where = f"The [tables]({SITE}) say where another method is better."
    beside = f"with the best of {len(PROGRAMS)} other programs"
    return f"**Compared**, by PSNR after {SHORT} CPU minutes of training, {beside}: {found}. {where}"


def _in_words(row: Row) -> str:
    title = IN_WORDS.get(row["group"], TITLES.get(row["group"], row["group"]))
    return title.format(share=100 * row["patches"] / DEFAULT_PATCHES)


def write_report(results: Path, page: Path, readme: Path) -> list[dict[str, Any]]:
    """Write ``peers.json`` and ``peers.md`` into ``results``, and fill ``page`` and ``readme``; return the records."""
    records, tilers = read_cells(results), results / "peers-tilers.json"
    text = tables(records, len(plan())) if records else "No cell has been measured yet."
    machines = list({json.dumps(record["machine"]): record["machine"] for record in records}.values())
    cells = [record | {"machine": machines.index(record["machine"])} for record in records]
    values = {"machines": machines, "cells": cells, "tilers": read(tilers)}
    (results / "peers.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    made = "Made by `make bench-peers`; [docs/peers.md](../../docs/peers.md) says how, and has the tables."
    lines = ["# Beside other methods", "", made, "", *details(records)]
    (results / "peers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    fill(page, "tables", text)
    fill(readme, "peers", textwrap.fill(sentence(records), 120, break_on_hyphens=False))
    fill(page, "tilers", tilers_table(values["tilers"]))
    return records


def tilers_table(values: Any) -> str:
    """Return the table of the ways to compute tiles, after the line that says where another one wins."""
    if not values:
        return "Not measured yet."
    rows = values["rows"]
    own = next(row for row in rows if row["way"] == OURS)
    peers = [row for row in rows if row["way"] != OURS and row["network"] == own["network"]]  # the same work
    wins = [
        f"{what} ({row['way']} {row['tiles'][key]:.0f} {unit}, ours {own['tiles'][key]:.0f} {unit})"
        for key, what, unit in (("cpu_seconds", "time", "s"), ("peak_mb", "memory", "MB"))
        for row in [min(peers, key=lambda row: row["tiles"][key])]
        if row["tiles"][key] < own["tiles"][key]
    ]
    exact = [row["way"] for row in peers if row["equal"]]
    wins += [f"exactness (bit for bit, too: {', '.join(exact)})"] if exact else []
    first = f"**Others win, or equal ours,** in {'; '.join(wins)}." if wins else "No other wins in any column."
    head = ["way", "network", "tiles", "largest difference (% of the range)", "tiles (CPU s)", "whole (CPU s)"]
    lines = [[*head, "memory, tiles (MB)"], ["---"] * (len(head) + 1)]
    for row in rows:
        difference = "0, bit for bit" if row["equal"] else f"{row['difference (%)']:.2g}"
        costs = f"{row['tiles']['cpu_seconds']:.1f}", f"{row['whole']['cpu_seconds']:.1f}"
        lines.append([row["way"], row["network"], row["how"], difference, *costs, f"{row['tiles']['peak_mb']:.0f}"])
    return first + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(page: Path, name: str, content: str) -> None:
    """Replace what stands between the marks of a part of a page."""
    text = page.read_text(encoding="utf-8")
    before = text.index(MARKS[0].format(name)) + len(MARKS[0].format(name))
    after = text.index(MARKS[1], before - 1)
    page.write_text(text[:before] + content + text[after:], encoding="utf-8")
