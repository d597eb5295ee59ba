"""Training patches, drawn on the fly from the lateral planes of a source (self-supervision)."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_cropeq.core.axial_grid import AxialGrid
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, check_shape, mirror
from napari_cropeq.core.network import Network, crop
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.noise import NOISE_PLANES, NoiseModel, PhotonTransfer
from napari_cropeq.core.training.plane_pool import HELD_OUT, WINDOW, Plane, PlanePool, PlaneReader, Volume, upwards
from napari_cropeq.core.training.thinning import share_noise, target_variance

__all__ = ["PatchSampler", "TrainingBatch", "min_lateral"]

MIN_LATERAL = 64
FEWEST_SLICES = 8


def min_lateral(acquisition: Acquisition) -> int:
    """Return the smallest lateral side for training, px.

    It is at least 64 px. As the axial axis of a stack, it has room for 8 slices and the support of their slice profile
    (3 sigma on each side).
    """
    support = 6 * acquisition.blur_px / FWHM_PER_SIGMA
    return max(MIN_LATERAL, math.ceil(FEWEST_SLICES * acquisition.factor + support))


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A batch of input images and their targets, normalised float32."""

    image: Tensor  # (N, 1, input samples and halo, columns and halo), on the network's input grid
    target: Tensor  # (N, 1, rows, columns), on the SR grid
    base: Tensor | None = None  # (N, 1, rows, columns), the interpolation, if the network predicts the residual only
    carry: Tensor | None = None  # (N, rows, outputs), from the network's outputs to the SR grid if they differ
    noise: Tensor | None = None  # (N,), standard deviation of the noise at the mean intensity of each image
    variance: Tensor | None = None  # (N, 1, rows, columns), of the noise of the targets, if it is asked for

    def __len__(self) -> int:
        return len(self.image)

    def output(self, network: Network) -> Tensor:
        """Return the result of ``network`` for the images, (N, 1, rows, columns) on the SR grid."""
        return self.completed(network(self.image))

    def completed(self, output: Tensor) -> Tensor:
        """Return the result, (N, 1, rows, columns), from the output of a network for the images."""
        carried = self.carried(output)
        return carried if self.base is None else self.base + carried

    def carried(self, output: Tensor) -> Tensor:
        """Return what a network gives for the images on the SR grid, (N, 1, rows, columns)."""
        return output if self.carry is None else (self.carry @ output[:, 0])[:, None]

    def interpolated(self, network: Network) -> Tensor:
        """Return the interpolation, (N, 1, rows, columns), that ``network`` refines."""
        return crop(self.image, network.axial_halo, network.halo) if self.base is None else self.base

    def split(self, size: int) -> Iterator[TrainingBatch]:
        """Yield the batch in parts of at most ``size``."""
        for start in range(0, len(self), size):
            yield self._each(operator.itemgetter(slice(start, start + size)))

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the batch on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        tensors = (getattr(self, f.name) for f in dataclasses.fields(self))
        return TrainingBatch(*(None if tensor is None else change(tensor) for tensor in tensors))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Cut:
    """The place of a patch in a plane."""

    first: int  # input sample
    column: int  # the first one, without halo
    target: slice  # SR rows of the target
    columns: npt.NDArray[np.int64]  # with the halo, mirrored at the border of the plane
    rows: slice  # of the matrix that interpolates the samples of the plane
    taken: npt.NDArray[np.int64]  # samples of the input image, if it is not interpolated, mirrored likewise
    samples: slice  # all that are needed


