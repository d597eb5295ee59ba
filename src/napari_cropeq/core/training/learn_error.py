"""Learns the expected error of a trained network, on the slices that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cropeq.core.network import LEVELS, ErrorTail, Network, PaddedNetwork, spread
from napari_cropeq.core.training.patches import PatchSampler, TrainingBatch

__all__ = ["LEAST_PATCHES", "TOO_FEW", "learn_error"]

Values = npt.NDArray[np.float64]

LEAST_PATCHES = 512
"""A network that was trained on fewer gets no expected error."""

TOO_FEW = f"The model has no expected error, which needs {LEAST_PATCHES} patches: train longer if Trust shall show it."

PATCHES = 3072
BATCH = 32
HELD_OUT = 512  # patches
RATE = 3e-3
FEWEST_STEPS = 4
LAPLACE = {0.5: 0.6931, 0.8: 1.6094, 0.9: 2.3026}  # intervals of Laplace's distribution, in mean absolute errors
MEAN_OF_LAPLACE = 0.5**0.5  # mean absolute error over the standard deviation
GROUPS = 50  # of held-out voxels
POWERS = np.linspace(0.5, 1.5, 21)  # of the expected squares, that are tried
LEAST_SCALE = 0.01  # measured squares over expected ones
NOISY = (0.25, 0.75)  # share of noise in squared differences: from here the distribution of errors is assumed


def learn_error(network: Network, sampler: PatchSampler, patches: int) -> Generator[float, None, ErrorTail]:
    """Fit a second tail to the errors of a network, yielding the share that is done; return it.

    The feature maps and the result of the network stay as they are. The tail is fitted by quasi-likelihood of squared
    errors: its minimum is their mean, whatever their distribution. The squared difference from a noisy target exceeds
    that from the truth by the variance of the noise, on average, because the noise of a target is independent of that
    of the samples; that variance is subtracted.

    Parameters
    ----------
    network : Network
        Trained, without padding; its device computes, and the tail is on the CPU.
    sampler : PatchSampler
        Draws the pairs, and those of the held-out rotation that the intervals are measured on.
    patches : int
        Pairs to draw.
    """
    assert not isinstance(network, PaddedNetwork)
    device, sampler.with_variance = network.tail.weight.device, True
    steps = max(FEWEST_STEPS, min(patches, PATCHES) // BATCH)
    weight = torch.zeros_like(network.tail.weight).requires_grad_()
    bias = torch.zeros_like(weight[:, 0, 0, 0]).requires_grad_()
    optimiser = torch.optim.Adam([weight, bias], lr=RATE)
    mean, deviation = torch.zeros(1), torch.ones(1)
    for step in range(steps):
        batch = sampler.draw(BATCH).to(device)
        features, difference = _evaluated(network, batch)
        square = difference.square() - _variance(batch)
        if step == 0:
            mean, deviation = (f(features, (0, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
            deviation = deviation + 1e-6
            nn.init.constant_(bias, 0.5 * math.log(max(float(square.mean()), 1e-5)))
        for group in optimiser.param_groups:
            group["lr"] = RATE * (0.505 + 0.495 * math.cos(math.pi * step / steps))
        output = functional.conv2d((features - mean) / deviation, weight, bias)
        # Of error and noise together: the loss of the error alone has no minimum where a square happens to be negative.
        # The noise is that of the batch: weights must not depend on the noise of single voxels.
        noise = _variance(batch).mean()
        variance = spread(_carried(network, output, batch)).square() + noise
        loss = (torch.log(variance) + (square + noise) / variance).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([weight, bias], 1.0)
        optimiser.step()
        yield (step + 1) / (steps + 1)
    with torch.no_grad():  # the scale of the feature maps becomes a part of the weights
        folded = weight / deviation
        found = ErrorTail.of(folded, bias - (folded * mean).sum((1, 2, 3)), {})
    return _calibrated(network, found, sampler.held_out(HELD_OUT).to(device))


def _calibrated(network: Network, found: ErrorTail, batch: TrainingBatch) -> ErrorTail:
    """Return a tail for mean absolute errors, and their intervals, as they are on held-out patches."""
    parts = [(p, *_evaluated(network, p)) for p in batch.split(BATCH)]
    with torch.no_grad():
        expected = torch.cat([spread(_carried(network, found.tail(f), p)) for p, f, _ in parts]).square()
    square = torch.cat([d for _, _, d in parts]).square()
    noise = torch.cat([_variance(p).expand_as(d) for p, _, d in parts])
    values = expected, square - noise, noise
    scale, power = _regression(*(x.flatten().cpu().numpy().astype(np.float64) for x in values))
    ratio = torch.sqrt(square / (scale * expected**power + noise)).flatten().cpu().numpy()
    low, high = NOISY
    assumed = float(np.clip((float(noise.mean() / square.mean()) - low) / (high - low), 0, 1))
    each = (1 - assumed) * float(ratio.mean()) + assumed * MEAN_OF_LAPLACE
    of_ratio = dict(zip(LEVELS, np.quantile(ratio, LEVELS) / ratio.mean(), strict=True))
    intervals = {level: float((1 - assumed) * of_ratio[level] + assumed * LAPLACE[level]) for level in LEVELS}
    shift = math.log(each * scale**0.5)
    assert found.tail.bias is not None
    weight, bias = found.tail.weight * power, found.tail.bias * power + shift
    return ErrorTail.of(weight.cpu(), bias.cpu(), intervals)


def _regression(expected: Values, square: Values, noise: Values) -> tuple[float, float]:
    """Return scale and power with which the expected squares, (n,), are most like the measured ones.

    ``square`` has the squares less the variance of the noise, ``noise``. The means of voxels that expect similar
    squares are compared: a weight that depended on the noise of a single voxel would favour those with little of it.
    """
    parts = np.array_split(np.argsort(expected), GROUPS)
    e, q, n = (np.array([values[part].mean() for part in parts]) for values in (expected, square, noise))
    typical, weight = float(e.mean()), 1 / (e + n) ** 2

    def fitted(power: float) -> tuple[float, float, float]:
        raised = typical * (e / typical) ** power
        scale = max(float((weight * raised * q).sum() / (weight * raised**2).sum()), LEAST_SCALE)
        return float((weight * (q - scale * raised) ** 2).sum()), scale, power

    _, scale, power = min(fitted(float(power)) for power in POWERS)
    return scale * typical ** (1 - power), power


def _evaluated(network: Network, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return the feature maps of a batch, and how far its targets are from the result."""
    assert not isinstance(network, PaddedNetwork)
    with torch.no_grad():
        features = network.features(batch.image)
        output = network.finished(network.tail(features), batch.image)
        return features, batch.target - batch.completed(output)


def _carried(network: Network, output: Tensor, batch: TrainingBatch) -> Tensor:
    assert not isinstance(network, PaddedNetwork)
    return batch.carried(network.arranged(output))


def _variance(batch: TrainingBatch) -> Tensor:
    return batch.target.new_zeros(1) if batch.variance is None else batch.variance
