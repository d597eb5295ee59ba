"""The page of evidence agrees with the stored results."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_cropeq import __version__

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"


@pytest.fixture(scope="module")
def evidence():
    sys.path.insert(0, str(BENCHMARKS))  # it imports the benchmark of trainings
    try:
        specification = importlib.util.spec_from_file_location("evidence", BENCHMARKS / "evidence.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules["evidence"] = module
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_the_program_that_runs_the_commands_exists(evidence):
    ran = subprocess.run([*evidence.PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert __version__ in ran.stdout


def test_every_table_agrees_with_the_stored_results(evidence):
    text = PAGE.read_text(encoding="utf-8")
    assert evidence.filled(text) == text, "make evidence"
    names = re.findall(r"<!-- (\w+) -->\n\|", text)
    assert set(names) == set(evidence.tables()), "each is on the page, and none is empty"


def test_a_wrong_number_is_replaced(evidence):
    text = PAGE.read_text(encoding="utf-8")
    (line,) = re.findall(r"<!-- verify_x4_valid -->\n.*\n.*\n(\|.*)\n", text)
    assert evidence.filled(text.replace(line, line.replace(" 0 ", " 1 "))) == text


def test_every_picture_exists():
    names = re.findall(r"!\[[^]]*\]\(([^)]*)\)", PAGE.read_text(encoding="utf-8"))
    assert len(names) >= 6
    assert [name for name in names if not (PAGE.parent / name).is_file()] == []


def test_tiles_of_crop_equivariant_networks_equal_the_whole(evidence):
    """The main statement of the page."""
    for step in evidence.steps():
        if not step.name.startswith("verify"):
            continue
        rows = evidence.kept(step.name)["rows"]
        exact = [row for row in rows if row["network"] != "padded"]
        padded = [row["mse"] for row in rows if row["network"] == "padded"]
        assert exact and all((row["mse"], row["largest"], row["differing"]) == (0, 0, 0) for row in exact)
        assert len(padded) >= 3 and padded == sorted(padded, reverse=True) and padded[-1] > 0
