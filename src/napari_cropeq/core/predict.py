"""Computes boxes of the SR grid by sending a source through the network: every SR voxel comes from here."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cropeq.core.call_size import (
    CANONICAL_ROWS,
    LARGE_TILES,
    LEAST_AXIAL,
    WHOLE_PLANES,
    Calls,
    CallSize,
    CanonicalTile,
    in_calls,
)
from napari_cropeq.core.devices.exactness import (
    canonical_tile,
    check_exactness,
    device_for,
    same_bits_side_by_side,
)
from napari_cropeq.core.devices.out_of_memory import give_memory_back, is_out_of_memory, watched
from napari_cropeq.core.devices.transfer import PINNED, convert, download, own_stream, rounded
from napari_cropeq.core.geometry import AXIS_NAMES, Acquisition, Box, IntTriple, int_triple
from napari_cropeq.core.host import exact_convolutions, freed_memory_kept, is_untouched
from napari_cropeq.core.imaging.back_projection import BackProjection
from napari_cropeq.core.network import ErrorTail, Network, PaddedNetwork, spread, use_channels_last, work
from napari_cropeq.core.network_grid import NetworkGrid
from napari_cropeq.core.normalisation import Normalisation, check_finite
from napari_cropeq.core.spline import ArrayLike, interpolate, read_mirrored
from napari_cropeq.errors import ArgumentError, OutOfMemoryError, StoppedError

__all__ = ["Predictor", "plane_axes"]

logger = logging.getLogger(__name__)

SIDE_BY_SIDE = 2

_Module = TypeVar("_Module", bound=nn.Module)


def never() -> bool:
    """Return False: the default of ``stop`` arguments."""
    return False


def plane_axes(planes: str | None, axial: int) -> tuple[int, ...]:
    """Return the lateral axes whose planes with the axial one go through the network.

    Parameters
    ----------
    planes : 'z', 'y', 'x', 'both' or None
        Name of the lateral axis, or both for the mean of the two; the last lateral axis by default.
    axial : int
        Index of the axial axis into z, y, x.

    Raises
    ------
    ArgumentError
        If ``planes`` is not a lateral axis.
    """
    lateral = tuple(a for a in range(3) if a != axial)
    if planes is None:
        return lateral[-1:]
    if planes == "both":
        return lateral
    names = [AXIS_NAMES[a] for a in lateral]
    if planes not in names:
        raise ArgumentError(
            f"The planes cannot be {planes!r} if the axial axis is {AXIS_NAMES[axial]}.",
            f"Choose {names[0]}, {names[1]} or both.",
            setting="planes",
        )
    return (AXIS_NAMES.index(planes),)


class Predictor:
    """Computes any box of the SR grid of one source.

    Parameters
    ----------
    network : Network
        Trained network; copied to the device.
    acquisition : Acquisition
        Grid of the source.
    source : array-like (z, y, x)
        The volume; only the parts that a box needs are read.
    normalisation : Normalisation
        Intensity scale of the source.
    planes : str, optional
        See :func:`plane_axes`.
    device : str
        See :func:`napari_cropeq.core.devices.device.choose_device`.
    dtype : torch.dtype
        Precision of interpolation and network; float64 is for tests.
    correction : float
        Width of the :class:`BackProjection` that keeps local mean intensities, px; 0 for none.
    error_tail : ErrorTail, optional
        Makes the expected error of every voxel, where that is wanted.
    """

    def __init__(
        self,
        network: Network,
        acquisition: Acquisition,
        source: ArrayLike,
        normalisation: Normalisation,
        planes: str | None = None,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        correction: float = 0.0,
        error_tail: ErrorTail | None = None,
    ) -> None:
        self.device = device_for(network, device, dtype)
        self.acquisition, self.source, self.normalisation = acquisition, source, normalisation
        self.planes = plane_axes(planes, acquisition.axial)
        self.network = _twin(network, self.device, dtype)
        self._second = None if error_tail is None else _twin(error_tail.tail, self.device, dtype)
        self._grid = NetworkGrid.of(network, acquisition, self.planes)
        self.dtype = dtype
        self.sr_shape = acquisition.sr_shape(source.shape)
        self._correction = BackProjection(acquisition, int_triple(source.shape), correction) if correction else None
        self.exactness = check_exactness(self.network, self.device)
        self._calls = Calls(CallSize())
        step = self._grid.axial_grid.step
        sizes = [(max(LEAST_AXIAL, round(side / step)), side, CANONICAL_ROWS) for side in LARGE_TILES]
        self._canonical = Calls(canonical_tile(self.network, sizes, self.device))
        self._at_once = False
        threads = torch.get_num_threads()
        logger.info(
            "Network %s with %d filters: %s, %d threads", network.kind, network.filters, self.exactness, threads
        )

    @property
    def side_by_side(self) -> int:
        """How many boxes to compute at the same time, if that changes no bits: two, or one.

        Each has half of a CPU's cores; on a CUDA GPU, one is copied while the other is computed.
        """
        if self.device.type == "cpu":
            if is_untouched():  # torch's threads cannot be divided then
                return 1
            if not self.exactness.bit_exact or torch.get_num_threads() < SIDE_BY_SIDE:
                return 1
        elif self.device.type not in PINNED:
            return 1
        return SIDE_BY_SIDE if same_bits_side_by_side(self.network, self.device, SIDE_BY_SIDE) else 1

    @property
    def canonical_tile(self) -> IntTriple | None:
        """SR voxels (axial axis, in the plane, across planes) of a canonical tile; None if tiles may have any shape."""
        tile = self._sizes.size
        return self._grid.voxels_of(tile) if isinstance(tile, CanonicalTile) else None

    @property
    def _sizes(self) -> Calls:
        """The size of calls: free, unless other shapes would give other bits.

        On a GPU the check of exactness says so for small images only, so tiles are canonical there.
        """
        free = self._at_once or (self.exactness.bit_exact and self.device.type == "cpu")
        return self._calls if free else self._canonical

    def over(self, source: ArrayLike, normalisation: Normalisation) -> Predictor:
        """Return a predictor for another volume of the same grid, with the same network."""
        sibling = copy.copy(self)
        sibling.source, sibling.normalisation = source, normalisation
        sibling.sr_shape = self.acquisition.sr_shape(source.shape)
        if self._correction is not None:
            sibling._correction = replace(self._correction, shape=int_triple(source.shape))
        return sibling

    def at_once(self) -> Predictor:
        """Return a predictor that computes each plane of a box in one call, of any size.

        Tiles are compared with it (slice evaluation; paper, section 3.1), and a network whose tiles are not exact needs
        it.
        """
        sibling = copy.copy(self)
        sibling._calls, sibling._at_once = Calls(WHOLE_PLANES), True
        return sibling

    def work(self, box: Box) -> int:
        """Return the multiply-adds of the network for the SR voxels of ``box``, with halos."""
        total, axial = 0, self.acquisition.axial
        for plane, tile in self._tiles(box, self._sizes.size):
            total += tile.shape[3 - axial - plane] * work(self.network, tile.shape[axial], tile.shape[plane])
        return total

    def __call__(
        self,
        box: Box,
        stop: Callable[[], bool] = never,
        with_error: bool = False,
        dtype: npt.DTypeLike | None = None,
    ) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) in source intensities, in ``dtype`` or else as they are computed.

        ``with_error`` adds their expected absolute errors, (2, z, y, x); there must be an error tail, and no ``dtype``.

        The bits do not depend on the box they are computed in: if the bits depend on the shape of a call on this
        device, whole tiles of the canonical grid are computed and cropped.

        Raises
        ------
        ImageError
            If the source holds NaN or infinite voxels there.
        StoppedError
            If ``stop``, called before every call of the network, returned True.
        OutOfMemoryError
            If there is too little memory even for small calls of the network, or a GPU whose memory was full may have
            computed other bits.
        """
        sizes = self._sizes
        while True:
            tried = sizes.begin()
            try:
                started = time.perf_counter()
                with watched(self.device), freed_memory_kept(), own_stream(self.device):
                    computed = self._compute(box, tried[0], stop, with_error)
                    voxels = download(computed if dtype is None else rounded(computed, dtype))
                logger.debug("Computed %s in %.3f s", box, time.perf_counter() - started)
                return voxels if dtype is None else convert(voxels, dtype)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not sizes.use_less(tried):
                    raise OutOfMemoryError(
                        f"There is too little memory for a box of {' x '.join(map(str, box.shape))} voxels with "
                        f"{self.network.filters} filters.",
                        "Close other programs, or use smaller tiles or fewer filters.",
                        setting="memory",
                    ) from error
            finally:
                sizes.end()
            give_memory_back(self.device)

    @torch.inference_mode()
    def _compute(self, box: Box, calls: CallSize | CanonicalTile, stop: Callable[[], bool], with_error: bool) -> Tensor:
        wide = self._refined_box(box)
        tiles = self._tiles(box, calls)
        window = self._read(wide, [self._grid.with_halo(tile, plane) for plane, tile in tiles])
        groups = in_calls(tiles, calls.together)
        refined, *logarithms = self._refined(window, wide, groups, stop, 2 if with_error else 1)
        if self._correction is not None:
            acquired = window.samples_of(self._correction.samples(box))
            refined = self._correction.apply(refined, wide, acquired, box)
        voxels = self.normalisation.undo(refined)
        if not logarithms:
            return voxels.contiguous()
        inside = logarithms[0][box.relative_to(wide.start).slices]
        return torch.stack([voxels, spread(inside) * (self.normalisation.high - self.normalisation.low)])

    def _refined_box(self, box: Box) -> Box:
        """Return the SR voxels that the network must give for those of ``box``."""
        return box if self._correction is None else self._correction.sr_box(box)

    def _refined(
        self,
        window: Window,
        box: Box,
        groups: list[tuple[int, list[Box]]],
        stop: Callable[[], bool],
        tails: int,
    ) -> list[Tensor]:
        """Return the normalised SR voxels of ``box`` that each of the ``tails`` gives, from one call for each group."""
        grid = self._grid
        samples = grid.input_samples(box)
        shape = tails, *grid.outputs(samples).shape
        outputs = {plane: torch.empty(shape, dtype=self.dtype, device=self.device) for plane in self.planes}
        for plane, tiles in groups:
            if stop():
                raise StoppedError
            for number, refined in enumerate(self._refine(window, tiles, plane, tails)):
                for tile, output in zip(tiles, refined, strict=True):
                    part = tile.intersect(samples)
                    if part is not None:
                        into, taken = (grid.outputs(part.relative_to(b.start)).slices for b in (samples, tile))
                        outputs[plane][number][into] = output[taken]
        found = []
        for number in range(tails):
            parts = [grid.carry(output[number], samples, box) for output in outputs.values()]
            found.append(parts[0] if len(parts) == 1 else (parts[0] + parts[1]) * 0.5)
        if grid.axial_grid.on_source_grid:  # the network predicts the residual
            found[0] = found[0] + window.interpolated(box)
        return found

    def _tiles(self, box: Box, size: CallSize | CanonicalTile) -> list[tuple[int, Box]]:
        """Return what the network computes for ``box``."""
        return self._grid.tiles(self._grid.input_samples(self._refined_box(box)), size)

    def source_box(self, box: Box) -> Box:
        """Return the source voxels that the SR voxels of ``box``, and of its parts, need; may cross the border."""
        inputs = [self._grid.with_halo(tile, plane) for plane, tile in self._tiles(box, self._sizes.size)]
        return self._grid.source_box(self._refined_box(box), inputs)

    @torch.inference_mode()
    def interpolated(self, box: Box, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """Return the quintic interpolation of ``box``, without the network, in source intensities."""
        computed = self.normalisation.undo(self._read(box, []).interpolated(box)).contiguous()
        return download(computed) if dtype is None else convert(download(rounded(computed, dtype)), dtype)

    def _read(self, box: Box, inputs: list[Box]) -> Window:
        """Read the normalised source samples for the SR voxels of ``box`` and boxes of input samples, once."""
        read = self._grid.source_box(box, inputs)
        raw = read_mirrored(self.source, read)
        check_finite(raw, "the volume", tuple(max(s, 0) for s in read.start))
        samples = self.normalisation.on_device(raw, self.device, self.dtype)
        return Window(samples.movedim(self.acquisition.axial, 0).contiguous(), read, self.acquisition)

    def _refine(self, window: Window, tiles: list[Box], plane: int, tails: int) -> Iterator[Iterator[Tensor]]:
        """Yield the outputs (z, y, x) for each of the input ``tiles``, for one tail after the other.

        They are computed in one call, in planes (axial, ``plane``); several tiles have the same shape.
        """
        images = []
        order = (3 - self.acquisition.axial - plane, self.acquisition.axial, plane)
        for tile in tiles:
            box = self._grid.with_halo(tile, plane)
            image = window.samples_of(box) if self._grid.axial_grid.on_source_grid else window.interpolated(box)
            images.append(image.permute(order).contiguous())  # (rows, axial, plane)
        batch = (images[0] if len(images) == 1 else torch.cat(images))[:, None]  # (N, 1, axial, plane)
        with exact_convolutions(self.device):
            if tails == 1:
                outputs: tuple[Tensor, ...] = (self.network.predict(batch),)
            else:
                assert self._second is not None and not isinstance(self.network, PaddedNetwork)
                outputs = self.network.predict_both(batch, self._second)
        for output in outputs:
            parts = output[:, 0].split(len(images[0]))
            yield (part.permute(*np.argsort(order).tolist()) for part in parts)


@dataclass(frozen=True, slots=True)
class Window:
    """Normalised source samples on a device, from which tiles are interpolated."""

    samples: Tensor  # axial axis first
    box: Box  # their place in the source, voxels (z, y, x); may cross the border
    acquisition: Acquisition

    def samples_of(self, box: Box) -> Tensor:
        """Return the normalised samples of a source box (z, y, x) inside the window."""
        inside = box.relative_to(self.box.start).slices
        axial = self.acquisition.axial
        lateral = [inside[a] for a in self.acquisition.lateral]
        return self.samples[inside[axial], lateral[0], lateral[1]].movedim(0, axial)

    def interpolated(self, box: Box) -> Tensor:
        """Return normalised, interpolated voxels of an SR box (z, y, x) inside the window."""
        axial = self.acquisition.axial
        lateral = [box.relative_to(self.box.start).slices[a] for a in self.acquisition.lateral]
        start, stop = box.start[axial], box.stop[axial]
        part = self.samples[:, lateral[0], lateral[1]]
        return interpolate(part, self.box.start[axial], start, stop, self.acquisition.factor).movedim(0, axial)


def _twin(network: _Module, device: torch.device, dtype: torch.dtype) -> _Module:
    twin = copy.deepcopy(network).to(device=device, dtype=dtype)
    use_channels_last(twin)
    return twin.eval().requires_grad_(False)
