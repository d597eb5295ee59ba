"""Compare this project with its peers: each is a program of its own, with one thread on one core.

    python benchmarks/peers [--list] [--only WORD] [--budget MINUTES] [--core N] [--report]

Each cell (volume, method, minutes of training, seed) is saved when it is finished; a stopped run continues with the
same command. The report is written again after each. scripts/peers makes the environments of the peers; a peer without
one is skipped. Minutes of training are minutes of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "noise"))  # its volumes and scores

from drawing import draw_curves, draw_picture, keep_planes  # noqa: E402
from methods import quintic  # noqa: E402
from page import CELLS, write_report  # noqa: E402
from plan import Cell, plan  # noqa: E402
from programs import measure, missing  # noqa: E402
from scoring import scores_of  # noqa: E402
from stacks import VOLUMES, Stack  # noqa: E402

from napari_cropeq.evidence.machine import describe_machine, load_average  # noqa: E402


def find_data() -> Path:
    """Return the folder of the volumes: ``shared/data`` beside the checkout, or in a parent folder."""
    folders = [parent / "shared" / "data" for parent in ROOT.parents]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def run_cell(cell: Cell, stack: Stack, out: Path, core: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the record of a cell, and its results by the name of their row."""
    load = load_average()
    results, cost = measure(cell, stack, out / "work", core)
    base = quintic(stack.raw, stack.acquisition).astype(np.float32)
    rows = {name: scores_of(result, base, stack) for name, result in results.items()}
    if cell.method == "Richardson-Lucy":  # the best number of iterations by the truth
        best = max(rows, key=lambda name: rows[name]["psnr"])
        cost["tried"] = {name: row["psnr"] for name, row in rows.items()}
        rows, results = {best: rows[best]}, {best: results[best]}
    record = {
        "volume": cell.volume,
        "method": cell.method,
        "minutes": cell.minutes,
        "seed": cell.seed,
        "rows": rows,
        **cost,
        "machine": describe_machine() | {"torch_threads": 1},
        "load": {"start": load, "end": load_average()},
    }
    return record, results


def save(cell: Cell, record: dict[str, Any], results: dict[str, Any], stack: Stack, arguments: Any) -> None:
    """Keep results and record, and write the report."""
    kept = arguments.results / CELLS
    for folder in (kept, arguments.out / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        np.save(arguments.out / "results" / f"{cell.name}-{name.replace(' ', '-')}.npy", result.astype(np.float32))
    if cell.seed == 0:
        keep_planes(kept, cell, results, stack)
    partial = kept / f"{cell.name}.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.rename(kept / f"{cell.name}.json")
    report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Write the report and its pictures."""
    records = write_report(arguments.results, arguments.page, arguments.readme)
    images = arguments.page.with_name("images")
    if records:
        images.mkdir(exist_ok=True)
        draw_curves(records, images / "peers-curves.png")
        draw_picture(arguments.results / CELLS, records, images / "peers.png")


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print what is missing, with estimated minutes")
    parser.add_argument("--only", default="", metavar="WORD", help="cells whose name contains it")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="start no cell that would take longer in all")
    parser.add_argument("--core", type=int, help="the core that the programs run on; the last one by default")
    parser.add_argument("--report", action="store_true", help="write the report only")
    parser.add_argument("--data", type=Path, default=find_data(), help="folder of the volumes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmark-output" / "peers", help="folder of the results")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "peers.md", help="page with the tables")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="page with one sentence")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, and write the report."""
    arguments = parse()
    kept = arguments.results / CELLS
    todo = [cell for cell in plan() if arguments.only in cell.name and not (kept / f"{cell.name}.json").exists()]
    if arguments.list:
        for cell in todo:
            print(f"{cell.estimate:5.1f} min  {cell.name}")
        print(f"{sum(cell.estimate for cell in todo):5.1f} min in all, {len(todo)} cells")
        return
    started, stacks = time.monotonic(), {}
    core = (os.cpu_count() or 1) - 1 if arguments.core is None else arguments.core
    for cell in () if arguments.report else todo:
        used = (time.monotonic() - started) / 60
        reason = missing(cell.method)
        if VOLUMES[cell.volume][0] is not None and not arguments.data.is_dir():
            reason = f"there is no {arguments.data}"
        if arguments.budget is not None and used + cell.estimate > arguments.budget:
            reason = "it would not fit the budget"
        if reason:
            print(f"SKIPPED {cell.name}: {reason}", flush=True)
            continue
        if cell.volume not in stacks:
            stacks[cell.volume] = Stack.of(cell.volume, arguments.data)
        began = time.monotonic()
        record, results = run_cell(cell, stacks[cell.volume], arguments.out, core)
        save(cell, record, results, stacks[cell.volume], arguments)
        best = max(record["rows"].items(), key=lambda row: row[1]["psnr"])
        print(f"{cell.name}: {best[0]} {best[1]['psnr']:.2f} dB, {(time.monotonic() - began) / 60:.1f} min", flush=True)
    report(arguments)


if __name__ == "__main__":
    main()
