"""The comparison with peers measures what it says: stages of a program, places of results, wins in the first line."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from conftest import blobs

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
MODULES = ("follow", "page", "plan", "programs", "scoring", "stacks")


@pytest.fixture(scope="module")
def peers():
    """Its modules, by name."""
    folders = [str(BENCHMARKS / "peers"), str(BENCHMARKS / "noise")]
    sys.path[:0] = folders
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        for folder in folders:
            sys.path.remove(folder)


@pytest.fixture(scope="module")
def stack(peers):
    truth = ndimage.gaussian_filter(blobs((60, 72, 80)), 1.0)
    return peers.stacks.Stack.acquire(truth, 2.5, photons=20)


def test_cells_of_the_plan_have_names_of_their_own(peers):
    cells = peers.plan.plan()
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.method for cell in cells} == {"interpolation", "Richardson-Lucy", *peers.plan.TRAINED}
    three = [cell for cell in cells if cell.minutes == 3 and cell.method == "ECLARE"]
    assert len(three) == len(peers.stacks.VOLUMES) + 2, "three seeds on the MRI"
    assert sum(cell.estimate for cell in cells) < 2 * 6 * 60, "six hours, two at a time"


def test_the_stages_of_a_program_are_measured(peers, tmp_path):
    """Its CPU time and memory, with those of its children, up to the stage that is the last one wanted."""
    child = "import array; held = array.array('d', [1.0]) * 20_000_000; sum(range(3_000_000))"
    text = f"""