class PatchSampler:
    """Draws (LR, HR) pairs from lateral slices of the volumes.

    A slice is rotated at random, so any lateral direction can serve as the axial one; that direction is blurred by
    the slice profile and sampled at the axial step, by the code that interpolates at inference. Patches and the
    support of their blur lie inside the slice if it is large enough; beyond its border it is mirrored, as at
    inference.

    Parameters
    ----------
    volumes : sequence of Volume
        Channels and time points to train on; their slices are read when needed, and some are cached.
    acquisition : Acquisition
        Step and slice profile to simulate.
    network : Network
        Its grid, halo and sub-positions determine the patches.
    config : TrainingConfig
        Patch size, rotations, noise, seed; with a patch budget every draw depends on the seed alone.
    start : int
        Patches drawn earlier, when a training continues: the draws are then different.

    Raises
    ------
    ImageError
        If a volume is too thin, too small laterally, or holds NaN or infinite voxels.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        acquisition: Acquisition,
        network: Network,
        config: TrainingConfig,
        start: int = 0,
    ) -> None:
        for volume in volumes:
            check_shape(volume.voxels.shape, acquisition, min_lateral(acquisition))
        self.axial_grid = AxialGrid.of(network, acquisition.factor)
        self.axial_halo, self.halo = network.axial_halo, network.halo
        self.config = config
        self.rng = np.random.default_rng((config.seed, start, 0))
        self.support = math.ceil(3 * acquisition.blur_px / FWHM_PER_SIGMA)
        smallest = min(min(v.voxels.shape[a], WINDOW) for v in volumes for a in acquisition.lateral)
        offset = math.ceil(acquisition.factor) if self.axial_grid.on_source_grid else 0
        # The padded network is trained on patches as large as the valid one's targets (paper: 32 px).
        self.columns = min(config.patch - network.shrink if network.shrink else config.patch // 2, smallest)
        self.inputs = min(self.columns, math.floor((smallest - offset) / self.axial_grid.step))
        room = math.ceil((self.inputs + 2 * self.axial_halo) * self.axial_grid.step) + 2 * self.support + offset
        space = (room, self.columns + 2 * self.halo)
        self.with_variance = False  # whether pairs have the variance of the noise of their targets
        self.noise: dict[int, NoiseModel] = {}
        self.transfer: dict[int, PhotonTransfer] = {}  # empty if the noise is not measured by it
        self._held_out: list[Plane] = []
        # Does not depend on ``start``: the validation patches stay the same when a training continues.
        reader = PlaneReader(volumes, acquisition, False, space, (config.seed, 0, 2))
        for channel in sorted({volume.channel for volume in volumes}):
            slices = reader.spread(channel, NOISE_PLANES)
            self.noise[channel] = self._noise_of(slices, channel)
            self._held_out += [reader.oriented(plane, channel, HELD_OUT) for plane in slices]
        reader = PlaneReader(volumes, acquisition, config.rotations == "any", space, (config.seed, start, 1))
        self._planes = PlanePool(reader, wait=config.patches is not None)

    def _noise_of(self, slices: Sequence[npt.NDArray[np.float32]], channel: int) -> NoiseModel:
        if not self.config.match_noise:
            return NoiseModel(0.0, 0.0)
        if not self.config.share_noise:
            return NoiseModel.estimate(slices)
        self.transfer[channel] = PhotonTransfer.measure(slices)
        return self.transfer[channel].model

    def draw(self, count: int) -> TrainingBatch:
        """Return ``count`` pairs."""
        self._planes.renew(self.rng)
        return self._pairs((self._planes.draw(self.rng) for _ in range(count)), self.rng)

    def held_out(self, count: int) -> TrainingBatch:
        """Return ``count`` pairs of the rotation that :meth:`draw` never uses, for validation."""
        planes = (self._held_out[n % len(self._held_out)] for n in range(count))
        return self._pairs(planes, np.random.default_rng((self.config.seed, 0, 3)))

    def draw_planes(self, count: int) -> list[Plane]:
        """Return the planes of the next ``count`` pairs."""
        self._planes.renew(self.rng)
        return [self._planes.draw(self.rng) for _ in range(count)]

    def close(self) -> None:
        """Stop reading ahead."""
        self._planes.close()

    def _pairs(self, planes: Iterator[Plane], rng: np.random.Generator) -> TrainingBatch:
        parts = zip(*(self._draw_one(plane, rng) for plane in planes), strict=True)
        image, target, base, carry, noise, variance = (
            None if x[0] is None else torch.from_numpy(np.stack(x)) for x in parts
        )
        assert image is not None and target is not None
        base, variance = (None if x is None else x[:, None] for x in (base, variance))
        return TrainingBatch(image[:, None], target[:, None], base, carry, noise, variance)

    def cut(self, plane: Plane, rng: np.random.Generator) -> Cut:
        """Return a random place for a patch in a plane, and what it is made from."""
        axial_grid, halo, deep = self.axial_grid, self.halo, self.axial_halo
        samples = len(plane.coarse)
        first, column = self._place(plane, rng)
        start, stop = axial_grid.inside(first, self.inputs)
        columns = mirror(np.arange(column - halo, column + self.columns + halo), plane.sharp.shape[1])
        up = upwards(samples, deep, axial_grid.factor)  # row deep + j is SR px j
        if axial_grid.on_source_grid:
            rows = slice(deep + start, deep + stop)
            taken = mirror(np.arange(first - deep, first + self.inputs + deep), samples)
        else:
            rows = slice(start, stop + 2 * deep)
            taken = np.zeros(0, np.int64)
        needed = np.flatnonzero(up[rows].any(axis=0))
        low = int(min(needed[0], *taken)) if len(taken) else int(needed[0])
        high = int(max(needed[-1], *taken)) + 1 if len(taken) else int(needed[-1]) + 1
        return Cut(first, column, slice(start, stop), columns, rows, taken, slice(low, high))

    def _draw_one(self, plane: Plane, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32] | None, ...]:
        axial_grid, halo = self.axial_grid, self.halo
        cut = self.cut(plane, rng)
        first, column, columns, taken = cut.first, cut.column, cut.columns, cut.taken
        start, stop, low, high = cut.target.start, cut.target.stop, cut.samples.start, cut.samples.stop
        left, right = int(columns.min()), int(columns.max()) + 1
        rows = upwards(len(plane.coarse), self.axial_halo, axial_grid.factor)[cut.rows]
        noise = self.noise[plane.channel]
        coarse, sharp = plane.coarse[low:high, left:right], plane.sharp[start:stop, column : column + self.columns]
        variance = None
        if self.config.share_noise:
            window = plane.rows(low, high, start, stop)
            whole, down, kept = plane.sharp[window, left:right], plane.down[low:high, window], plane.kept[low:high]
            of_samples, of_target = share_noise(noise, whole, down, kept, rng)
            coarse = coarse + of_samples
            inside = (
                slice(start - window.start, stop - window.start),
                slice(column - left, column - left + self.columns),
            )
            sharp = sharp + of_target[inside]
            if self.with_variance:
                variance = target_variance(noise, whole + of_target, down, kept)[inside]
        else:
            coarse = noise.top_up(coarse, plane.kept[low:high], rng)
            if self.with_variance:
                variance = noise.variance(sharp)
        coarse = self._more_noise(coarse, rng)[:, columns - left]
        reach = self.config.intensity
        gain, shift = np.float32(rng.uniform(1 - reach, 1 + reach)), np.float32(rng.uniform(-reach / 2, reach / 2))
        coarse = coarse * gain + shift
        target = sharp * gain + shift
        variance = None if variance is None else variance * gain * gain
        spread = np.asarray(gain * noise.variance(plane.coarse[low:high, left:right].mean()) ** 0.5, np.float32)
        if not axial_grid.on_source_grid:
            return rows[:, low:high] @ coarse, target, None, None, spread, variance
        base = rows[:, low:high] @ coarse[:, halo : halo + self.columns]
        return coarse[taken - low], target, base, axial_grid.matrix(first, self.inputs, start, stop), spread, variance

    def _place(self, plane: Plane, rng: np.random.Generator) -> tuple[int, int]:
        """Return the first input sample and the first column of a patch, without its halo."""
        step = self.axial_grid.step
        row, column = plane.place(rng, self.config.gradient)
        # The halo, and the support of the blur, stay inside if there is room for them.
        end = math.floor((plane.sharp.shape[0] + 1e-6) / step)
        margin = max(0, min(self.axial_halo + math.ceil(self.support / step), (end - self.inputs) // 2))
        first = int(np.clip(round(row / step - self.inputs / 2), margin, max(margin, end - self.inputs - margin)))
        end = plane.sharp.shape[1]
        margin = max(0, min(self.halo, (end - self.columns) // 2))
        left = int(np.clip(round(column - self.columns / 2), margin, max(margin, end - self.columns - margin)))
        return first, left

    def _more_noise(self, coarse: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Add Poisson and uniform noise of random strength to a low-resolution window (paper, section 4)."""
        config = self.config
        if config.poisson > 0 and (variance := rng.uniform(0, config.poisson)) > 1e-9:
            coarse = (rng.poisson(np.maximum(coarse, 0) / variance) * variance + np.minimum(coarse, 0)).astype(
                np.float32
            )
        if config.uniform > 0:
            width = rng.uniform(0, config.uniform)
            coarse = coarse + rng.uniform(-width, width, coarse.shape).astype(np.float32)
        return coarse
