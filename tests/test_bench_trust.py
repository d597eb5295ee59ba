"""The trust benchmark measures what it says: exact expected errors score as such, and a truth recovers itself."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LAPLACE = {0.5: 0.6931, 0.8: 1.6094, 0.9: 2.3026}  # half-widths of its intervals, in mean absolute errors


@pytest.fixture(scope="module")
def trust():
    """Its modules, by name."""
    folders = [str(BENCHMARKS / "trust"), str(BENCHMARKS / "noise")]
    sys.path[:0] = folders
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in ("measures", "planted", "tables")})
    finally:
        for folder in folders:
            sys.path.remove(folder)


@pytest.fixture
def laplace(rng):
    """Expected errors that differ by a factor of 100, and errors that have exactly these means."""
    expected = np.exp(rng.uniform(np.log(0.1), np.log(10), 100_000))
    return rng.laplace(size=expected.shape) * expected, expected


def test_exact_expected_errors_cover_what_they_promise(trust, laplace):
    scores = trust.measures.judged(*laplace, LAPLACE)
    assert [scores[name] for name in ("50 %", "80 %", "90 %")] == pytest.approx([50, 80, 90], abs=1)
    assert scores["error / expected"] == pytest.approx(1, abs=0.03)
    assert scores["rank correlation"] == pytest.approx(scores["rank correlation if exact"], abs=0.01)
    assert scores["rank correlation"] > 0.6


def test_expected_errors_that_are_half_as_large_as_they_should_be_cover_less(trust, laplace):
    error, expected = laplace
    scores = trust.measures.judged(error, expected / 2, LAPLACE)
    assert scores["error / expected"] == pytest.approx(2, abs=0.06)
    assert scores["50 %"] == pytest.approx(100 * (1 - 0.5**0.5), abs=1)  # 1 - exp(-ln(2) / 2)


@pytest.mark.parametrize(
    ("informed", "share"), [pytest.param(True, 100, id="knows where"), pytest.param(False, 20, id="by chance")]
)
def test_large_errors_are_flagged_where_they_are_expected(trust, rng, informed, share):
    error = np.where(np.arange(100_000) % 10 == 0, 10.0, 1.0)
    expected = error + rng.uniform(0, 1e-3, error.shape) if informed else rng.uniform(1, 2, error.shape)
    assert trust.measures.flagged(error, expected) == pytest.approx(share, abs=2)
    nowhere = np.zeros(error.shape, bool)
    assert np.isnan(trust.measures.flagged(error, expected, nowhere))


@pytest.mark.parametrize("name", ["thin sheets across z", "pattern with a period of 6 voxels"])
def test_a_truth_recovers_itself_and_invents_nothing(trust, name):
    planted = trust.planted
    truth, structure, glow = planted.truth_with(planted.STRUCTURES[name](), 0)
    scores = planted.scored([truth, truth], truth, structure, glow, name)
    assert scores["recovered (%)"] == pytest.approx(100, abs=0.1)
    assert scores["invented (%)"] == pytest.approx(0, abs=0.1)
    none = planted.scored([truth - structure] * 2, truth, structure, glow, name)
    assert none["recovered (%)"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("difference", "word"),
    [([-3, -2, -4], "better"), ([3, 2, 4], "worse"), ([-3, 2, 1], "no difference"), ([-3], "")],
    ids=["nearer", "further", "both", "one alone"],
)
def test_a_verdict_needs_an_interval_without_0(trust, difference, word):
    assert trust.tables.verdict(np.array(difference, float)) == word


def test_the_page_has_the_tables_of_the_results(trust, tmp_path):
    cells = tmp_path / "trust-cells"
    cells.mkdir()
    values = {method: {"spots": 3.0} for method in trust.tables.METHODS}
    for seed in (0, 1):
        record = {"part": "tasks", "cell": "spots", "seed": seed, "machine": {}, "scores": values}
        (cells / f"tasks-spots-{seed}.json").write_text(json.dumps(record))
    page = tmp_path / "page.md"
    first, last = (mark.format("tasks") for mark in trust.tables.MARKS)
    page.write_text(f"Before.\n{first}old{last}\nAfter.\n")
    trust.tables.write_report(tmp_path, page)
    text = page.read_text()
    assert "| spots | 2 | 3 | 3 | 3 | 3 |" in text and "old" not in text
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n")
