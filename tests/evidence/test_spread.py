"""Scores over several volumes: numbers, figures, and the middle plane."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from conftest import blobs, random_network
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import NETWORKS
from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.evaluate.evaluation import Evaluation
from napari_cropeq.evidence.evaluate.experiment import Experiment
from napari_cropeq.evidence.evaluate.figures import PALETTE, draw_planes, draw_scores
from napari_cropeq.evidence.evaluate.middle_plane import middle_planes
from napari_cropeq.evidence.evaluate.seeds import Spread, spread_rows, summarise
from napari_cropeq.evidence.evaluate.table import labels
from napari_cropeq.evidence.evaluate.truth import Truth, degrade
from napari_cropeq.evidence.evaluate.upscaling import Refinement, cubic, quintic

VALUES = [
    pytest.param([31.25], id="one"),
    pytest.param([31.0, 35.0], id="two"),
    pytest.param([-0.5, 0.25, 4.0, 0.125], id="even"),
    pytest.param([3.0, 1.0, 2.0, 9.0, 2.0], id="odd"),
    pytest.param(list(np.random.default_rng(0).normal(30, 2, 101)), id="many"),
]


@pytest.mark.parametrize("values", VALUES)
def test_a_spread_equals_numpys(values):
    spread, numbers = Spread.of(values), np.array(values)
    assert spread.n == len(values)
    assert (spread.sd is None) == (len(values) == 1)
    assert spread.sd is None or spread.sd == pytest.approx(np.std(numbers, ddof=1), rel=1e-12)
    expected = [np.mean(numbers), np.median(numbers), np.min(numbers), np.max(numbers)]
    assert [spread.mean, spread.median, spread.min, spread.max] == pytest.approx(expected, rel=1e-12)


def test_a_spread_by_hand():
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3, 3.0, pytest.approx(7**0.5), 2.0, 1.0, 6.0)
    with pytest.raises(ArgumentError, match="no values to summarise"):
        Spread.of([])


def a_record(volume: str, method: str, psnr: float | None, factor: float = 4.0, **changes) -> dict:
    """Return an invented record; the checksum of the volume is made from its name, unless given."""
    key = {"truth": volume, "checksum": f"{volume}0", "factor": factor, "fwhm": factor, "axis": "z", "rim": 16}
    key["method"] = method
    if method not in ("cubic", "quintic"):
        key |= {"minutes": 2.0, "patches": None, "seed": 0, "overrides": {}, "recipe": {"network": method}}
    ssim = 1.0 if psnr is None else psnr / 50
    return {"key": key | changes, "scores": {"psnr": psnr, "ssim": ssim}}


RECORDS = [
    *(a_record(v, "quintic", p) for v, p in zip("abc", (30.0, 33.0, 28.0), strict=True)),
    *(a_record(v, "valid", p) for v, p in zip("abc", (32.0, 36.0, 31.5), strict=True)),
    *(a_record(v, "padded", p) for v, p in zip("ab", (32.5, 35.0), strict=True)),
]


def of(summary: dict, kind: str, method: str, measure: str, factor: float = 4.0) -> dict:
    (entry,) = (e for e in summary[kind] if (e["method"], e["factor"]) == (method, factor))
    return entry["spread"][measure]


MEASURED = [
    pytest.param("methods", "quintic", "psnr", [30, 33, 28], id="psnr"),
    pytest.param("methods", "valid", "ssim", [0.64, 0.72, 0.63], id="ssim"),
    pytest.param("methods", "valid", "psnr_over_quintic", [2, 3, 3.5], id="gain"),
    pytest.param("methods", "padded", "ssim_over_quintic", [0.05, 0.04], id="gain-in-ssim"),
    pytest.param("methods", "quintic", "psnr_over_quintic", [0, 0, 0], id="gain-over-itself"),
    pytest.param("pairs", "valid − padded", "psnr", [-0.5, 1.0], id="pair"),
    pytest.param("pairs", "valid − padded", "ssim", [-0.01, 0.02], id="pair-in-ssim"),
]


@pytest.mark.parametrize(("kind", "method", "measure", "values"), MEASURED)
def test_differences_are_taken_on_each_volume(kind, method, measure, values):
    found = of(summarise(RECORDS[::-1]), kind, method, measure)
    numbers = np.array(values, float)
    assert found["n"] == len(values)
    expected = [numbers.mean(), numbers.std(ddof=1), np.median(numbers), numbers.min(), numbers.max()]
    assert [found[name] for name in ("mean", "sd", "median", "min", "max")] == pytest.approx(expected, abs=1e-12)


APART = [
    pytest.param({"factor": 2.0, "fwhm": 2.0}, id="factor"),
    pytest.param({"fwhm": 6.0}, id="fwhm"),
    pytest.param({"rim": 8}, id="rim"),
    pytest.param({"minutes": 10.0}, id="budget"),
    pytest.param({"seed": 1}, id="seed"),
    pytest.param({"overrides": {"filters": 4}}, id="setting"),
]


@pytest.mark.parametrize("change", APART)
def test_records_that_differ_in_more_than_the_volume_are_separate(change):
    other = [a_record(v, "padded", 50.0, **change) for v in "abc"]
    summary = summarise([*RECORDS, *other])
    assert [len(e["volumes"]) for e in summary["methods"]] == [3, 3, 2, 3]
    (pair,) = summary["pairs"]
    assert pair["spread"]["psnr"]["max"] == 1.0, "only equal settings are paired"


def test_volumes_are_identified_by_their_checksum():
    same = [a_record("a", "quintic", p, checksum=c) for p, c in ((30.0, "one"), (31.0, "two"), (31.0, "two"))]
    valid = [a_record("a", "valid", p, checksum=c) for p, c in ((33.0, "one"), (32.0, "two"))]
    summary = summarise([*same, *valid])
    assert of(summary, "methods", "quintic", "psnr")["n"] == 2
    gain = of(summary, "methods", "valid", "psnr_over_quintic")
    assert (gain["min"], gain["max"]) == (1.0, 3.0), "each over the quintic of its own volume"
    assert summary["methods"][0]["volumes"] == [{"truth": "a", "checksum": "one"}, {"truth": "a", "checksum": "two"}]


def test_gains_over_interpolations_of_an_earlier_run():
    summary = summarise(RECORDS[3:], RECORDS)
    assert [e["method"] for e in summary["methods"]] == ["valid", "padded"]
    assert of(summary, "methods", "valid", "psnr_over_quintic")["n"] == 3
    assert "psnr_over_quintic" not in summarise(RECORDS[3:])["methods"][0]["spread"]


def test_an_infinite_psnr_is_left_out():
    results = copy.deepcopy(RECORDS)
    results[3]["scores"]["psnr"] = None
    summary = summarise(results)
    assert (
        of(summary, "methods", "valid", "psnr")["n"] == of(summary, "methods", "valid", "psnr_over_quintic")["n"] == 2
    )
    assert of(summary, "methods", "valid", "ssim")["n"] == 3
    assert of(summary, "pairs", "valid − padded", "psnr") == asdict(Spread.of([1.0]))
    json.dumps(summary, allow_nan=False)


def test_a_summary_as_rows():
    rows = [row for row in spread_rows(summarise(RECORDS)) if row[2] in ("valid", "valid − padded", "quintic")]
    assert rows == [
        ["PSNR (dB)", "4", "quintic", "–", "3", "30.33", "2.52", "30.00", "28.00", "33.00"],
        ["PSNR (dB)", "4", "valid", "2 min", "3", "33.17", "2.47", "32.00", "31.50", "36.00"],
        ["SSIM", "4", "quintic", "–", "3", "0.6067", "0.0503", "0.6000", "0.5600", "0.6600"],
        ["SSIM", "4", "valid", "2 min", "3", "0.6633", "0.0493", "0.6400", "0.6300", "0.7200"],
        ["PSNR over quintic (dB)", "4", "valid", "2 min", "3", "+2.83", "0.76", "+3.00", "+2.00", "+3.50"],
        ["SSIM over quintic", "4", "valid", "2 min", "3", "+0.0567", "0.0153", "+0.0600", "+0.0400", "+0.0700"],
        ["difference of PSNR (dB)", "4", "valid − padded", "2 min", "2", "+0.25", "1.06", "+0.25", "-0.50", "+1.00"],
        [
            "difference of SSIM",
            "4",
            "valid − padded",
            "2 min",
            "2",
            "+0.0050",
            "0.0212",
            "+0.0050",
            "-0.0100",
            "+0.0200",
        ],
    ]


def test_equal_names_are_distinguished():
    keys = [{"truth": n, "checksum": c} for n, c in (("a", "123456789"), ("b", "2"), ("a", "345678912"), ("b", "2"))]
    assert labels(keys) == {("a", "123456789"): "a (123456)", ("b", "2"): "b", ("a", "345678912"): "a (345678)"}


def colours(path: Path) -> set[str]:
    pixels = np.rint(255 * imread(path)[..., :3]).astype(int).reshape(-1, 3)
    return {"#{:02x}{:02x}{:02x}".format(*pixel) for pixel in np.unique(pixels, axis=0)}


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


SEVERAL = [pytest.param("abc", True, id="boxes"), pytest.param("a", False, id="points-only")]


@pytest.mark.parametrize(("volumes", "boxes"), SEVERAL)
@pytest.mark.parametrize("measure", ["psnr", "ssim"])
def test_scores_are_drawn_in_one_colour_for_each_method(tmp_path, volumes, boxes, measure):
    results = [r for r in RECORDS if r["key"]["truth"] in volumes]
    results += [a_record(v, "quintic", None, factor=2.0) for v in volumes]  # infinite PSNR is not drawn
    draw_scores(results, measure, tmp_path / "scores.png")
    found = colours(tmp_path / "scores.png")
    _, black, orange, _, blue, pink, *_ = PALETTE
    assert {black, blue, pink} <= found and orange not in found
    fill = [0.2 * part + 0.8 * 255 for part in rgb(blue)]  # a box is pale over white
    assert any(np.abs(np.subtract(rgb(colour), fill)).max() < 2 for colour in found) == boxes
    picture = imread(tmp_path / "scores.png")[..., :3]
    left = picture[:, : picture.shape[1] * 3 // 4]  # the legend is on the right
    columns = np.flatnonzero((np.abs(255 * left - rgb(blue)).max(axis=-1) < 1).any(axis=0))
    assert (np.ptp(columns) > 30) == boxes, "points alone are narrow, without a box or its lines"


@pytest.mark.parametrize("planes", [None, "y", "both"], ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_region_equals_that_of_the_whole(kind, planes):
    degraded = degrade(blobs((30, 90, 76)), 0, 2.5)
    network, box = random_network(kind, filters=4, blocks=2), Box((3, 40, 5), (29, 43, 60))
    refinement = Refinement(Model(network, degraded.acquisition, []), degraded, planes, "cpu")
    region = refinement.region(box)
    assert list(refinement.run())[-1] == 1
    if kind == "padded":
        assert np.abs(region - refinement.image[box.slices]).max() < 1e-5
    else:
        assert np.array_equal(region, refinement.image[box.slices])


TINY = {"patches": 16, "overrides": {"filters": 4, "blocks": 2, "validation": 4}, "device": "cpu"}


@pytest.mark.parametrize("side", [256, 33])
@pytest.mark.parametrize("axis", [0, 2], ids="zx")
def test_the_middle_plane_equals_that_of_the_restored_volumes(tmp_path, monkeypatch, axis, side):
    monkeypatch.setattr("napari_cropeq.evidence.evaluate.middle_plane.SIDE", side)
    shape = [70, 66, 68]
    shape[axis] = 41
    truth, factor = Truth("spots", blobs(shape)), 2.5
    kinds = {"cubic": {}, "quintic": {}, "valid": TINY, "padded": TINY}
    experiments = [Experiment(truth, factor, method, axis=axis, **options) for method, options in kinds.items()]
    evaluation = Evaluation(experiments, tmp_path)
    whole = {}
    for step in evaluation.run():
        if step.record is not None and step.experiment.trained:
            model = Model.load(evaluation.folder / step.record["model"])
            refinement = Refinement(model, evaluation.degrade(step.experiment), device="cpu")
            assert list(refinement.run())[-1] == 1
            whole[step.experiment.method] = refinement.image
    degraded = degrade(truth.voxels, axis, factor)
    whole |= {"cubic": cubic(degraded), "quintic": quintic(degraded)}
    (plane,) = middle_planes(evaluation, truth)
    lateral, across = (2, 1) if axis == 0 else (1, 0)
    index, length = plane.box.slices, degraded.sr_shape[axis]
    assert plane.axes == "zyx"[axis] + "zyx"[lateral]
    assert plane.box.start[across] == (truth.shape[across] - 1) // 2 and plane.box.shape[across] == 1
    assert plane.truth.shape == (min(side, length), min(side, truth.shape[lateral]))

    def flat(volume):
        return np.moveaxis(volume[index], (axis, lateral, across), (0, 1, 2))[..., 0]

    assert np.array_equal(plane.truth, flat(truth.voxels))
    assert [r.name for r in plane.restored] == ["cubic", "quintic", "valid, 16 patches", "padded, 16 patches"]
    for restored, result in zip(plane.restored, evaluation.records(), strict=True):
        expected = flat(whole[result["key"]["method"]])
        assert np.abs(restored.image - expected).max() < 1e-5 * np.ptp(truth.voxels)
        assert restored.psnr == result["scores"]["psnr"]
    # Each row of the truth is on a shown slice.
    rows = (np.arange(len(plane.truth)) - plane.first) // factor
    number = ((np.arange(len(plane.truth)) + plane.box.start[axis]) // factor).astype(int)
    lines = np.moveaxis(degraded.source, (axis, lateral, across), (0, 1, 2))[:, index[lateral], index[across].start]
    assert np.array_equal(plane.degraded[rows.astype(int)], lines[number])
    draw_planes([plane], 16, tmp_path / "planes.png")
    assert imread(tmp_path / "planes.png").std() > 0.1


def test_an_experiment_without_its_model_has_no_plane(tmp_path):
    truth = Truth("spots", blobs((40, 66, 68)))
    evaluation = Evaluation([Experiment(truth, 4.0, "quintic"), Experiment(truth, 4.0, "valid", **TINY)], tmp_path)
    for _ in evaluation.run():
        pass
    (model,) = tmp_path.glob("cells/*.safetensors")
    model.unlink()
    (plane,) = middle_planes(evaluation, truth)
    assert [restored.image is None for restored in plane.restored] == [False, True]
    draw_planes([plane], 16, tmp_path / "planes.png")
    assert (tmp_path / "planes.png").stat().st_size > 1000
