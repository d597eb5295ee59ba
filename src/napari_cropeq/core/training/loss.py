"""The loss of a training: the error of intensities and that of their Sobel edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_cropeq.core.training.config import TrainingConfig

__all__ = ["edge_loss", "loss_of"]

SOBEL = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]) / 8
EDGE_NOISE = float(SOBEL.square().sum()) ** 0.5  # standard deviation of the edges of white noise
QUADRATIC = 3.0  # errors below this many standard deviations of the noise count squared
LEAST_SCALE = 0.005  # scale of the loss without noise, share of the intensity range


def loss_of(output: Tensor, target: Tensor, noise: Tensor | None, config: TrainingConfig) -> Tensor:
    """Return the loss of a batch.

    Parameters
    ----------
    output, target : (N, 1, H, W)
        Normalised intensities.
    noise : (N,), optional
        Standard deviation of the noise of each target.
    config : TrainingConfig
        Kind of loss, and weight of the edges.

    Notes
    -----
    An L1 loss is least at the median of what is possible. Under the skewed noise of few photons that is not the mean.
    The Charbonnier loss (Charbonnier et al. 1994) is quadratic for errors as small as the noise, where its minimum is
    the mean, and linear for large ones, whose edges stay sharp.
    """
    if config.loss == "l1" or noise is None:
        return functional.l1_loss(output, target) + config.edge_weight * edge_loss(output, target)
    error = output - target
    scale = (QUADRATIC * noise + LEAST_SCALE)[:, None, None, None]
    return charbonnier(error, scale) + config.edge_weight * charbonnier(sobel(error), scale * EDGE_NOISE)


def charbonnier(error: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of ``sqrt(error**2 + scale**2) - scale``."""
    return (scale * (torch.sqrt(1 + (error / scale).square()) - 1)).mean()


def edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of Sobel edges of two batches (N, 1, H, W)."""
    return sobel(output - target).abs().mean()


def sobel(image: Tensor) -> Tensor:
    """Return the derivatives of ``image`` (N, 1, H, W) along both axes, (N, 2, H - 2, W - 2)."""
    kernel = torch.stack([SOBEL, SOBEL.T])[:, None].to(image)  # (2, 1, 3, 3)
    return functional.conv2d(image, kernel)
