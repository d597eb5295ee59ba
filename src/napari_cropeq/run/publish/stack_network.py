"""All that super-resolves a stack as one network of plain convolutions, which other programs can run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cropeq.core.geometry import TAPS, IntTriple
from napari_cropeq.core.imaging.back_projection import BackProjection
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import PaddedNetwork, ValidNetwork, interleave
from napari_cropeq.core.spline import interpolation_weights
from napari_cropeq.errors import MismatchError

__all__ = ["STEPS", "StackNetwork", "check_publishable"]

STEPS = 4, 8
"""Between the sizes of a block, voxels: axially and laterally."""

TOLERANCE = 1e-9  # of a factor that counts as an integer, as in AxialGrid


def check_publishable(model: Model) -> None:
    """Raise MismatchError if the results of a model cannot be computed by a network of plain convolutions.

    The steps between the grids are convolutions only if the factor is an integer. For other factors, the network of
    the paper can be published without them: it works on the interpolated image.
    """
    network, factor = model.network, model.acquisition.factor
    if isinstance(network, PaddedNetwork):
        raise MismatchError(
            "The model has a zero-padded network, whose tiles have seams.",
            "Train a model with another network and publish that.",
        )
    if _is_integer(factor):
        return
    if network.on_source_grid:
        raise MismatchError(
            f"The factor of the model is {factor:.6g}, and the network {network.kind!r}, which works on the acquired "
            "slices, can be published for integer factors only.",
            "Train a model with the preset paper and publish that.",
        )
    if model.correction:
        raise MismatchError(
            f"The factor of the model is {factor:.6g}, and the step that keeps local mean intensities, which compares "
            "the result with the acquired slices, can be published for integer factors only.",
            "Train a model with the preset paper, or with the settings network=valid and correction=0.",
        )


def _is_integer(factor: float) -> bool:
    return abs(factor - round(factor)) < TOLERANCE


class StackNetwork(nn.Module):
    """The result of a model, the mean of both planes, for a stack.

    Input (N, 1, z, y, x) in the intensities of the image that the model was trained on: acquired slices if the factor
    is an integer, otherwise a stack that is interpolated to the SR grid. Output (N, 1, z, y, x), ``factor`` times as
    long along the axial axis, in the same intensities.

    No convolution is padded. At the end, ``halo`` voxels of zeros are added on each side, so that the output covers the
    input: it is the consumer who gives a margin and crops this border. It must not be taken for a result.

    Parameters
    ----------
    model : Model
        One that :func:`check_publishable` does not refuse.
    channel : int
        Its intensity scale is built in.
    """

    def __init__(self, model: Model, channel: int = 0) -> None:
        super().__init__()
        assert isinstance(model.network, ValidNetwork)
        acquisition = model.acquisition
        self.axial, self.scale = acquisition.axial, model.normalisations[channel]
        self.network = model.network
        self.interpolates = _is_integer(acquisition.factor)
        self.factor = round(acquisition.factor) if self.interpolates else 1
        if self.interpolates:
            self._keep("spline", _spline_rows(self.factor))
        self.correction = bool(model.correction)
        if model.correction:
            # Away from borders, nothing depends on the shape.
            step = BackProjection(acquisition, (1, 1, 1), model.correction)
            self._keep("image", _image_rows(step, self.factor))
            self._keep("up", _up_rows(step, self.factor))
            self._keep("smooth", np.asarray(step.lateral_weights)[None])

    @property
    def halo(self) -> IntTriple:
        """What is not computed on each side of the output, voxels (z, y, x)."""
        axial, lateral = self._refined_halo, self.network.halo
        if self.correction:
            axial += self._reach("image") + self._reach("up")
            lateral += self._reach("smooth")
        z, y, x = (axial * self.factor if axis == self.axial else lateral for axis in range(3))
        return z, y, x

    @property
    def smallest_block(self) -> IntTriple:
        """The smallest input (z, y, x) for other programs: the network computes a few voxels inside its halo."""
        z, y, x = (
            2 * halo // self.factor + STEPS[0] if axis == self.axial else 2 * halo + STEPS[1]
            for axis, halo in enumerate(self.halo)
        )
        return z, y, x

    def forward(self, stack: Tensor) -> Tensor:
        """Return the result. (N, 1, z, y, x) -> (N, 1, z, y, x), one of them ``factor`` times as long."""
        low, span = self.scale.low, self.scale.high - self.scale.low
        acquired = (stack.movedim(2 + self.axial, 2) - low) * (1 / span)  # (N, 1, axial, lateral, lateral)
        result = self._refined(acquired)
        if self.correction:
            result = self._corrected(result, acquired)
        voxels = (result * span + low).movedim(2, 2 + self.axial)
        z, y, x = self.halo
        return functional.pad(voxels, (x, x, y, y, z, z))

    @property
    def _refined_halo(self) -> int:
        """How many samples of the input on each axial side the refined result lacks."""
        halo = self.network.axial_halo
        if not self.interpolates:
            return halo
        return max(TAPS, halo) if self.network.on_source_grid else TAPS + math.ceil(halo / self.factor)

    def _refined(self, acquired: Tensor) -> Tensor:
        """Return what network and interpolation give, axial axis first among the last three."""
        lateral, lost = self.network.halo, self._refined_halo
        if not self.interpolates:
            return self._both_planes(acquired)
        spline = _along_axial(acquired, self.spline)
        if self.network.on_source_grid:  # the network predicts the residual
            rows = (lost - TAPS) * self.factor
            margin = lost - self.network.axial_halo
            return _crop(spline, rows, lateral) + self._both_planes(_crop(acquired, margin, 0))
        return self._both_planes(_crop(spline, (lost - TAPS) * self.factor - self.network.axial_halo, 0))

    def _both_planes(self, samples: Tensor) -> Tensor:
        """Return the mean of what the network gives for planes along one lateral axis and along the other."""
        halo = self.network.halo
        n, _, rows, first, second = samples.shape
        along_second = samples[..., halo : first - halo, :].permute(0, 3, 1, 2, 4)  # (N, first', 1, axial, second)
        along_first = samples[..., halo : second - halo].permute(0, 4, 1, 2, 3)  # (N, second', 1, axial, first)
        one = self._planes(along_second.reshape(n * (first - 2 * halo), 1, rows, second))
        other = self._planes(along_first.reshape(n * (second - 2 * halo), 1, rows, first))
        one = one.reshape(n, first - 2 * halo, 1, -1, second - 2 * halo).permute(0, 2, 3, 1, 4)
        other = other.reshape(n, second - 2 * halo, 1, -1, first - 2 * halo).permute(0, 2, 3, 4, 1)
        return (one + other) * 0.5

    def _planes(self, image: Tensor) -> Tensor:
        """Return what the network gives for planes (N, 1, axial, lateral)."""
        network, x = self.network, self.network.head(image)
        for first, second in zip(network.body[::2], network.body[1::2], strict=True):
            rows, columns = network.skip
            x = _crop(x, rows, columns, planes=1) + second(functional.relu(first(x)))
        output: Tensor = network.tail(x)
        if network.on_source_grid:
            return interleave(output)
        return output + _crop(image, network.axial_halo, network.halo, planes=1)

    def _corrected(self, result: Tensor, acquired: Tensor) -> Tensor:
        """Return the result with its local mean intensities corrected; see BackProjection."""
        image, up, lateral = self._reach("image"), self._reach("up"), self._reach("smooth")
        imaged = _along_axial(result, self.image, self.factor)
        lacking = _crop(acquired, self._refined_halo + image, self.network.halo) - imaged
        n, _, rows, first, second = lacking.shape
        planes = lacking.reshape(n * rows, 1, first, second)
        for axis in (3, 2):
            planes = functional.conv2d(planes, self.get_buffer("smooth").unsqueeze(axis))
        smoothed = planes.reshape(n, 1, rows, first - 2 * lateral, second - 2 * lateral)
        return _crop(result, (image + up) * self.factor, lateral) + _along_axial(smoothed, self.up)

    def _keep(self, name: str, rows: npt.NDArray[np.float64]) -> None:
        """Keep filters (outputs, taps) as the weights of a convolution, (outputs, 1, taps)."""
        self.register_buffer(name, torch.from_numpy(rows.astype(np.float32))[:, None])

    def _reach(self, name: str) -> int:
        """Return how many samples on each side a filter needs; that of the image has the taps of whole samples."""
        taps: int = getattr(self, name).shape[-1]
        return (taps // self.factor if name == "image" else taps) // 2


def _spline_rows(factor: int) -> npt.NDArray[np.float64]:
    """Return the filters (factor, taps) that interpolate the SR voxels of a sample from those around it."""
    rows = np.zeros((factor, 2 * TAPS + 1))
    first, weights = interpolation_weights(0, factor, float(factor))
    for row, tap, values in zip(rows, first + TAPS, weights, strict=True):
        row[tap : tap + len(values)] = values
    return rows


def _image_rows(step: BackProjection, factor: int) -> npt.NDArray[np.float64]:
    """Return the filter (1, taps) that images SR voxels: those of a sample and of as many on each of its sides."""
    voxels, weights = step.forward_model.profile(0)
    reach = max(-(voxels[0] // factor), voxels[-1] // factor)
    row = np.zeros((1, (2 * reach + 1) * factor))
    row[0, voxels + reach * factor] = weights
    return row


def _up_rows(step: BackProjection, factor: int) -> npt.NDArray[np.float64]:
    """Return the filters (factor, taps) that bring samples, smoothed, to the SR voxels of one."""
    first, weights = step.taps(0, factor)
    taps = first[:, None] + np.arange(weights.shape[1])  # (factor, taps)
    reach = int(np.abs(taps[weights > 0]).max())
    rows = np.zeros((factor, 2 * reach + 1))
    for row, places, values in zip(rows, taps + reach, weights, strict=True):
        row[places[values > 0]] = values[values > 0]
    return rows


def _along_axial(stack: Tensor, kernel: Any, stride: int = 1) -> Tensor:
    """Filter along the axial axis of (N, 1, axial, lateral, lateral); several outputs of a sample are interleaved."""
    n, _, rows, first, second = stack.shape
    planes = stack.reshape(n, 1, rows, first * second)
    filtered = functional.conv2d(planes, kernel[..., None], stride=(stride, 1))  # (N, outputs, axial', lateral)
    return interleave(filtered).reshape(n, 1, -1, first, second)


def _crop(image: Tensor, axial: int, lateral: int, planes: int = 2) -> Tensor:
    """Crop each side of a stack (N, 1, axial, lateral, lateral), or of planes (N, C, axial, lateral)."""
    rows, columns = slice(axial, -axial or None), slice(lateral, -lateral or None)
    return image[(..., rows, *[columns] * planes)]
