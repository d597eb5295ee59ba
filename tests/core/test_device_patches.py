"""Patches that are made on the device of the training, which is the CPU here, against those that numpy makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import blobs
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.network import build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training import device_patches
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.device_patches import DevicePatches
from napari_cropeq.core.training.noise import NoiseModel
from napari_cropeq.core.training.patches import PatchSampler
from napari_cropeq.core.training.plane_pool import Volume
from napari_cropeq.core.training.training import Training, batch_size

CPU = torch.device("cpu")
NAMES = ("image", "target", "base", "carry", "noise", "variance")


@pytest.fixture(scope="module")
def volume():
    return blobs((24, 96, 110))


def both(volume, kind: str, factor: float, noise: NoiseModel | None, **options) -> tuple[PatchSampler, DevicePatches]:
    """Return a sampler of one plane, and what makes its pairs on the device."""
    config = TrainingConfig(minutes=None, patches=8, network=kind, filters=1, **options)
    network = build_network(kind, 1, config.depth, 3, subpositions_for(kind, factor))
    sampler = PatchSampler([Volume(volume, Normalisation(0.0, 1.0))], Acquisition((factor, 1.0, 1.0)), network, config)
    sampler.close()
    sampler.with_variance = True
    if noise is not None:
        sampler.noise = {0: noise}
    return sampler, DevicePatches(sampler, CPU, 0)


def pairs(sampler: PatchSampler, device: DevicePatches, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each part of a pair as numpy and as the device make it, at the same place."""
    plane = sampler._held_out[seed % len(sampler._held_out)]
    batch = sampler._pairs(iter([plane]), np.random.default_rng(seed))
    image, target, base, noise, variance, carry = device.pair(
        device.there(plane), sampler.cut(plane, np.random.default_rng(seed))
    )
    found = {"image": image, "target": target, "base": base, "carry": carry, "noise": noise, "variance": variance}
    out = []
    for name in NAMES:
        one, other = getattr(batch, name), found[name]
        assert (one is None) == (other is None), name
        if one is not None:
            out.append((one.numpy().squeeze(), np.asarray(other).squeeze()))
    return out


@pytest.mark.parametrize("share", [True, False], ids=["photons", "top-up"])
@pytest.mark.parametrize("kind", ["subpixel", "valid", "padded"])
@pytest.mark.parametrize("factor", [2.0, 2.433, 4.0])
def test_without_noise_pairs_are_those_of_numpy(volume, factor, kind, share):
    sampler, device = both(volume, kind, factor, NoiseModel(0.0, 0.0), share_noise=share)
    for seed in range(6):
        for one, other in pairs(sampler, device, seed):
            assert one.shape == other.shape and np.abs(one - other).max() < 1e-5


NOISES = [
    pytest.param(NoiseModel(0.02, 0.0), {}, 0.1, id="photons"),
    pytest.param(NoiseModel(0.0, 1e-3), {}, 0.1, id="read-out"),
    pytest.param(NoiseModel(0.01, 5e-4), {}, 0.1, id="both"),
    pytest.param(NoiseModel(0.01, -5e-4), {}, 0.1, id="light-without-signal"),
    pytest.param(NoiseModel(0.01, 5e-4), {"share_noise": False}, 0.1, id="top-up"),
    pytest.param(NoiseModel(0.0, 0.0), {"share_noise": False, "poisson": 0.05, "uniform": 0.1}, 0.4, id="paper"),
]


@pytest.mark.parametrize(("noise", "options", "tolerance"), NOISES)
def test_noise_is_of_the_same_kind(volume, noise, options, tolerance):
    """Mean, variance and kurtosis of many draws at one place, over all voxels. The paper's noise varies in strength."""
    sampler, device = both(volume, "subpixel", 2.0, noise, **options)
    plane = sampler._held_out[3]
    cut = sampler.cut(plane, np.random.default_rng(3))
    sampler.cut = lambda *_: cut
    sampler.rng = rng = np.random.default_rng(4)
    drawn = [[[], []], [[], []]]
    for _ in range(100):
        batch = sampler._pairs(iter([plane]), rng)
        parts = device.pair(device.there(plane), cut)
        for into, image, target in ((drawn[0], batch.image[0, 0], batch.target[0, 0]), (drawn[1], *parts[:2])):
            into[0].append(image.numpy())
            into[1].append(target.numpy())
    for which in (0, 1):
        one, other = (np.array(values[which], np.float64) for values in drawn)
        assert np.abs(one.mean(0).mean() - other.mean(0).mean()) < 3e-3
        spread = [values.var(axis=0).mean() for values in (one, other)]
        assert spread[1] == pytest.approx(spread[0], rel=tolerance, abs=1e-9)
        fourth = [((v - v.mean(axis=0)) ** 4).mean() / max(v.var(axis=0).mean() ** 2, 1e-12) for v in (one, other)]
        assert fourth[1] == pytest.approx(fourth[0], rel=3 * tolerance, abs=1e-3)


def test_a_training_with_them_learns(volume, monkeypatch):
    monkeypatch.setattr(device_patches, "MAKE_PATCHES", ("cpu",))
    config = TrainingConfig.preset("fast", patches=160, filters=4, blocks=2, validation=4)
    training = Training(volume, Acquisition((2.0, 1.0, 1.0)), config, "cpu")
    assert training._on_device is not None
    steps = list(training.run())
    assert training.gain > 0.1 and steps[-1].patches == 160


@pytest.mark.parametrize(
    ("kind", "budget", "options", "size"),
    [
        pytest.param("cpu", {"minutes": 1}, {}, 4, id="cpu"),
        pytest.param("cuda", {"minutes": 1}, {}, 32, id="gpu"),
        pytest.param("cuda", {"minutes": 1}, {"batch": 64}, 64, id="gpu-large"),
        pytest.param("cuda", {"patches": 64}, {}, 4, id="gpu-patches"),
    ],
)
def test_a_gpu_gets_larger_steps(kind, budget, options, size):
    assert batch_size(TrainingConfig.preset("fast", **budget, **options), torch.device(kind)) == size
