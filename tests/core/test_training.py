"""Training on the volume itself: budgets, progress, and the trained network."""

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
from napari_cropeq.core.training.loss import edge_loss
from napari_cropeq.core.training.progress import RunningMean
from napari_cropeq.core.training.training import Training, TrainingConfig, schedule
from napari_cropeq.errors import ArgumentError, DivergedError, ImageError

Z4 = Acquisition((4.0, 1.0, 1.0))


def small(**options) -> TrainingConfig:
    """Return settings for a training of a few seconds."""
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


def test_a_trained_network_is_better_than_the_interpolation(spots):
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


def test_the_improvement_over_interpolation_is_measured(spots):
    """On held-out patches, for the best weights, in dB; recorded in the model."""
    training = Training(spots[1], Z4, small(patches=400, batch=4, filters=8, validation=16), "cpu")
    *_, step = training.run()
    held_out = training._held_out
    network = training.network
    errors = [held_out.interpolated(network) - held_out.target, held_out.output(network) - held_out.target]
    expected = 10 * np.log10(float(errors[0].square().sum()) / float(errors[1].square().sum()))
    assert training.gain == pytest.approx(expected, abs=1e-3) and training.gain > 0.5
    assert training.model({}).training["gain"] == pytest.approx(expected, abs=0.01)
    assert "hardly learnt" not in step.note


def test_the_loss_of_interpolation_is_that_of_an_untrained_network(spots):
    """On the held-out patches, with the same loss: a line for comparison."""
    training = Training(spots[1], Z4, small(patches=4, batch=4, filters=8, validation=16), "cpu")
    assert training.interpolation_loss == pytest.approx(training._validate(training._weights.current), rel=1e-5)


BATCHES = [
    pytest.param([1.0] * 100, id="constant"),
    pytest.param([0.001, *[1.0] * 99], id="a-dark-one-first"),
    pytest.param([0.001] * 3 + [1.0] * 97, id="three-dark-ones-first"),
    pytest.param([9.0, *[1.0] * 99], id="a-bright-one-first"),
]


@pytest.mark.parametrize("losses", BATCHES)
def test_the_mean_loss_does_not_start_from_one_batch(losses):
    """A dark batch at the start would look like a loss that rises for a hundred patches."""
    mean = RunningMean()
    means = [mean.add(loss) for loss in losses[:20]]
    assert means[0] == pytest.approx(losses[0])
    assert means[1] == pytest.approx((0.95 * losses[0] + losses[1]) / 1.95), "all batches count nearly the same"
    assert mean.settled
    for loss in losses[20:]:
        last = mean.add(loss)
    assert means[-1] == pytest.approx(last, rel=0.25)


def test_the_loss_is_settled_after_some_batches(spots):
    steps = list(Training(spots[1], Z4, small(patches=80, batch=4, filters=4), "cpu").run())
    assert [step.settled for step in steps] == [False] * 13 + [True] * 7


def test_a_network_that_has_hardly_learnt_is_called_so(spots):
    steps = list(Training(spots[1], Z4, small(patches=16), "cpu").run())
    assert steps[-1].note.startswith("The network has hardly learnt: on held-out patches it is 0.")
    assert not any(step.note for step in steps[:-1])


def test_validations_take_at_most_a_tenth_of_a_time_budget(spots, monkeypatch):
    config = small(minutes=0.12, patches=None, validation=64, batch=2)
    training, spent = Training(spots[1], Z4, config, "cpu"), []
    validated = training._budget.validated
    monkeypatch.setattr(training._budget, "validated", lambda seconds: (spent.append(seconds), validated(seconds)))
    steps = list(training.run())
    during = spent[1:-1]  # one is before the first step, and one at the end in any case
    assert sum(during) <= 0.11 * steps[-1].seconds
    assert len([step for step in steps if step.validation is not None]) == len(spent) - 1


def test_the_log_has_start_and_end_of_a_training(spots, caplog):
    with caplog.at_level("INFO", logger="napari_cropeq"):
        trained(spots[1], small())
    first, *_, last = (record.message for record in caplog.records if record.name.endswith("training.training"))
    assert first == "Training network subpixel (4 filters, 7 blocks) on cpu for 32 patches, 0 patches done"
    assert last.startswith("Training ended after 32 patches and ")


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
def test_a_training_ends_with_its_time_budget(seconds, spots):
    training = Training(spots[1], Z4, small(minutes=seconds / 60, patches=None), "cpu")
    steps = list(itertools.takewhile(lambda step: "Learning the expected error" not in step.note, training.run()))
    assert steps[-1].fraction == 1 and steps[-1].seconds >= seconds
    assert all(step.seconds < seconds for step in steps[:-1]), "the first step beyond the budget is the last"
    assert steps[0].fraction == pytest.approx(min(1, steps[0].seconds / seconds))


