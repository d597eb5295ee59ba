"""The benchmark of speed, on a few voxels: each row is a ratio, and without a GPU it says so."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed.py"


@pytest.fixture(scope="module")
def speed():
    specification = importlib.util.spec_from_file_location("bench_speed", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_measuring_and_reporting(speed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "SIZES", {4: ((16, 2, 40), 1)})
    monkeypatch.setattr(speed, "GROWTH", (1, 2))
    monkeypatch.setattr(speed, "SMALLEST", (16, 4, 20))
    monkeypatch.setattr(speed, "SIDE", {"cpu": 64})
    output = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed.py", "--filters", "4", "--output", str(output)])
    speed.main()
    values = json.loads(output.read_text(encoding="utf-8"))
    (row,) = values["cpu"]["rows"]
    methods = {"ours", "network alone", "paper", "product", "product by oneDNN", "dask.map_overlap"}
    assert set(row["seconds"]) - {"MONAI"} == methods and row["voxels"] == 16 * 2 * 40
    assert row["of the network alone"] > 0 and row["times the paper's way"] > 0
    assert [row["times"] for row in values["cpu"]["growth"]["rows"]] == [1, 2]
    text = output.with_suffix(".md").read_text(encoding="utf-8")
    assert values["cpu"]["machine"]["processor"] in text
    if not torch.cuda.is_available():
        assert speed.NO_GPU in text and speed.NO_GPU in capsys.readouterr().out


def test_the_methods_compute_the_same_planes(speed):
    """The network alone gets the shapes of a real run, and Dask's blocks with halo give planes of the same size."""
    shape = (16, 2, 40)
    predictor = speed.predictor_of("valid", 4, shape, "cpu")
    for _, one, rows, columns in speed.shapes_of(predictor, shape):
        assert one == 1 and (rows - 32) * (columns - 32) > 0
    sizes = [n * (h - 32) * (w - 32) for n, _, h, w in speed.shapes_of(predictor, shape)]
    assert sum(sizes) == 16 * 2 * 40
