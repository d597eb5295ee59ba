"""Plan and report of the training benchmark; test_evaluation tests the measurements."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from conftest import blobs

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "training.py"


@pytest.fixture(scope="module")
def training():
    specification = importlib.util.spec_from_file_location("bench_training", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["bench_training"] = module
    specification.loader.exec_module(module)
    return module


def test_the_default_experiments_come_first(training):
    short, full = training.plan(False), training.plan(True)
    assert full[: len(short)] == short and len(set(full)) == len(full)
    assert {(w.volume, w.factor) for w in short} == {("MRI", 2), ("MRI", 4), ("EM", 4), ("brain", 4)}
    assert {w.column for w in short} == {"cubic", "quintic", "fast, 1 min", "fast, 3 min", "padded, 3 min"}
    assert len(short) == 4 * 5
    rest = [w.minutes for w in full[len(short) :] if w.minutes]
    assert rest.index(10) > rest.index(3) and rest[-1] == 10
    for volume in ("MRI", "EM", "brain"):
        for factor in (2, 3, 4, 5):
            there = {w.column for w in full if (w.volume, w.factor) == (volume, factor)}
            assert there >= {f"{m}, {t} min" for m in ("fast", "padded") for t in (1, 3, 10)} | {"cubic", "quintic"}
    assert {w.method for w in full if w.factor in (2.433, 2.5)} == {"cubic", "quintic", "fast"}
    assert {w.minutes for w in full if w.method == "valid"} == {3}


def options(folder: Path, *words: str) -> list[str]:
    return ["--data", f"{folder}/data", "--out", f"{folder}/out", "--results", f"{folder}/results", *words]


def test_a_report_without_experiments(tmp_path):
    command = [sys.executable, str(SCRIPT), *options(tmp_path, "--report", "--threads", "1")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "No experiment has been run yet." in printed and printed.count("not run") == 20
    report = json.loads((tmp_path / "results" / "training.json").read_text())
    assert {cell["status"] for cell in report["cells"]} == {"not run"}
    assert not (tmp_path / "out").exists()


def test_measuring_and_reporting(training, tmp_path, capsys):
    """On a small volume with the name of a real one; the others are skipped with a message."""
    (tmp_path / "data").mkdir()
    spots = (blobs((48, 72, 80)) * 250).astype(np.uint8)
    tifffile.imwrite(tmp_path / "data" / "em_isotropic_8nm.tif", spots, photometric="minisblack")
    arguments = training.parse(options(tmp_path, "--share", "0.001"))
    wanted = [training.Wanted("EM", 4.0, name) for name in ("cubic", "quintic")]
    wanted += [training.Wanted("EM", 4.0, "fast", 1.0), training.Wanted("MRI", 2.0, "cubic")]
    training.run(wanted, arguments)
    printed = capsys.readouterr().out
    assert "SKIPPED MRI: there is no" in printed
    lines = [line for line in printed.splitlines() if line.startswith("[")]
    assert len(lines) == 3 and all("em_isotropic_8nm x4" in line and "load [" in line for line in lines)
    text = (tmp_path / "results" / "training.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| EM ") and " / " in line)
    assert "not run" not in row
    assert text.count("not run") == 1 and "torch threads" in text and "0.001 of every training time" in text
    report = json.loads((tmp_path / "results" / "training.json").read_text())
    done = [cell for cell in report["cells"] if cell["status"] == "done"]
    assert [cell["method"] for cell in done] == ["cubic", "quintic", "fast"]
    assert len(report["machines"]) == 1 and {cell["machine"] for cell in done} == {0}
    assert done[1]["over_quintic"] == 0 and done[2]["recipe"]["minutes"] == 0.001
    training.run(wanted, arguments)
    assert capsys.readouterr().out.count(", kept\n") == 3
    assert json.loads((tmp_path / "results" / "training.json").read_text()) == report
    for out in ("out", "elsewhere"):
        arguments.out = tmp_path / out  # committed experiments are shown for any output folder
        training.report(training.plan(False), arguments)
        assert (tmp_path / "results" / "training.md").read_text().count("not run") == 20 - 3
