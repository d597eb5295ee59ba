"""Damaged files, 100,000 and more: each must be refused in a sentence, or give what the undamaged one gives.

Runs the kinds of tests/fuzz in batches, each with its own seed; writes results/fuzz.json and fuzz.md. If it is stopped,
the same command continues; batches that found something are run again.

    python benchmarks/fuzz.py [--batches N] [--out FOLDER] [KIND ...]     (kinds select; nothing is written)
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fuzz.kinds import KINDS  # noqa: E402
from fuzz.worker import Batch, ran  # noqa: E402
from napari_cropeq.evidence.machine import describe_machine  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CASES = 500  # of a batch
SLOW = {"unfinished result": 0.4}  # of the batches of other kinds: a case takes ten times as long


def batches(number: int, kinds: list[str], folder: Path) -> list[Batch]:
    """Return the batches: the first of each kind, then the second, ..."""
    wanted = [(seed, kind) for seed in range(number) for kind in kinds if seed < number * SLOW.get(kind, 1)]
    return [Batch(kind, CASES, seed, folder / f"{list(KINDS).index(kind)}-{seed}") for seed, kind in wanted]


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what happened, by kind."""
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        reports = [report for report in done if report["kind"] == kind]
        if not reports:
            continue
        ends = sum((Counter(report["ends"]) for report in reports), Counter())
        slowest = max(reports, key=lambda report: report.get("slowest, s", 0))
        kinds[kind] = {
            "cases": sum(ends.values()) + sum(len(report["findings"]) for report in reports),
            **ends,
            "findings": [finding for report in reports for finding in report["findings"]],
            "seeds": sorted(report["seed"] for report in reports),
            "slowest, s": slowest.get("slowest, s"),
            "slowest": slowest.get("slowest"),
            "memory, MB": max(report.get("memory, MB", 0) for report in reports),
            "processor, s": round(sum(report.get("processor, s", 0) for report in reports)),
        }
    return {"machine": describe_machine(), "hypothesis": version("hypothesis"), "kinds": kinds}


def page(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    kinds = results["kinds"]
    total, found = (sum(count(kind) for kind in kinds.values()) for count in (cases_of, findings_of))
    columns = ("refused", "right", "as the file says")
    rows = [
        f"| {name} | {kind['cases']:,} | {' | '.join(f'{kind.get(column, 0):,}' for column in columns)} "
        f"| {findings_of(kind)} | {kind['slowest, s']} | {kind['memory, MB']} |"
        for name, kind in kinds.items()
    ]
    return (
        "\n\n".join(
            [
                "# Damaged files",
                "Made by `make fuzz`; see [docs/reliability.md](../../docs/reliability.md). In each case, one or two "
                "values or bytes of a file are changed. It must be refused in a sentence, give what the undamaged file "
                "gives, or give what the changed file says, as another reader finds it.",
                f"Machine: {json.dumps(results['machine'])}, hypothesis {results['hypothesis']}",
                f"**{total:,} cases, {found} findings.** Limits of a case: 5 s of processor time, and 1 GB of memory.",
                "| kind | cases | refused | right | as the file says | findings | slowest, s | memory, MB |\n"
                "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows),
                "Memory is that of all cases of a process, beside what it has at their start.",
            ]
        )
        + "\n"
    )


def cases_of(kind: dict[str, Any]) -> int:
    """Return the number of cases."""
    return int(kind["cases"])


def findings_of(kind: dict[str, Any]) -> int:
    """Return the number of cases that ended as they may not."""
    return len(kind["findings"])


def main(arguments: list[str]) -> int:
    """Run the batches that have not been run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", choices=[*KINDS, []], help="all by default")
    parser.add_argument("--batches", type=int, default=10, help=f"of each kind, with {CASES} cases each")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmark-output" / "fuzz", help="for resuming")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    log, memory = options.out / "batches.jsonl", Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="cropeq-fuzz-", dir=memory if memory.is_dir() else None))
    kept = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(report["kind"], report["seed"]): report for report in kept if not report["findings"]}
    try:
        for batch in batches(options.batches, options.kinds or list(KINDS), folder):
            if (batch.kind, batch.seed) not in done:
                report = {"kind": batch.kind, "seed": batch.seed} | ran(batch)
                done[batch.kind, batch.seed] = report
                with open(log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(report) + "\n")
                print(f"{batch.kind}, seed {batch.seed}: {report['ends']}, {len(report['findings'])} found", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results = summary(list(done.values()))
    if not options.kinds:
        (RESULTS / "fuzz.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "fuzz.md").write_text(page(results))
    print(page(results))
    return int(any(kind["findings"] for kind in results["kinds"].values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