BUDGETS = [
    pytest.param({"minutes": None, "patches": None}, "Neither minutes nor patches are given", id="none"),
    pytest.param({"minutes": 2.0, "patches": 100}, "Minutes and patches are both given", id="both"),
    pytest.param({"minutes": None, "patches": 0}, r"\(0 patches\) is not a positive number", id="no-patches"),
    pytest.param({"minutes": None, "patches": -5}, r"\(-5 patches\) is not", id="negative-patches"),
    pytest.param({"minutes": 0.0}, r"\(0.0 minutes\) is not a positive number", id="no-minutes"),
    pytest.param({"minutes": math.nan}, r"\(nan minutes\) is not", id="nan-minutes"),
    pytest.param({"minutes": math.inf}, r"\(inf minutes\) is not", id="endless"),
    pytest.param({"batch": 0}, "batch is 0, less than 1", id="empty-batch"),
    pytest.param({"rate": 0.0}, "rate is 0, not above 0", id="no-rate"),
    pytest.param({"rate": math.nan}, "rate is nan, not above 0", id="nan-rate"),
    pytest.param({"patch": 32}, "patch is 32, less than 33", id="tiny-patch"),
    pytest.param({"validation": 0}, "validation is 0, less than 1", id="no-validation"),
    pytest.param({"seed": -1}, "seed is -1, less than 0", id="negative-seed"),
    pytest.param({"correction": 64.5}, "correction is 64.5, more than 64", id="correction-no-model-file-may-have"),
    pytest.param({"correction": -1.0}, "correction is -1, not a number of 0 or more", id="negative-correction"),
    pytest.param({"edge_weight": math.nan}, "edge_weight is nan, not a number", id="nan-edge-weight"),
    pytest.param({"epoch": 0}, "epoch is 0, less than 1", id="empty-epoch"),
    pytest.param({"patience": -1}, "patience is -1, less than 0", id="negative-patience"),
    pytest.param({"warm_up": 0}, "warm_up is 0, less than 1", id="no-warm-up"),
    pytest.param({"average": 1.0}, "average is 1, not a share from 0 to less than 1", id="endless-average"),
    pytest.param({"improvement": 1.0}, "improvement is 1, not a share from 0 to less than 1", id="improvement"),
    pytest.param({"gradient": 1.5}, "gradient is 1.5, not a share from 0 to 1", id="large-share"),
    pytest.param({"decay": math.nan}, "decay is nan, not a share", id="nan-decay"),
    pytest.param({"rotations": "some"}, "rotations is 'some', not one of right, any", id="choice"),
]


@pytest.mark.parametrize(("options", "message"), BUDGETS)
def test_refused_settings(options, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        TrainingConfig(**options)
    assert caught.value.setting in options


def with_voxel(value: float) -> np.ndarray:
    volume = textured_volume((8, 70, 72)).astype(np.float32)
    volume[5, 33, 44] = value
    return volume


SOURCES = [
    pytest.param(textured_volume((3, 70, 72)), {}, "The volume has 3 slices along z, fewer than 4", id="thin"),
    pytest.param(textured_volume((8, 63, 72)), {}, "side of the volume has 63 voxels, fewer than 64", id="small"),
    pytest.param(np.full((8, 70, 72), 9, np.uint16), {}, "The image is constant", id="constant"),
    pytest.param(with_voxel(math.nan), {}, "1 voxel in the volume is NaN or infinite", id="nan"),
    pytest.param(with_voxel(-math.inf), {}, "1 voxel in the volume is NaN or infinite", id="inf"),
    pytest.param(np.ones((8, 70, 72), bool), {}, "The voxels are of type bool", id="bool"),
    pytest.param(np.ones((8, 70, 72), complex), {}, "The voxels are of type complex128", id="complex"),
    pytest.param(
        textured_volume((8, 70, 72)), {"network": "u"}, "There is no network 'u'. Choose one of", id="network"
    ),
    pytest.param(textured_volume((8, 70, 72)), {"filters": 0}, "1 to 1024 filters, not 0", id="filters"),
    pytest.param(textured_volume((8, 70, 72)), {"kernel": 7}, "crops 96 px; it needs 99 px", id="kernel"),
]


@pytest.mark.parametrize(("source", "options", "message"), SOURCES)
def test_refused_before_any_work(source, options, message):
    with pytest.raises(ArgumentError if options else ImageError, match=message):
        Training(source, Z4, small(**options), "cpu")


def test_nan_outside_the_intensity_sample_is_refused_with_its_slice():
    scale = Normalisation(0.0, 4000.0)
    with pytest.raises(ImageError, match="1 voxel in slice 5 is NaN or infinite"):  # when it is read
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


def test_an_untrained_network_is_the_interpolation(spots):
    training = Training(spots[1], Z4, small(), "cpu")
    predictor = Predictor(training.network, Z4, spots[1], training.normalisations[0], device="cpu")
    box = Box.whole((8, 20, 40))
    assert np.array_equal(predictor(box), predictor.interpolated(box))


def test_a_loss_of_nan_ends_the_training_and_keeps_the_best_weights(spots):
    training = Training(spots[1], Z4, small(rate=1e30, patches=1000), "cpu")
    with pytest.raises(DivergedError, match=r"The loss is nan after .* Lower the learning rate"):
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
def test_any_axial_axis_and_network(axial, kind):
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


def test_the_edge_loss_depends_on_edges_only():
    image = torch.rand(2, 1, 20, 20)
    assert edge_loss(image, image) == 0
    assert edge_loss(image + 3, image) == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 1, 9, 9)
    step[..., 5:] = 8.0
    assert edge_loss(step, torch.zeros(1, 1, 9, 9)) == pytest.approx(4 * 2 / 7 / 2), (
        "4 at two of 7 columns, in one of 2 directions"
    )
    assert edge_loss(step, torch.zeros(1, 1, 9, 9)) == pytest.approx(float(edge_loss(step.mT, torch.zeros(1, 1, 9, 9))))


def test_the_thumbnail_is_the_patch_with_the_most_contrast(spots):
    """In a volume that is mostly background."""
    _, source = spots
    dark = source * 0.01
    dark[:, :48, :48] = source[:, :48, :48]
    training = Training(dark, Z4, small(validation=16), "cpu")
    one, two = training.thumbnail(), training.thumbnail()
    contrasts = training._held_out.target.flatten(1).var(dim=1, correction=0)
    assert one.truth.var() == pytest.approx(float(contrasts.max()), rel=1e-4)
    assert float(contrasts[0]) < 0.9 * float(contrasts.max()), "not just the first"
    assert np.array_equal(one.truth, two.truth)
