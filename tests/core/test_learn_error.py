"""The expected error: learnt after a training, calibrated on held-out patches, with the same bits in every tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from conftest import acquired, blobs
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import LEVELS, ErrorTail
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.learn_error import LEAST_PATCHES, learn_error
from napari_cropeq.core.training.noise import NoiseModel
from napari_cropeq.core.training.patches import PatchSampler
from napari_cropeq.core.training.plane_pool import Volume, downwards
from napari_cropeq.core.training.thinning import share_noise, target_variance
from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import ModelFileError

FACTOR = 3
ACQUISITION = Acquisition((float(FACTOR), 1.0, 1.0))
TRUTH = blobs((60, 90, 96))
NETWORKS = ("subpixel", "valid")
SMALL = TrainingConfig(minutes=None, patches=LEAST_PATCHES, filters=4, blocks=2)


def trained(volume: np.ndarray, network: str = "subpixel", patches: int = 1024) -> Model:
    config = TrainingConfig(minutes=None, patches=patches, filters=8, blocks=3, network=network)
    training = Training(volume.astype(np.float32), ACQUISITION, config, "cpu")
    for _ in training.run():
        pass
    return training.model({"name": "blobs"})


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    low = acquired(TRUTH, FACTOR)
    return {network: trained(low, network) for network in NETWORKS}


def predictor_of(model: Model, volume: np.ndarray, planes: str = "both", **options) -> Predictor:
    scale, about = model.normalisations[0], {"correction": model.correction, "error_tail": model.error_tail}
    return Predictor(model.network, ACQUISITION, volume, scale, planes, "cpu", **about, **options)


@pytest.mark.parametrize("network", NETWORKS)
def test_intervals_hold_on_the_axial_truth(models, network):
    model = models[network]
    predictor = predictor_of(model, acquired(TRUTH, FACTOR))
    voxels, expected = predictor(Box.whole(predictor.sr_shape), with_error=True)
    error = np.abs(voxels - TRUTH[: len(voxels)])
    for level in LEVELS:
        share = float((error <= model.error_tail.intervals[level] * expected).mean())
        assert share == pytest.approx(level, abs=0.17), f"of {level:.0%}"
    ranks = [np.argsort(np.argsort(values.ravel())) for values in (error, expected)]
    assert np.corrcoef(*ranks)[0, 1] > 0.1, "larger where the error is larger"


def test_noise_of_the_targets_is_no_error():
    """The squares of what is expected are those of the error from the truth without noise, within a factor."""
    rng = np.random.default_rng(0)
    noisy = rng.poisson(40 * np.maximum(acquired(TRUTH, FACTOR), 0) + 4) / 40
    model = trained(noisy)
    predictor = predictor_of(model, noisy, planes="x")
    voxels, expected = predictor(Box.whole(predictor.sr_shape), with_error=True)
    error = np.abs(voxels - TRUTH[: len(voxels)] - 0.1)
    assert 0.4 < expected.mean() / error.mean() < 2.5
    noise = np.sqrt((noisy / 40).mean())
    assert expected.mean() < 0.7 * noise, "less than the noise of the slices"


def test_few_photons_do_not_upset_the_scale():
    """Where much is expected and elsewhere, it is of the size of the error."""
    truth = 4 * np.maximum(TRUTH, 0) ** 2 / TRUTH.max()
    noisy = np.random.default_rng(0).poisson(np.maximum(acquired(truth, FACTOR), 0) + 0.3).astype(np.float32)
    model = trained(noisy)
    config = TrainingConfig.read(model.training["recipe"])
    sampler = PatchSampler([Volume(noisy, model.normalisations[0])], ACQUISITION, model.network, config, 1024)
    steps, tail = learn_error(model.network, sampler, 1024), None
    while tail is None:
        try:
            next(steps)
        except StopIteration as end:
            tail = end.value
    sampler.close()
    predictor = predictor_of(dataclasses.replace(model, error_tail=tail), noisy, planes="x")
    voxels, expected = predictor(Box.whole(predictor.sr_shape), with_error=True)
    error, top = np.abs(voxels - truth[: len(voxels)] - 0.3), expected > np.quantile(expected, 0.8)
    for where in (top, ~top):
        assert 0.4 < error[where].mean() / expected[where].mean() < 5


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("planes", ["x", "both"])
def test_any_box_has_the_bits_of_the_whole(models, network, planes, rng):
    predictor = predictor_of(models[network], acquired(TRUTH, FACTOR), planes)
    whole = Box.whole(predictor.sr_shape)
    voxels, expected = predictor(whole, with_error=True)
    alone = predictor_of(dataclasses.replace(models[network], error_tail=None), acquired(TRUTH, FACTOR), planes)
    assert np.array_equal(voxels, alone(whole)), "the result itself has the bits that it has without"
    assert expected.dtype == np.float32 and 0 < expected.min() and expected.max() < 0.6
    for _ in range(12):
        start = [int(rng.integers(0, n - 1)) for n in whole.shape]
        stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, whole.shape, strict=True)]
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        part, of_part = predictor(box, with_error=True)
        assert np.array_equal(part, voxels[box.slices]) and np.array_equal(of_part, expected[box.slices])


MODELS = [
    pytest.param(NoiseModel(0.05, 0.0), id="photons"),
    pytest.param(NoiseModel(0.0, 0.01), id="read-out"),
    pytest.param(NoiseModel(0.02, -0.002), id="photons-and-offset"),
]


@pytest.mark.parametrize("noise", MODELS)
def test_the_variance_of_a_target(noise, rng):
    weights, kept = downwards(12, 2.5, 1.06)
    clean = np.full((weights.shape[1], 400), 0.5, np.float32)
    photons = rng.poisson((clean + min(noise.offset / max(noise.slope, 1e-9), 0)) / noise.slope) if noise.slope else 0
    sharp = photons * noise.slope - min(noise.offset / max(noise.slope, 1e-9), 0) if noise.slope else clean
    sharp = (sharp + rng.normal(size=clean.shape) * max(noise.offset, 0) ** 0.5).astype(np.float32)
    _, of_target = share_noise(noise, sharp, weights, kept, rng)
    target = sharp + of_target
    found = target_variance(noise, target, weights, kept)
    inside = slice(4, -4)
    assert found[inside].mean() == pytest.approx(np.square(target - clean)[inside].mean(), rel=0.1)


def test_the_model_file_keeps_it(models, tmp_path):
    model = models["subpixel"]
    model.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    assert loaded.fingerprint == model.fingerprint == dataclasses.replace(model, error_tail=None).fingerprint
    assert loaded.error_tail.intervals == model.error_tail.intervals
    for name, values in model.error_tail.tail.state_dict().items():
        assert torch.equal(loaded.error_tail.tail.state_dict()[name], values)


def changed(model: Model, name: str, values: list[float]) -> Model:
    tail = model.error_tail
    weights = {**tail.tail.state_dict(), "intervals": tail.intervals}
    weights[name] = dict(zip(LEVELS, values, strict=True)) if name == "intervals" else torch.tensor(values)
    return dataclasses.replace(model, error_tail=ErrorTail.of(weights["weight"], weights["bias"], weights["intervals"]))


DAMAGE = [
    pytest.param("intervals", [1.0, -2.0, 3.0], "impossible intervals", id="interval"),
    pytest.param("bias", [0.0, float("nan"), 0.0], "not finite", id="weight"),
]


@pytest.mark.parametrize(("name", "values", "message"), DAMAGE)
def test_an_impossible_one_is_refused(models, tmp_path, name, values, message):
    changed(models["subpixel"], name, values).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match=message):
        Model.load(tmp_path / "m.safetensors")


def test_a_training_says_what_it_does_and_is_deterministic():
    low = acquired(TRUTH, FACTOR).astype(np.float32)
    tails = []
    for _ in range(2):
        training = Training(low, ACQUISITION, SMALL, "cpu")
        notes = [progress.note for progress in training.run()]
        assert "Learning the expected error." in notes and notes[-1] != "Learning the expected error."
        tails.append(training.model({}).error_tail)
    assert torch.equal(tails[0].tail.weight, tails[1].tail.weight) and tails[0].intervals == tails[1].intervals


def test_a_training_survives_too_little_memory_for_it(monkeypatch, caplog):
    def fail(*_):
        raise MemoryError
        yield

    monkeypatch.setattr("napari_cropeq.core.training.training.learn_error", fail)
    training = Training(acquired(TRUTH, FACTOR).astype(np.float32), ACQUISITION, SMALL, "cpu")
    steps = list(training.run())
    assert steps[-1].fraction == 1 and training.model({}).error_tail is None
    assert "too little memory to learn the expected error" in caplog.text


NONE = [
    pytest.param({"patches": LEAST_PATCHES - 8}, id="few-patches"),
    pytest.param({"patches": LEAST_PATCHES, "network": "padded"}, id="padded"),
]


@pytest.mark.parametrize("options", NONE)
def test_no_expected_error(options):
    config = TrainingConfig(minutes=None, filters=4, blocks=2, batch=8, **options)
    training = Training(acquired(TRUTH, FACTOR).astype(np.float32), ACQUISITION, config, "cpu")
    assert all("Learning the expected error" not in progress.note for progress in training.run())
    assert training.model({}).error_tail is None
