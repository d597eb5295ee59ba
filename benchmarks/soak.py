"""Fault-injection tests for export: every output must equal, byte by byte, one without a fault.

Runs all cases of tests/run/test_faults.py, all states that a loss of power can leave, and all kills of a training, of
workers and of their clients; writes results/soak.json and soak.md.

    python benchmarks/soak.py [ARGUMENTS FOR PYTEST ...]     (arguments select cases; nothing is written)
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from napari_cropeq.evidence.machine import describe_machine, load_average

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "tests/run/test_faults.py",
    "tests/run/test_power_loss.py",
    "tests/run/test_job_array.py::test_the_last_process_repairs_what_others_have_done",
    "tests/run/test_cluster.py::test_workers_are_killed_again_and_again",
    "tests/run/test_cluster.py::test_a_killed_client_is_resumed",
    "tests/core/test_checkpoint.py::test_a_killed_training_is_resumed",
]
RESULTS = ROOT / "benchmarks" / "results"


class Recorder:
    """Collects the outcome of each case from pytest."""

    def __init__(self) -> None:
        self.faults: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
        self.replays: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.skipped: list[str] = []

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Store the description of a test."""
        name = item.originalname.removeprefix("test_").replace("_", " ")
        self.faults[name]["what"] = " ".join((inspect.getdoc(item.function) or "").split())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case, its outputs, and the parts that were computed again."""
        name = report.nodeid.partition("::test_")[2].partition("[")[0].replace("_", " ")
        fault = self.faults[name]
        fault["seconds"] = round(fault["seconds"] + report.duration, 1)
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {report.longrepr[2]}")
        if report.failed:
            self.failures.append(report.nodeid)
        if report.when != "call":
            return
        fault["cases"] += 1
        fault["passed"] += report.passed
        for key, store in report.user_properties:
            if key == "kills":
                fault["killed"] += store
            elif key == "replay":
                self.replays.append(store)
            elif key == "store":
                fault["stores"] += 1
                fault["equal"] += store["equal"]
                fault["killed"] += store["killed"]
                fault["parts computed again at most"] = max(fault["parts computed again at most"], store["parts_lost"])


def report_of(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    total = {
        key: sum(fault.get(key, 0) for fault in results["faults"].values()) for key in ("cases", "stores", "equal")
    }
    parts = [
        "# Fault-injection tests for export",
        "Made by `make soak`; see [docs/benchmarks.md](../../docs/benchmarks.md). The output of each case is "
        "compared, byte by byte, with one without a fault.",
        f"Machine: {json.dumps(results['machine'])}",
        f"**{total['equal']} of {total['stores']} stores equal**, {total['cases']} cases, "
        f"{results['minutes']} minutes, load {results['load']}; {len(results['failures'])} failed, "
        f"{len(results['skipped'])} skipped.",
        "| fault | cases | passed | killed by SIGKILL | stores | equal | parts computed again, at most |\n"
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    columns = ("cases", "passed", "killed", "stores", "equal", "parts computed again at most")
    for name, fault in results["faults"].items():
        parts[-1] += f"\n| {name} | " + " | ".join(str(fault.get(key, 0)) for key in columns) + " |"
    parts.append(
        "A tile is computed in two parts. Three tiles are in progress: one computed, one waiting, one being written."
    )
    if results["replays"]:
        columns = ("name", "operations", "states", "run again", "equal")
        parts.append(
            "Loss of power: recorded operations on files, different states that it can leave, and how many of these "
            "ended, when the command was run again, as without a loss.\n\n"
            "| run | operations | states | run again | equal |\n| --- | --- | --- | --- | --- |"
        )
        parts[-1] += "".join(f"\n| {' | '.join(str(one[key]) for key in columns)} |" for one in results["replays"])
    for title in ("failures", "skipped"):
        parts += [f"{title.capitalize()}:\n\n" + "\n".join(f"- {line}" for line in results[title])] * bool(
            results[title]
        )
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Run all cases and write the report, or run the selected cases and print it."""
    recorder, start, load = Recorder(), time.monotonic(), load_average()
    tests = [str(ROOT / test) for test in TESTS]
    code = pytest.main([*tests, "-q", "-m", "", *arguments], plugins=[recorder])
    results = {
        "machine": describe_machine(),
        "load": [load, load_average()],
        "minutes": round((time.monotonic() - start) / 60, 1),
        "faults": recorder.faults,
        "replays": [replay for replay in recorder.replays if replay["run again"] == replay["states"]],
        "failures": recorder.failures,
        "skipped": recorder.skipped,
    }
    if arguments:
        print(report_of(results))
    else:
        (RESULTS / "soak.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "soak.md").write_text(report_of(results))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
