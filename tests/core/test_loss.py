"""The loss: least at the mean for errors as small as the noise, and linear for large ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.loss import edge_loss, loss_of


def config(**options) -> TrainingConfig:
    return TrainingConfig(minutes=None, patches=8, **options)


def best(targets: np.ndarray, noise: float | None, **options) -> float:
    """Return the constant output with the least loss."""
    target = torch.from_numpy(targets.astype(np.float32)).reshape(1, 1, 100, -1)
    spread = None if noise is None else torch.tensor([noise])
    levels = np.linspace(0, 2, 201)
    losses = [
        float(loss_of(torch.full_like(target, level), target, spread, config(edge_weight=0.0, **options)))
        for level in levels
    ]
    return float(levels[int(np.argmin(losses))])


LOSSES = [
    pytest.param({}, 1.0, id="the-mean"),
    pytest.param({"loss": "l1"}, 0.69, id="l1-the-median"),
]


@pytest.mark.parametrize(("options", "expected"), LOSSES)
def test_the_minimum_under_skewed_noise(options, expected, rng):
    targets = rng.exponential(size=40_000)
    assert best(targets, float(targets.std()), **options) == pytest.approx(expected, abs=0.09)


def test_large_errors_count_linearly():
    zero = torch.zeros(1, 1, 8, 8)
    one, two = (float(loss_of(zero + e, zero, torch.zeros(1), config(edge_weight=0.0))) for e in (0.5, 1.0))
    assert two == pytest.approx(2 * one, rel=0.02)


def test_small_errors_count_squared():
    zero = torch.zeros(1, 1, 8, 8)
    one, two = (float(loss_of(zero + e, zero, torch.ones(1), config(edge_weight=0.0))) for e in (0.1, 0.2))
    assert two == pytest.approx(4 * one, rel=0.02)


def test_each_patch_has_the_scale_of_its_own_noise(rng):
    error = torch.from_numpy(rng.normal(size=(2, 1, 12, 12)).astype(np.float32))
    noise = torch.tensor([0.1, 2.0])
    zero = torch.zeros_like(error)
    alone = [float(loss_of(error[n : n + 1], zero[n : n + 1], noise[n : n + 1], config())) for n in (0, 1)]
    assert float(loss_of(error, zero, noise, config())) == pytest.approx(np.mean(alone), rel=1e-5)


def test_l1_is_as_it_was(rng):
    output, target = torch.from_numpy(rng.normal(size=(2, 3, 1, 12, 12)).astype(np.float32))
    expected = functional.l1_loss(output, target) + 0.5 * edge_loss(output, target)
    noise = torch.full((3,), 0.1)
    assert torch.equal(loss_of(output, target, noise, config(loss="l1", edge_weight=0.5)), expected)
