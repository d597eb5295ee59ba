"""Training patches that are made on the device of the training; the CPU only decides where they lie.

A GPU would wait most of the time for patches that numpy makes. The arithmetic is that of
:mod:`napari_cropeq.core.training.patches` and :mod:`napari_cropeq.core.training.thinning`; random numbers are those of
the device, so patches are others with noise of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_cropeq.core.devices.transfer import upload
from napari_cropeq.core.training.noise import NoiseModel
from napari_cropeq.core.training.patches import Cut, PatchSampler, TrainingBatch
from napari_cropeq.core.training.plane_pool import Plane, upwards
from napari_cropeq.core.training.thinning import LEAST_FRESH, chances_of, dark_of

__all__ = ["DevicePatches"]

MAKE_PATCHES = ("cuda",)
"""Devices for which torch draws from binomial and Poisson distributions."""

KEPT_PLANES = 64  # on the device; the pool has at most 32


@dataclass(frozen=True, slots=True)
class PlaneThere:
    """A plane on the device."""

    plane: Plane
    sharp: Tensor  # (rows, columns)
    coarse: Tensor  # (samples, columns)
    down: Tensor  # (samples, rows)
    kept: Tensor  # (samples,)
    up: Tensor  # (rows and halo, samples)


class DevicePatches:
    """Makes the pairs of a sampler on a device.

    Parameters
    ----------
    sampler : PatchSampler
        Draws planes and places, and knows the noise.
    device : torch.device
        Where the arrays are.
    seed : int
        Of the noise.
    """

    def __init__(self, sampler: PatchSampler, device: torch.device, seed: int) -> None:
        self._sampler, self._device = sampler, device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._planes: dict[int, PlaneThere] = {}  # they hold their planes, so a number belongs to one

    @classmethod
    def of(cls, sampler: PatchSampler, device: torch.device, seed: Sequence[int]) -> DevicePatches | None:
        """Return what makes the pairs on ``device``, or None if numpy makes them: always for the CPU."""
        if device.type not in MAKE_PATCHES:
            return None
        return cls(sampler, device, int(np.random.default_rng((*seed, 4)).integers(2**63)))

    def draw(self, count: int) -> TrainingBatch:
        """Return ``count`` pairs."""
        parts = []
        for plane in self._sampler.draw_planes(count):
            parts.append(self.pair(self.there(plane), self._sampler.cut(plane, self._sampler.rng)))
        image, target, base, noise, variance, carry = zip(*parts, strict=True)
        matrices = None if carry[0] is None else upload(np.stack(carry), self._device)
        bases, variances = (None if x[0] is None else torch.stack(x)[:, None] for x in (base, variance))
        return TrainingBatch(
            torch.stack(image)[:, None], torch.stack(target)[:, None], bases, matrices, torch.stack(noise), variances
        )

    def pair(self, there: PlaneThere, cut: Cut) -> tuple[Any, ...]:
        """Return image, target, interpolation, noise, variance and the matrix of one pair; see TrainingBatch."""
        sampler, plane, samples = self._sampler, there.plane, cut.samples
        model, config = sampler.noise[plane.channel], sampler.config
        left, right = int(cut.columns.min()), int(cut.columns.max()) + 1
        inner = slice(cut.column, cut.column + sampler.columns)
        coarse, sharp, kept = there.coarse[samples, left:right], there.sharp[cut.target, inner], there.kept[samples]
        spread = torch.clamp_min(model.slope * coarse.mean() + model.offset, 0).sqrt()
        variance = None
        if config.share_noise:
            window = plane.rows(samples.start, samples.stop, cut.target.start, cut.target.stop)
            whole, down = there.sharp[window, left:right], there.down[samples, window]
            of_samples, of_target = self.share(model, whole, down, kept, plane.down[samples, window])
            inside = (
                slice(cut.target.start - window.start, cut.target.stop - window.start),
                slice(cut.column - left, cut.column - left + sampler.columns),
            )
            coarse, sharp = coarse + of_samples, sharp + of_target[inside]
            if sampler.with_variance:
                variance = self._target_variance(model, whole + of_target, down, kept, plane.down[samples, window])
                variance = variance[inside]
        else:
            missing = torch.clamp_min(model.slope * coarse + model.offset, 0) * torch.clamp_min(1 - kept, 0)[:, None]
            coarse = coarse + self._random(torch.randn, coarse.shape) * missing.sqrt()
            if sampler.with_variance:
                variance = torch.clamp_min(model.slope * sharp + model.offset, 0)
        coarse = self._more_noise(coarse)[:, upload(cut.columns - left, self._device)]
        reach, rng = config.intensity, sampler.rng
        gain, shift = float(rng.uniform(1 - reach, 1 + reach)), float(rng.uniform(-reach / 2, reach / 2))
        coarse, sharp = coarse * gain + shift, sharp * gain + shift
        variance = None if variance is None else variance * gain * gain
        rows = there.up[cut.rows, samples]
        if not sampler.axial_grid.on_source_grid:
            return rows @ coarse, sharp, None, spread * gain, variance, None
        image = coarse[upload(cut.taken - samples.start, self._device)]
        base = rows @ coarse[:, sampler.halo : sampler.halo + sampler.columns]
        carry = sampler.axial_grid.matrix(cut.first, sampler.inputs, cut.target.start, cut.target.stop)
        return image, sharp, base, spread * gain, variance, carry

    def share(
        self, model: NoiseModel, sharp: Tensor, down: Tensor, kept: Tensor, weights: npt.NDArray[np.float32]
    ) -> tuple[Tensor, Tensor]:
        """Return the noise to add to samples and target, as :func:`~.thinning.share_noise` does.

        ``weights`` is ``down`` on the CPU.
        """
        of_samples, of_target = torch.zeros_like(down[:, :1] * sharp[:1]), torch.zeros_like(sharp)
        dark, variance = dark_of(model)
        if model.slope > 0:
            light = torch.clamp_min(sharp - dark, 0)
            count = torch.floor(light / model.slope + self._random(torch.rand, light.shape))
            left = torch.where(light > 0, torch.clamp_min(count, 1), 0)
            size, remaining = light / torch.clamp_min(left, 1), torch.ones_like(light[:, :1])
            places, chances = (upload(x, self._device) for x in chances_of(weights))
            for place, chance in zip(places, chances.to(light.dtype)[..., None], strict=True):
                share = torch.clamp_max(chance / remaining, 1).expand_as(left).contiguous()
                taken = torch.binomial(left, share, generator=self._generator)
                of_samples.index_add_(0, place, taken * size - chance * light)
                left, remaining = left - taken, remaining - chance
            of_target += left * size / remaining - light
        if variance > 0:
            fresh = torch.clamp_min(1 - kept, 0)
            added = self._random(torch.randn, of_samples.shape) * torch.sqrt(fresh * variance)[:, None]
            of_samples += added
            of_target -= down.T @ (added / torch.clamp_min(fresh, LEAST_FRESH)[:, None])
        return of_samples, of_target

    def _target_variance(
        self, model: NoiseModel, target: Tensor, down: Tensor, kept: Tensor, weights: npt.NDArray[np.float32]
    ) -> Tensor:
        """Return the variance of the noise of a target, as :func:`~.thinning.target_variance` does."""
        _, chances = chances_of(weights)
        remaining = upload((1 - chances.sum(axis=0)).astype(np.float32), self._device)
        dark, variance = dark_of(model)
        fresh = torch.clamp_min(1 - kept, 0)
        read_out = variance * (1 + down.T.square() @ (fresh / torch.clamp_min(fresh, LEAST_FRESH).square()))
        return torch.clamp_min(target - dark, 0) * (model.slope / remaining)[:, None] + read_out[:, None]

    def _more_noise(self, coarse: Tensor) -> Tensor:
        """Add Poisson and uniform noise of random strength, as the sampler does."""
        config, rng = self._sampler.config, self._sampler.rng
        if config.poisson > 0 and (variance := rng.uniform(0, config.poisson)) > 1e-9:
            light = torch.poisson(torch.clamp_min(coarse, 0) / variance, generator=self._generator)
            coarse = light * variance + torch.clamp_max(coarse, 0)
        if config.uniform > 0:
            coarse = coarse + (self._random(torch.rand, coarse.shape) * 2 - 1) * rng.uniform(0, config.uniform)
        return coarse

    def _random(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        return draw(shape, generator=self._generator, device=self._device)

    def there(self, plane: Plane) -> PlaneThere:
        """Return a plane on the device; the last ones stay there."""
        if id(plane) not in self._planes:
            sampler = self._sampler
            up = upwards(len(plane.coarse), sampler.axial_halo, sampler.axial_grid.factor)
            arrays = (upload(x, self._device) for x in (plane.sharp, plane.coarse, plane.down, plane.kept, up))
            self._planes[id(plane)] = PlaneThere(plane, *arrays)
            if len(self._planes) > KEPT_PLANES:
                self._planes.pop(next(iter(self._planes)))
        return self._planes[id(plane)]
