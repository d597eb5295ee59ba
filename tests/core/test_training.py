"""Training on a volume itself: patches, budgets, and what comes out of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from conftest import acquired, blobs, textured_volume
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training.training import Training, TrainingConfig, edge_loss, schedule

Z4 = Acquisition((4.0, 1.0, 1.0))


def small(**options) -> TrainingConfig:
    """Return a recipe of some seconds at most."""
    return TrainingConfig(**{"minutes": None, "patches": 32, "filters": 4, "validation": 4, "batch": 8} | options)


def trained(source, config: TrainingConfig, acquisition: Acquisition = Z4) -> Training:
    training = Training(source, acquisition, config, "cpu")
    for _ in training.run():
        pass
    return training


def weights(training: Training) -> np.ndarray:
    return torch.cat([w.reshape(-1) for w in training.network.state_dict().values()]).numpy()


@pytest.fixture(scope="module")
def spots():
    truth = blobs((48, 96, 96))
    return truth, acquired(truth, 4)


def test_equal_seeds_give_equal_bits(spots):
    _, source = spots
    one, two = (trained(source, small(seed=3, validation=8)) for _ in range(2))
    assert np.array_equal(weights(one), weights(two))
    assert [p.loss for p in one.history] == [p.loss for p in two.history]
    other = trained(source, small(seed=4, validation=8))
    assert not np.array_equal(weights(one), weights(other))


def test_it_learns_and_beats_the_interpolation(spots):
    truth, source = spots
    training = Training(source, Z4, small(patches=800, batch=4, filters=8, validation=16), "cpu")
    steps = list(training.run())
    validation = [p.validation for p in training.history]
    assert min(validation[-3:]) < 0.85 * validation[0]
    assert steps[-1].loss < steps[0].loss
    predictor = Predictor(training.network, Z4, source, training.normalisations[0], device="cpu")
    box = Box.whole(predictor.sr_shape)
    refined, interpolated = (np.square(v - truth).mean() for v in (predictor(box), predictor.interpolated(box)))
    assert refined < 0.85 * interpolated


def test_progress(spots):
    training = Training(spots[1], Z4, small(patches=60), "cpu")
    steps = list(training.run())
    assert [p.patches for p in steps] == list(range(8, 65, 8))
    assert [p.fraction for p in steps] == [min(1, n / 60) for n in range(8, 65, 8)]
    assert steps[-1].validation is not None and steps[-1].seconds_left == 0
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(steps))
    assert training.history == [p for p in steps if p.validation is not None]
    summary = training.summary()
    assert summary["patches"] == 64
    assert summary["recipe"]["patches"] == 60
    assert summary["losses"][-1] == [64, steps[-1].seconds, steps[-1].loss, steps[-1].validation]


@pytest.mark.parametrize("seconds", [0.6, 2.0])
def test_a_time_budget_is_kept(seconds, spots):
    training = Training(spots[1], Z4, small(minutes=seconds / 60, patches=None), "cpu")
    steps = list(training.run())
    assert steps[-1].fraction == 1 and steps[-1].seconds >= seconds
    assert all(step.seconds < seconds for step in steps[:-1]), "it ends with the first step beyond the budget"
    assert steps[0].fraction == pytest.approx(min(1, steps[0].seconds / seconds))


BUDGETS = [
    pytest.param({"minutes": None, "patches": None}, "Got both or neither", id="none"),
    pytest.param({"minutes": 2.0, "patches": 100}, "Got both or neither", id="both"),
    pytest.param({"minutes": None, "patches": 0}, "Got 0 patches, expected a positive number", id="no-patches"),
    pytest.param({"minutes": None, "patches": -5}, "Got -5 patches", id="negative-patches"),
    pytest.param({"minutes": 0.0}, "Got 0.0 minutes, expected a positive number", id="no-minutes"),
    pytest.param({"minutes": math.nan}, "Got nan minutes", id="nan-minutes"),
    pytest.param({"minutes": math.inf}, "Got inf minutes", id="endless"),
    pytest.param({"batch": 0}, "Got a batch below 1", id="empty-batch"),
    pytest.param({"rate": 0.0}, "a rate of 0", id="no-rate"),
    pytest.param({"rate": math.nan}, "a rate of 0", id="nan-rate"),
    pytest.param({"patch": 32}, "a patch below 33 px", id="tiny-patch"),
    pytest.param({"validation": 0}, "Got 0 validation patches", id="no-validation"),
    pytest.param({"seed": -1}, "seed -1", id="negative-seed"),
    pytest.param({"edge_weight": math.nan}, "edge weight nan", id="nan-edge-weight"),
]


@pytest.mark.parametrize(("options", "message"), BUDGETS)
def test_refused_recipes(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


def with_voxel(value: float) -> np.ndarray:
    volume = textured_volume((8, 70, 72)).astype(np.float32)
    volume[5, 33, 44] = value
    return volume


SOURCES = [
    pytest.param(textured_volume((3, 70, 72)), {}, "Got 3 slices along z, expected at least 4", id="thin"),
    pytest.param(textured_volume((8, 63, 72)), {}, "lateral side of 63 voxels, expected at least 64", id="small"),
    pytest.param(np.full((8, 70, 72), 9, np.uint16), {}, "Got a constant image", id="constant"),
    pytest.param(with_voxel(math.nan), {}, "Got 1 NaN or infinite voxels", id="nan"),
    pytest.param(with_voxel(-math.inf), {}, "Got 1 NaN or infinite voxels", id="inf"),
    pytest.param(np.ones((8, 70, 72), bool), {}, "Got voxels of type bool", id="bool"),
    pytest.param(np.ones((8, 70, 72), complex), {}, "Got voxels of type complex128", id="complex"),
    pytest.param(textured_volume((8, 70, 72)), {"network": "u"}, "Got network 'u', expected one of", id="network"),
    pytest.param(textured_volume((8, 70, 72)), {"filters": 0}, "Got 0 filters", id="filters"),
    pytest.param(textured_volume((8, 70, 72)), {"kernel": 7}, "crops 96, expected at least 99", id="kernel"),
]


@pytest.mark.parametrize(("source", "options", "message"), SOURCES)
def test_refused_before_any_work(source, options, message):
    with pytest.raises(ValueError, match=message):
        Training(source, Z4, small(**options), "cpu")


def test_nan_that_the_intensity_sample_missed_is_refused_with_its_slice():
    scale = Normalisation(0.0, 4000.0)
    with pytest.raises(ValueError, match="Got 1 NaN or infinite voxels in slice 5"):  # when it is read
        list(Training(with_voxel(math.nan), Z4, small(patches=800), "cpu", [scale]).run())


def test_stopping_midway_leaves_a_usable_network(spots):
    _, source = spots
    training = Training(source, Z4, small(patches=10_000), "cpu")
    run = training.run()
    for _ in itertools.islice(run, 5):
        pass
    during = training.network
    run.close()
    assert np.isfinite(weights(training)).all()
    assert not during.training and not any(p.requires_grad for p in during.parameters())
    voxels = Predictor(training.network, Z4, source, training.normalisations[0], device="cpu")(Box.whole((8, 20, 40)))
    assert np.isfinite(voxels).all()


def test_a_network_taken_before_training_is_the_interpolation(spots):
    training = Training(spots[1], Z4, small(), "cpu")
    predictor = Predictor(training.network, Z4, spots[1], training.normalisations[0], device="cpu")
    box = Box.whole((8, 20, 40))
    assert np.array_equal(predictor(box), predictor.interpolated(box))


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_best_weights(spots):
    training = Training(spots[1], Z4, small(rate=1e30, patches=1000), "cpu")
    with pytest.raises(ArithmeticError, match=r"Got a loss of nan after .* lower the learning rate"):
        for _ in training.run():
            pass
    assert np.isfinite(weights(training)).all()


def test_the_best_weights_are_kept_not_the_last(spots):
    training = Training(spots[1], Z4, small(rate=0.3, patches=80), "cpu")
    seen = []
    for step in training.run():
        if step.validation is not None:
            state = {k: v.detach().clone() for k, v in training._weights.network.state_dict().items()}
            seen.append((step.validation, state))
    seen.append((training._weights.best_loss, None))
    loss, state = min(seen, key=lambda pair: pair[0])
    assert loss == training._weights.best_loss < seen[-2][0], "a rate so high that the last weights are not the best"
    for name, kept in training.network.state_dict().items():
        expected = torch.zeros_like(kept) if state is None and "tail" in name else (state or {}).get(name, kept)
        assert torch.equal(kept, expected)


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("kind", ["subpixel", "valid", "padded"])
def test_any_axial_axis_and_both_networks(axial, kind):
    size = [1.0, 1.0, 1.0]
    size[axial] = 2.5
    source = np.moveaxis(textured_volume((8, 70, 90)), 0, axial)
    acquisition = Acquisition((size[0], size[1], size[2]), axial)
    training = trained(source, small(patches=8, network=kind, blocks=2), acquisition)
    assert training.history[-1].patches == 8
    assert training.network.kind == kind


def test_the_learning_rate_warms_up_and_falls():
    assert schedule("cosine", 0.0, 0) == schedule("constant", 0.0, 0) == pytest.approx(1 / 50)
    assert schedule("cosine", 0.0, 49) == pytest.approx(1.0)
    assert schedule("cosine", 0.5, 1000) == pytest.approx(0.505)
    assert schedule("cosine", 1.0, 1000) == schedule("cosine", 1.5, 1000) == pytest.approx(0.01)
    assert schedule("constant", 0.5, 1000) == schedule("constant", 1.0, 49) == 1


def test_the_edge_loss_sees_edges_alone():
    image = torch.rand(2, 1, 20, 20)
    assert edge_loss(image, image) == 0
    assert edge_loss(image + 3, image) == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 1, 9, 9)
    step[..., 5:] = 8.0
    assert edge_loss(step, torch.zeros(1, 1, 9, 9)) == pytest.approx(4 * 2 / 7 / 2), (
        "4 at two of 7 columns, in one of 2 directions"
    )
    assert edge_loss(step, torch.zeros(1, 1, 9, 9)) == pytest.approx(float(edge_loss(step.mT, torch.zeros(1, 1, 9, 9))))


def test_the_patch_shown_is_the_one_of_most_contrast(spots):
    """Of a volume that is mostly background."""
    _, source = spots
    dark = source * 0.01
    dark[:, :48, :48] = source[:, :48, :48]
    training = Training(dark, Z4, small(validation=16), "cpu")
    one, two = training.thumbnail(), training.thumbnail()
    contrasts = training._held_out.target.flatten(1).var(dim=1, correction=0)
    assert one.truth.var() == pytest.approx(float(contrasts.max()), rel=1e-4)
    assert float(contrasts[0]) < 0.9 * float(contrasts.max()), "not just the first"
    assert np.array_equal(one.truth, two.truth)