import subprocess, sys
print("stage: child", flush=True)
subprocess.run([sys.executable, "-c", {child!r}], check=True)
print("stage: after", flush=True)
input()
"""
    program = peers.follow.Program([sys.executable, "-c", text])
    program.follow(tmp_path / "log", peers.follow.said, last="after")
    stages = program.record()
    assert list(stages) == ["start", "child", "after"]
    assert stages["child"]["cpu_seconds"] > 0.03 and stages["child"]["peak_mb"] > stages["start"]["peak_mb"] + 20
    with pytest.raises(RuntimeError, match=r"failed \(exit code 3\)"):
        peers.follow.Program([sys.executable, "-c", "raise SystemExit(3)"]).follow(tmp_path / "log", peers.follow.said)


def test_stages_that_begin_at_once_are_all_found(peers, tmp_path):
    text = "print('stage: one\\nstage: two\\nstage: thr', end='', flush=True); print('ee')"
    program = peers.follow.Program([sys.executable, "-c", text])
    program.follow(tmp_path / "log", peers.follow.said)
    assert list(program.record()) == ["start", "one", "two", "three"]


def test_stages_of_progress_bars(peers):
    stage_of = peers.programs._bars(640)
    lines = (
        "loading",
        "  0%|  | 0/640 [00:00<?",
        " 50%| | 320/640 [00:01",
        "  0%|  | 0/128 [00:00<?",
        "  0%| | 0/128 [",
    )
    assert [stage_of(line) for line in lines] == [None, "train", None, "infer, result", "infer, result"]


@pytest.mark.parametrize(
    ("start", "step", "shift"), [(0.0, 1.0, 0.0), (-1.5, 1.0, 0.0), (0.75, 1.02, 0.0), (0.5, 1.0, 0.5)]
)
def test_a_result_on_another_grid_is_placed(peers, stack, start, step, shift):
    """The last shift is one that a result does not know of."""
    truth = ndimage.gaussian_filter(stack.truth, 2.0)
    there = peers.scoring.at(truth, np.arange(len(truth)) * step + start)
    said = start - shift
    found, best = peers.scoring.placed(there, said, step, truth)
    assert best == -shift
    inner = np.s_[8:-8]
    assert np.abs(found - truth)[inner].max() < 0.01 * np.ptp(truth)


def test_the_truth_has_neither_bias_nor_noise(peers, stack):
    base = ndimage.zoom(stack.raw.astype(float), (len(stack.truth) / len(stack.raw), 1, 1), order=1)
    exact = peers.scoring.scores_of(stack.truth, base, stack)
    assert np.abs(exact["bias"]).max() < 0.01 and exact["gain dim"] == exact["gain bright"] == 0
    more = peers.scoring.scores_of(1.1 * stack.truth, base, stack)
    assert more["bias"] == pytest.approx([10] * 8, abs=0.02) and more["psnr"] < 60
    assert peers.scoring.scores_of(base, base, stack)["gain bright"] == 1


def a_record(method, minutes, seed=0, **rows):
    stages = {"start": {"cpu_seconds": 1.0}, "train": {"cpu_seconds": 60.0 * minutes, "seconds": 1.0, "peak_mb": 900.0}}
    stages |= {f"infer, {name}": {"cpu_seconds": 5.0, "seconds": 5.0, "peak_mb": 500.0} for name in rows}
    found = {name: {"psnr": psnr, "ssim": psnr / 40, "bias": [0.5, -1.0]} for name, psnr in rows.items()}
    return {"volume": "MRI x4", "method": method, "minutes": minutes, "seed": seed, "rows": found, "stages": stages}


def test_the_first_line_says_where_a_peer_wins(peers):
    ours = [a_record("ours", 3, seed, **{"both planes": 29.0 + seed}) for seed in (0, 1)]
    rows = peers.page.rows_of([*ours, a_record("CARE", 3, result=28.0), a_record("CARE", 15, result=31.0)])
    first = "No peer wins in any column. Not measured yet: ECLARE, batch 16, padded."
    assert peers.page.first_line(rows) == first
    mean = next(row for row in rows if row["ours"])
    assert (mean["n"], mean["psnr"], mean["psnr, sd"]) == (2, 29.5, pytest.approx(0.5**0.5))
    assert "| ours, both planes | 3 | 2 | 29.50 ± 0.71 |" in peers.page.table(rows)
    rows = peers.page.rows_of([*ours, a_record("CARE", 3, result=30.0)])
    assert peers.page.first_line(rows).startswith(
        "**Peers win** in PSNR after 3 min (IsotropicCARE: 30.00 dB, ours: 29.50 dB); SSIM after 3 min"
    )
    both = a_record("ours", 3, **{"both planes": 29.0, "one plane": 27.0})
    said = peers.page.first_line(peers.page.rows_of([both, a_record("CARE", 3, result=28.0)]))
    alone = "Against *ours, one plane*, peers also win in PSNR after 3 min (IsotropicCARE: 28.00 dB, ours: 27.00 dB"
    assert said.startswith(f"No peer wins in any column. {alone}); SSIM")
    cheap = a_record("interpolation", 0, cubic=20.0)
    cheap["stages"] = {"infer, cubic": {"cpu_seconds": 0.1, "seconds": 0.1, "peak_mb": 100.0}}
    rows = peers.page.rows_of([*ours, cheap])
    assert "time to apply (cubic: 0.1 s, ours: 5.0 s); memory (cubic: 100 MB" in peers.page.first_line(rows)


def test_the_table_of_tilers_says_who_is_better(peers):
    def row(way, difference, seconds):
        costs = {name: {"cpu_seconds": seconds, "peak_mb": 700.0} for name in ("tiles", "whole")}
        network = "padded" if way == "MONAI" else "valid"
        return {
            "way": way,
            "network": network,
            "how": "",
            "difference (%)": difference,
            "equal": not difference,
        } | costs

    text = peers.page.tilers_table({"rows": [row("ours", 0.0, 9.0), row("paper", 0.0, 20.0), row("MONAI", 4.0, 5.0)]})
    first, _, _, *lines = text.splitlines()
    assert first == "**Others win, or equal ours,** in exactness (bit for bit, too: paper)."
    assert [line.split(" | ")[3] for line in lines[1:]] == ["0, bit for bit", "0, bit for bit", "4"]


@pytest.mark.parametrize("method", ["ours", "padded"])
def test_a_tiny_cell_of_this_project(peers, stack, tmp_path, method):
    """It is trained on photons and applied in a process of its own, and scored."""
    cell = peers.plan.Cell("phantom x2.433", method, minutes=0.002)
    results, cost = peers.programs.measure(cell, stack, tmp_path, core=None)
    assert set(results) == {"one plane", "both planes"}
    stages = cost["stages"]
    assert {"trial", "start", "train", "infer, one plane", "infer, both planes"} <= set(stages)
    assert cost["patches"] == cost["steps"] * cost["batch"] and stages["train"]["cpu_seconds"] > 0
    for result in results.values():
        scores = peers.scoring.scores_of(result, result, stack)
        assert scores["psnr"] > 10 and scores["gain dim"] == 1


def test_the_committed_page_has_the_committed_figures(peers):
    results = BENCHMARKS / "results"
    records = peers.page.read_cells(results)
    page = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    assert records and peers.page.tables(records, len(peers.plan.plan())) in page
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert peers.page.sentence(records) in readme
    summary = json.loads((results / "peers.json").read_text(encoding="utf-8"))
    assert len(summary["cells"]) == len(records)


def test_a_report_of_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- end -->\nafter\n<!-- tilers -->\nold\n<!-- end -->\n")
    readme = tmp_path / "readme.md"
    readme.write_text("before\n<!-- peers -->\nold\n<!-- end -->\nafter\n")
    words = ["--report", "--results", str(tmp_path), "--page", str(page), "--readme", str(readme)]
    subprocess.run([sys.executable, str(BENCHMARKS / "peers"), *words], check=True, timeout=120)
    assert page.read_text().startswith("before\n<!-- tables -->\nNo cell has been measured yet.\n<!-- end -->\nafter\n")
    assert "not measured yet" in readme.read_text() and "old" not in readme.read_text()
    assert json.loads((tmp_path / "peers.json").read_text())["cells"] == []
