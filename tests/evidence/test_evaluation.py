"""Degrading a truth, restoring it, scoring the result; resuming; refused arguments."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from conftest import acquired, blobs, make_predictor, random_network, textured_volume
from napari_cropeq.cli.main import main
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import NETWORKS
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training.training import TrainingConfig
from napari_cropeq.errors import ArgumentError, ImageError
from napari_cropeq.evidence.evaluate import metrics
from napari_cropeq.evidence.evaluate import score as scoring
from napari_cropeq.evidence.evaluate.evaluation import Evaluation
from napari_cropeq.evidence.evaluate.experiment import Experiment, methods
from napari_cropeq.evidence.evaluate.score import score
from napari_cropeq.evidence.evaluate.table import gain_of, score_table
from napari_cropeq.evidence.evaluate.truth import Truth, degrade
from napari_cropeq.evidence.evaluate.upscaling import Refinement, cubic, quintic
from napari_cropeq.evidence.records import read_records, write_json
from processes import cropeq

SPOTS = blobs((48, 72, 80))
BUDGET = {"patches": 32}
TINY = {"patches": 32, "overrides": {"filters": 4, "validation": 4}, "device": "cpu"}
WORDS = ("--patches", "32", "--set", "filters=4", "--set", "validation=4", "--device", "cpu")


def a_truth(voxels: np.ndarray = SPOTS, name: str = "spots") -> Truth:
    return Truth(name, voxels, (1.0, 1.0, 1.0), "micrometer")


def scipy_degraded(truth: np.ndarray, axis: int, factor: float, fwhm: float) -> np.ndarray:
    """Blur by scipy's filter, then sample by scipy's spline at the centres of the slices."""
    sigma = fwhm / FWHM_PER_SIGMA
    blurred = ndimage.gaussian_filter1d(
        truth.astype(np.float64), sigma, axis, mode="mirror", radius=math.ceil(4 * sigma)
    )
    lines = [np.arange(n, dtype=np.float64) for n in truth.shape]
    lines[axis] = (np.arange(int(truth.shape[axis] / factor)) + 0.5) * factor - 0.5
    return ndimage.map_coordinates(blurred, np.meshgrid(*lines, indexing="ij"), order=5, mode="mirror")


DEGRADATIONS = [
    pytest.param(2.0, None, id="2"),
    pytest.param(4.0, None, id="4"),
    pytest.param(2.433, None, id="paper-step"),
    pytest.param(2.5, 6.0, id="wider-than-its-step"),
    pytest.param(5.0, 1.5, id="narrower-than-its-step"),
]


@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize(("factor", "fwhm"), DEGRADATIONS)
def test_degradation_equals_scipys(factor, fwhm, axis):
    truth = textured_volume((37, 31, 43))
    degraded = degrade(truth, axis, factor, fwhm)
    expected = scipy_degraded(truth, axis, factor, fwhm or factor)
    assert degraded.source.shape == expected.shape and degraded.source.dtype == np.float32
    assert np.abs(degraded.source - expected).max() < 1e-5 * np.ptp(truth)
    assert np.abs(np.diff(expected, axis=axis)).max() > 0.02 * np.ptp(truth), "a shift by a slice would show"
    assert degraded.acquisition.factor == factor and degraded.acquisition.fwhm_px == (fwhm or factor)
    reach = math.floor(expected.shape[axis] * factor + 1e-6)
    assert degraded.sr_shape == tuple(reach if a == axis else n for a, n in enumerate(truth.shape))
    assert degraded.cut == truth.shape[axis] - reach


def test_degradation_equals_that_of_the_other_tests():
    assert np.abs(degrade(SPOTS, 0, 4).source - acquired(SPOTS, 4)).max() < 1e-4


def test_degrading_in_parts_changes_nothing(monkeypatch):
    whole = degrade(SPOTS, 1, 2.5).source
    monkeypatch.setattr("napari_cropeq.evidence.evaluate.truth.BLOCK", 5 * 72 * 80)
    assert np.allclose(degrade(SPOTS, 1, 2.5).source, whole, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("factor", [2.0, 2.433, 5.0])
def test_interpolations(factor, axis):
    degraded = degrade(textured_volume((37, 31, 43)), axis, factor)
    lines = [np.arange(n, dtype=np.float64) for n in degraded.sr_shape]
    lines[axis] = (lines[axis] + 0.5) / factor - 0.5
    spline = ndimage.spline_filter1d(degraded.source.astype(np.float64), 3, axis, mode="mirror")
    expected = np.moveaxis(np.empty(degraded.sr_shape), axis, 0)
    for row, position in zip(expected, lines[axis], strict=True):
        taps = np.arange(math.floor(position) - 1, math.floor(position) + 3)
        distance = np.abs(position - taps)
        weights = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clip(0) ** 3 / 6)
        last = spline.shape[axis] - 1
        folded = last - np.abs(last - np.abs(taps))
        row[:] = np.tensordot(weights, np.take(spline, folded, axis), (0, axis))
    image = cubic(degraded)
    assert image.shape == degraded.sr_shape
    assert np.abs(image - np.moveaxis(expected, 0, axis)).max() < 1e-5 * np.ptp(degraded.source)
    predictor = make_predictor(degraded.source, factor, axis)
    reference = predictor.interpolated(Box.whole(predictor.sr_shape))
    assert np.abs(quintic(degraded) - reference).max() < 1e-5 * np.ptp(degraded.source)


def refined(kind: str, planes: str | None, factor: float = 2.5) -> tuple[Refinement, Predictor]:
    """Return a finished refinement, and the predictor that an export of the same volume uses."""
    degraded = degrade(blobs((30, 90, 76)), 0, factor)
    network, scale = random_network(kind, filters=4, blocks=2), Normalisation.measure(degraded.source)
    refinement = Refinement(Model(network, degraded.acquisition, []), degraded, planes, "cpu")
    shares = list(refinement.run())
    assert shares == sorted(shares) and shares[-1] == 1
    return refinement, Predictor(network, degraded.acquisition, degraded.source, scale, planes, "cpu")


@pytest.mark.parametrize("planes", [None, "y", "both"], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind != "padded"])
def test_refinement_equals_an_export(kind, planes):
    refinement, predictor = refined(kind, planes)
    assert np.array_equal(refinement.image, predictor(Box.whole(predictor.sr_shape)))
    assert refinement.tiling == "bit-exact on cpu"


@pytest.mark.parametrize("planes", [None, "y", "both"], ids=str)
def test_the_padded_network_sees_whole_planes(planes):
    refinement, predictor = refined("padded", planes)
    scale, network = refinement.normalisation, refinement.network
    image = torch.from_numpy(scale.apply(quintic(refinement.degraded)))  # (z, y, x)
    along_x = network.predict(image.transpose(0, 1)[:, None])[:, 0].transpose(0, 1)
    along_y = network.predict(image.permute(2, 0, 1)[:, None])[:, 0].permute(1, 2, 0)
    expected = {None: along_x, "y": along_y, "both": (along_x + along_y) / 2}[planes]
    assert np.abs(refinement.image - scale.undo(expected.numpy())).max() < 1e-4
    assert refinement.tiling == "whole planes"
    assert np.abs(predictor(Box.whole(predictor.sr_shape)) - refinement.image).max() > 1e-3, "tiles would show seams"


@pytest.mark.parametrize("part", [7, 20, 192])
@pytest.mark.parametrize("border", [0, 5])
def test_scores_equal_those_of_scikit_image(monkeypatch, border, part):
    for module in (metrics, scoring):
        monkeypatch.setattr(module, "PART", part)
    truth = textured_volume((24, 31, 40))
    image = ndimage.gaussian_filter(truth.astype(np.float32), 0.7)
    found = score(image, truth, border)
    inner = tuple(slice(border, n - border) for n in truth.shape)
    one, other = truth[inner].astype(np.float64), image[inner].astype(np.float64)
    assert found.data_range == np.ptp(one) and found.shape == one.shape and found.border == border
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(one, other, data_range=np.ptp(one)), abs=1e-9)
    assert found.ssim == pytest.approx(structural_similarity(one, other, data_range=np.ptp(one)), abs=1e-9)


def test_a_planted_error_changes_the_scores_and_one_in_the_border_does_not():
    truth = SPOTS
    image = ndimage.gaussian_filter(truth, 0.5)
    clean, planted, outside = score(image, truth), image.copy(), image.copy()
    planted[24, 40, 40] += 0.5
    outside[:16], outside[:, -16:], outside[:, :, :16] = 9, 9, 9
    assert score(planted, truth).psnr < clean.psnr - 0.01
    assert score(planted, truth).ssim < clean.ssim - 1e-4
    assert score(outside, truth) == clean
    assert score(outside, truth, 15).psnr < clean.psnr - 10
    assert "rim" in clean.as_json() and "border" not in clean.as_json(), "records keep the name of the field"
    assert score(truth, truth).psnr == math.inf and score(truth, truth).ssim == pytest.approx(1)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def experiments_of(*names: str, truth: Truth | None = None, factor: float = 4.0, **options) -> list[Experiment]:
    truth = truth or a_truth()
    return [
        Experiment(truth, factor, name, **({} if name in ("cubic", "quintic") else TINY | options)) for name in names
    ]


def run(experiments: list[Experiment], folder: Path) -> list[str]:
    """Run an evaluation and return the last stage of each experiment."""
    evaluation = Evaluation(experiments, folder)
    steps = list(evaluation.run())
    shares = [step.share for step in steps]
    assert shares == sorted(shares) and shares[-1] == 1
    ended = [step for step in steps if step.record is not None]
    assert [step.record for step in ended] == evaluation.records()
    return [step.stage for step in ended]


def test_the_records_of_all_methods(tmp_path):
    experiments = experiments_of(*methods(), overrides=TINY["overrides"] | {"blocks": 2})
    assert run(experiments, tmp_path) == ["done"] * len(experiments)
    results = {result["key"]["method"]: result for result in read_records(tmp_path)}
    assert set(results) == set(methods()) >= {"cubic", "quintic", "fast", "valid", "padded"}
    degraded = degrade(SPOTS, 0, 4)
    for name, result in results.items():
        assert {"versions", "processor", "cores", "torch_threads"} <= set(result["machine"])
        assert result["truth"]["treatment"] is None and result["degraded"]["cut"] == 0
        assert (result["scores"]["rim"], result["scores"]["shape"]) == (16, [16, 40, 48])
        assert result["scores"]["data_range"] == np.ptp(SPOTS[16:-16, 16:-16, 16:-16])
        assert result["inference"]["voxels_per_second"] > 0 and len(result["load"]["start"]) == 3
        if name in ("cubic", "quintic"):
            expected = score({"cubic": cubic, "quintic": quintic}[name](degraded), SPOTS)
            assert (result["scores"]["psnr"], result["scores"]["ssim"]) == (expected.psnr, expected.ssim)
            assert result["training"] is None and result["model"] is None
            continue
        assert result["training"]["patches"] == 32 and result["training"]["patches_per_second"] > 0
        model = Model.load(tmp_path / "cells" / result["model"])
        assert (
            model.network.kind
            == result["training"]["network"]
            == (name if name != "fast" else TrainingConfig().network)
        )
        refinement = Refinement(model, degraded, device="cpu")
        assert list(refinement.run())[-1] == 1
        assert score(refinement.image, SPOTS).psnr == result["scores"]["psnr"], (
            "the scores are those of the saved model"
        )
    table = score_table(read_records(tmp_path))
    assert all(f"| {name} " in table for name in methods())
    gain = results["cubic"]["scores"]["psnr"] - results["quintic"]["scores"]["psnr"]
    assert gain_of(results["cubic"], read_records(tmp_path)) == gain and f"{gain:+.2f}" in table
    assert gain_of(results["cubic"], [results["cubic"]]) is None


def test_training_longer_scores_better(tmp_path):
    experiments = experiments_of("quintic", "fast", patches=400, overrides={"filters": 8, "validation": 8})
    run(experiments, tmp_path)
    base, trained = (result["scores"]["psnr"] for result in Evaluation(experiments, tmp_path).records())
    assert trained > base + 0.1


def test_a_second_run_computes_nothing(tmp_path):
    experiments = experiments_of("quintic", "fast")
    assert run(experiments, tmp_path) == ["done", "done"]
    before = times(tmp_path)
    assert run(experiments, tmp_path) == ["kept", "kept"]
    assert times(tmp_path) == before and len(before) == 3


def test_records_keep_the_name_of_the_border(tmp_path):
    (experiment,) = experiments_of("quintic", truth=a_truth(SPOTS))
    assert run([experiment], tmp_path) == ["done"]
    (record,) = read_records(tmp_path)
    assert record["key"]["rim"] == record["scores"]["rim"] == experiment.border
    assert "border" not in {*record["key"], *record["scores"]}


CHANGES = [
    pytest.param({"seed": 1}, id="seed"),
    pytest.param({"patches": 48}, id="budget"),
    pytest.param({"overrides": {"filters": 5, "validation": 4}}, id="setting"),
    pytest.param({"planes": "y"}, id="planes"),
    pytest.param({"border": 8}, id="border"),
    pytest.param({"fwhm": 5.0}, id="fwhm"),
    pytest.param({"truth": a_truth(SPOTS * 2)}, id="another-truth-of-that-name"),
]


def test_each_setting_that_changes_scores_changes_the_key():
    (experiment,) = experiments_of("fast")
    experiments = [experiment, *(experiments_of("fast", **change.values[0])[0] for change in CHANGES)]
    assert (
        len({json.dumps(c.key, sort_keys=True) for c in experiments})
        == len({c.name for c in experiments})
        == len(experiments)
    )
    assert (
        experiments_of("fast", minutes=1, patches=None)[0].name
        == experiments_of("fast", minutes=1.0, patches=None)[0].name
    )


def test_fast_has_the_default_settings():
    experiment = Experiment(a_truth(), 4.0, "fast", minutes=3)
    assert experiment.config == TrainingConfig(minutes=3.0)
    assert Experiment(a_truth(), 4.0, "padded", minutes=3).config == TrainingConfig(minutes=3.0, network="padded")


def test_equal_seeds_give_equal_scores(tmp_path):
    results = []
    for name in ("one", "two"):
        run(experiments_of("fast"), tmp_path / name)
        results += read_records(tmp_path / name)
    assert results[0]["scores"] == results[1]["scores"] and results[0]["key"] == results[1]["key"]


DAMAGES = [
    pytest.param(lambda text: text[: len(text) // 2], id="cut-short"),
    pytest.param(lambda text: "", id="empty"),
    pytest.param(lambda text: "[1, 2]", id="something-else"),
    pytest.param(lambda text: text.replace('"factor": 4.0', '"factor": 3.0'), id="another-key"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_incomplete_record_is_computed_again(tmp_path, caplog, damage):
    experiments = experiments_of("cubic", "quintic")
    run(experiments, tmp_path)
    (path,) = tmp_path.glob("cells/*_quintic_*.json")
    whole = json.loads(path.read_text())
    path.write_text(damage(path.read_text()))
    assert run(experiments, tmp_path) == ["kept", "done"]
    assert f"{experiments[1].name}: the record is incomplete" in caplog.text
    assert json.loads(path.read_text())["scores"] == whole["scores"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"new": math.nan})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1} and os.listdir(tmp_path) == ["a.json"]


def write(path: Path, voxels: np.ndarray = SPOTS, size=(1.0, 1.0, 1.0)) -> Path:
    metadata = {"axes": "ZYX"}
    for axis, step in zip("ZYX", size, strict=True):
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, voxels, metadata=metadata, photometric="minisblack")
    return path


STOPS = [
    pytest.param(signal.SIGKILL if os.name == "posix" else signal.SIGTERM, id="killed"),
    pytest.param(signal.SIGINT, id="Ctrl-C"),
]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", STOPS)
def test_a_stopped_evaluation_continues(tmp_path, capsys, number):
    truth, out = write(tmp_path / "spots.ome.tif"), tmp_path / "out"
    words = ["evaluate", str(truth), "--out", str(out), "--factors", "4", "--methods", "quintic,valid,padded"]
    words += ["--patches", "160", "--set", "filters=4", "--set", "blocks=2", "--device", "cpu"]
    words += ["--set", "patch=48", "--set", "validation=4"]
    process = cropeq(*words)
    try:
        deadline = time.monotonic() + 240
        while not list(out.glob("cells/*_valid_*.json")):  # the third experiment has just started
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        printed = process.communicate(timeout=240)[1]
    finally:
        process.kill()
        process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert printed == "Interrupted. Run the same command again to compute the other experiments.\n"
        assert not list(out.rglob("*.partial"))
    assert len(read_records(out)) == len(list(out.glob("cells/*.json"))) == 2, (
        "no incomplete record, and the third is not done"
    )
    before = times(out / "cells")
    assert main(words) == 0
    after = times(out / "cells")
    assert {name: after[name] for name in before if not name.endswith(".partial")}.items() <= before.items()
    assert not list(out.rglob("*.partial"))
    experiments = json.loads((out / "evaluation.json").read_text())["cells"]
    assert sorted(experiment["key"]["method"] for experiment in experiments) == ["padded", "quintic", "valid"]
    assert capsys.readouterr().out.count("| spots |") == 3


def test_the_command_line(tmp_path, capsys):
    truth, out = write(tmp_path / "spots.ome.tif", blobs((69, 72, 80)), (1.2, 1.0, 1.0)), tmp_path / "deep" / "out"
    words = ["evaluate", str(truth), "--out", str(out), "--factors", "2.5,4", "--methods", "cubic,quintic,fast", *WORDS]
    assert main([*words, "--rim", "12", "--fwhm", "3", "--seed", "2", "--set", "match_noise=false"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "spots is not isotropic (1.2 x 1 x 1 micrometer). Its voxels are treated as cubes: factor and FWHM count "
        "voxels.",
        "Factor 2.5 does not divide 69 voxels along z: the last 2 are not compared.",
        "Factor 4 does not divide 69 voxels along z: the last 1 are not compared.",
    ]
    assert [line.split()[3:8:2] for line in printed.out.splitlines()[2:8]] == [
        [factor, method, budget]
        for factor in ("2.5", "4")
        for method, budget in (("cubic", "–"), ("quintic", "–"), ("fast", "32"))
    ]
    assert main([*words, "--json", "--axis", "x", "--planes", "z", "--factors", "3"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    printed = json.loads(line)
    assert printed["evaluation"] == str(out / "evaluation.json")
    assert [experiment["key"]["axis"] for experiment in printed["cells"]] == ["x", "x", "x"]
    assert printed["cells"][2]["key"]["planes"] == "z" and printed["cells"][2]["degraded"]["cut"] == 2
    experiments = json.loads((out / "evaluation.json").read_text())["cells"]
    assert len(experiments) == 9, "all experiments of the folder"
    (experiment,) = (c for c in experiments if c["key"]["method"] == "fast" and c["key"]["factor"] == 4)
    assert experiment["key"]["recipe"]["seed"] == 2 and experiment["key"]["recipe"]["match_noise"] is False
    assert experiment["key"]["fwhm"] == 3 and experiment["scores"]["rim"] == 12


def test_a_list_of_minutes(tmp_path):
    truth = write(tmp_path / "spots.ome.tif")
    words = ["--minutes", "0.004,0.002", "--set", "filters=4", "--set", "validation=4", "--device", "cpu"]
    assert (
        main(["evaluate", str(truth), "--out", str(tmp_path / "o"), "--factors", "4", "--methods", "fast", *words]) == 0
    )
    assert sorted(r["key"]["minutes"] for r in read_records(tmp_path / "o")) == [0.002, 0.004]


def with_voxel(value: float) -> np.ndarray:
    voxels = SPOTS.copy()
    voxels[30, 33, 44] = value
    return voxels


def constant_inside() -> np.ndarray:
    voxels = np.zeros((48, 72, 80), np.float32)
    voxels[:3] = SPOTS[:3]
    return voxels


TRUTHS = [
    pytest.param(np.full((48, 72, 80), 7, np.uint16), "The truth spots is constant: every voxel is 7", id="constant"),
    pytest.param(constant_inside(), "constant inside its border of 16 voxels", id="constant-inside-its-border"),
    pytest.param(with_voxel(math.nan), "1 voxel in spots is NaN or infinite", id="nan"),
    pytest.param(with_voxel(-math.inf), "1 voxel in spots is NaN or infinite", id="infinite"),
    pytest.param(SPOTS[:14], "The truth has 14 voxels along z. Factor 4 leaves 3 slices, fewer than 4.", id="too-thin"),
    pytest.param(
        SPOTS[:36], "A border of 16 voxels on every side is too wide to compare 36 x 72 x 80 voxels", id="all-border"
    ),
    pytest.param(SPOTS[:, :63], "lateral side of the volume has 63 voxels, fewer than 64", id="too-narrow"),
]


def refused(capsys, folder: Path, words: list[str], message: str) -> None:
    """Check that a command ends with one line and leaves no files."""
    before = sorted(folder.rglob("*"))
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("cropeq: ") and err.count("\n") == 1
    assert message in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("voxels", "message"), TRUTHS)
def test_unsuitable_truths(tmp_path, capsys, voxels, message):
    truth = write(tmp_path / "spots.ome.tif", voxels)
    refused(capsys, tmp_path, ["evaluate", str(truth), "--out", str(tmp_path / "o"), "--factors", "4", *WORDS], message)


OPTIONS = [
    pytest.param(
        ["--factors", "1"],
        "The factor 1 is outside the possible range. Choose a factor above 1.01 and at most 32.",
        id="factor-1",
    ),
    pytest.param(["--factors", "nan"], "The factor nan is outside", id="factor-nan"),
    pytest.param(["--factors", "4,100"], "The factor 100 is outside", id="factor-100"),
    pytest.param(["--factors", "4,20"], "Factor 20 leaves 2 slices", id="too-small-for-one-factor"),
    pytest.param(["--fwhm", "0"], "The FWHM (0 voxels) is not positive", id="fwhm-0"),
    pytest.param(["--fwhm", "50"], "(50 pixel) is larger than 8 axial steps of 4", id="fwhm-50"),
    pytest.param(
        ["--methods", "quintic,magic"], "There is no method 'magic'. Choose one of cubic, quintic, ", id="method"
    ),
    pytest.param(["--rim", "-1"], "The border of -1 voxels is negative", id="border"),
    pytest.param(
        ["--planes", "z"], "The planes cannot be 'z' if the axial axis is z. Choose y, x or both", id="planes"
    ),
    pytest.param(["--set", "filters"], "The setting filters has no value", id="setting-without-value"),
    pytest.param(["--set", "filters=many"], "The setting filters is 'many', not a whole number", id="value"),
    pytest.param(["--set", "match_noise=2"], "The setting match_noise is '2', not true or false", id="no-bool"),
    pytest.param(
        ["--planes", "z"], "The planes cannot be 'z' if the axial axis is z. Choose y, x or both", id="planes"
    ),
    pytest.param(["--set", "filters"], "The setting filters has no value", id="setting-without-value"),
    pytest.param(["--set", "filters=many"], "The setting filters is 'many', not a whole number", id="value"),
    pytest.param(["--set", "match_noise=2"], "The setting match_noise is '2', not true or false", id="no-bool"),
    pytest.param(["--set", "colour=1"], "There is no setting 'colour'. Choose from minutes", id="setting"),
    pytest.param(
        ["--set", "seed=1"],
        "The setting 'seed' cannot be overridden. Choose one of filters, ",
        id="setting-of-the-experiment",
    ),
    pytest.param(["--set", "kernel=7"], "crops 96 px; it needs 99 px", id="network-too-large"),
    pytest.param(["--set", "filters=0"], "1 to 1024 filters, not 0", id="no-filters"),
    pytest.param(["--set", "patch=32"], "The setting patch is 32, less than 33", id="patch"),
    pytest.param(["--channel", "1"], "has no channel 1", id="channel"),
    pytest.param(["--patches", "0"], "(0 patches) is not", id="no-budget"),
]


@pytest.mark.parametrize(("words", "message"), OPTIONS)
def test_unsuitable_options(tmp_path, capsys, words, message):
    truth = write(tmp_path / "spots.ome.tif")
    usual = ["evaluate", str(truth), "--out", str(tmp_path / "o"), "--factors", "4", "--methods", "quintic,valid"]
    refused(capsys, tmp_path, [*usual, *WORDS, *words], message)


TYPED = [
    pytest.param({"factor": 1.0}, ArgumentError, "factor", id="factor"),
    pytest.param({"fwhm": -1.0}, ArgumentError, "fwhm", id="fwhm"),
    pytest.param({"axis": 3}, ArgumentError, "axis", id="axis"),
    pytest.param({"method": "magic"}, ArgumentError, "method", id="method"),
    pytest.param({"border": -1}, ArgumentError, "border", id="border"),
    pytest.param({"border": 40}, ArgumentError, "border", id="wide-border"),
    pytest.param({"truth": a_truth(constant_inside())}, ImageError, "border", id="constant-inside"),
    pytest.param({"method": "fast", "overrides": {"seed": 1}, **BUDGET}, ArgumentError, "overrides", id="override"),
]


@pytest.mark.parametrize("volumes", [1, 2])
@pytest.mark.parametrize(("change", "kind", "setting"), TYPED)
def test_an_error_has_a_type_and_names_the_setting(tmp_path, change, kind, setting, volumes):
    """The same problem of several volumes keeps both."""
    values = {"truth": a_truth(), "factor": 4.0, "method": "quintic"} | change
    truths = [values.pop("truth"), *(a_truth(np.roll(SPOTS, n, 0), f"other {n}") for n in range(1, volumes))]
    if volumes > 1 and "truth" in change:
        truths[1] = a_truth(constant_inside(), "other")
    with pytest.raises(kind) as caught:
        Evaluation([Experiment(truth, **values) for truth in truths], tmp_path / "o")
    assert caught.value.setting == setting and caught.value.remedy
    assert caught.value.problem.startswith("All 2 volumes: ") == (volumes > 1)
    assert not (tmp_path / "o").exists()


def test_nothing_to_evaluate(tmp_path):
    with pytest.raises(ArgumentError, match="There is nothing to evaluate"):
        Evaluation([], tmp_path)


FOLDERS = [
    pytest.param("spots.ome.tif", id="a-file"),
    pytest.param("spots.ome.tif/under", id="under-a-file"),
    pytest.param("/proc/none", id="read-only", marks=pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux")),
]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_cannot_be_written(tmp_path, capsys, name):
    truth = write(tmp_path / "spots.ome.tif")
    words = ["evaluate", str(truth), "--out", str(tmp_path / name), "--methods", "quintic"]
    refused(capsys, tmp_path, words, " cannot be written (")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_existing_folder_that_cannot_be_written(tmp_path, capsys):
    truth = write(tmp_path / "spots.ome.tif")
    (tmp_path / "o" / "cells").mkdir(parents=True)
    (tmp_path / "o" / "cells").chmod(0o555)
    words = ["evaluate", str(truth), "--out", str(tmp_path / "o"), "--methods", "quintic"]
    refused(capsys, tmp_path, words, " cannot be written (permission denied)")


@pytest.mark.parametrize("text", ["a", "2,,3", ""])
def test_lists_that_are_not_numbers(tmp_path, capsys, text):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "t.tif", "--out", str(tmp_path / "o"), "--factors", text])
    assert ended.value.code == 2
    assert "is not a list of numbers" in capsys.readouterr().err


TREATMENTS = [
    pytest.param((1.0, 1.0, 1.005), None, id="isotropic"),
    pytest.param(
        (50.0, 40.0, 40.0), "spots is not isotropic (50 x 40 x 40 µm). Its voxels are treated as cubes", id="not"
    ),
    pytest.param(None, "The file of spots does not store a voxel size. Its voxels are treated as cubes", id="unknown"),
]


@pytest.mark.parametrize(("size", "notice"), TREATMENTS)
def test_the_notice_on_a_truth_that_is_not_isotropic(size, notice):
    treatment = Truth("spots", SPOTS, size, "µm").treatment
    assert treatment is None if notice is None else treatment.startswith(notice)
