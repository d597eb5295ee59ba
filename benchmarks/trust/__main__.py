"""What to trust: expected errors against the truth, planted structures, and what is measured afterwards.

    python benchmarks/trust [coverage] [planted] [tasks] [--seeds 0 1 2] [--only WORD] [--report]

Each cell is saved when it is finished; a stopped run continues with the same command. The report is written again after
each. Models of the noise benchmark are used if they are there; others are trained, and kept in ``--out``. Each process
uses one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "noise"))  # its volumes and methods

import calibration  # noqa: E402
import planted  # noqa: E402
import tasks  # noqa: E402
from methods import model_path  # noqa: E402
from pictures import draw_structures  # noqa: E402
from tables import write_report  # noqa: E402
from volumes import CORE  # noqa: E402

from napari_cropeq.evidence.machine import describe_machine  # noqa: E402

PARTS = ("coverage", "planted", "tasks")
MORE_SEEDS = range(3, 10)
"""Seeds of the tasks besides those of the other parts, if those are the default ones."""
SEEDS = [0, 1, 2]


def find_data() -> Path:
    """Return the folder of the volumes: ``shared/data`` beside the checkout, or in a parent folder."""
    folders = [parent / "shared" / "data" for parent in ROOT.parents]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def cells(seeds: list[int]) -> Iterator[tuple[str, str, int]]:
    """Yield part, name and seed of every cell, the first seed of all of them first."""
    for seed in seeds:
        yield from (("coverage", name, seed) for name in calibration.CELLS)
        yield from (("planted", name, seed) for name in planted.STRUCTURES)
    for seed in [*seeds, *(MORE_SEEDS if seeds == SEEDS else ())]:
        yield from (("tasks", name, seed) for name in tasks.FAMILIES)
    yield "tasks", "EM", 0


def measure(part: str, name: str, seed: int, arguments: argparse.Namespace) -> Any:
    """Return the scores of a cell."""
    if part == "coverage":
        return calibration.measure(name, seed, arguments.data, arguments.models, arguments.out)
    if part == "planted":
        return planted.measure(name, seed, arguments.out)
    if name == "EM":
        return tasks.measure_em(arguments.data, arguments.models, arguments.out)
    return tasks.measure(name, seed, arguments.out)


def needs_data(part: str, name: str) -> bool:
    """Return whether a cell has a real truth."""
    phantoms = {cell.name for cell in CORE if cell.truth == "phantom"}
    return (part == "coverage" and name not in phantoms) or (part == "tasks" and name == "EM")


def plain(scores: Any) -> Any:
    """Return scores as JSON has them: None where there is none."""
    if isinstance(scores, dict):
        return {name: plain(value) for name, value in scores.items()}
    if isinstance(scores, list):
        return [plain(value) for value in scores]
    return None if scores != scores else scores


def main() -> None:
    """Measure what is missing, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", default="", metavar="WORD", help="cells whose name contains it")
    parser.add_argument("--cached", action="store_true", help="coverage only of models that are there already")
    parser.add_argument("--report", action="store_true", help="write the report only")
    parser.add_argument("--data", type=Path, default=find_data())
    parser.add_argument(
        "--models", type=Path, default=ROOT / "benchmark-output" / "noise", help="folder of models that are only read"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmark-output" / "trust", help="folder of other models")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "trust.md", help="page with the tables")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"There is no part {', '.join(unknown)}; choose from {', '.join(PARTS)}.")
    torch.set_num_threads(1)  # the bits of a training depend on it
    kept = arguments.results / "trust-cells"
    kept.mkdir(parents=True, exist_ok=True)
    for part, name, seed in () if arguments.report else cells(arguments.seeds):
        path = kept / f"{part}-{name.replace(' ', '-')}-{seed}.json"
        if path.exists() or part not in arguments.parts or arguments.only not in name:
            continue
        if needs_data(part, name) and not arguments.data.is_dir():
            print(f"{part}, {name}: left out, because there is no folder {arguments.data}", flush=True)
            continue
        if part == "coverage" and arguments.cached:
            if not model_path(arguments.models, name, "default", seed).exists():
                continue
        started = time.perf_counter()
        scores = measure(part, name, seed, arguments)
        record = {
            "part": part,
            "cell": name,
            "seed": seed,
            "seconds": round(time.perf_counter() - started, 1),
            "machine": describe_machine() | {"torch_threads": torch.get_num_threads()},
            "scores": plain(scores),
        }
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{part}, {name}, seed {seed}: {record['seconds']} s", flush=True)
        write_report(arguments.results, arguments.page)
    write_report(arguments.results, arguments.page)
    draw_structures(arguments.out, SEEDS[0], arguments.page.with_name("images") / "trust")


if __name__ == "__main__":
    main()
