"""Boxes of a source through the network on a device: the one way to an SR voxel."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_cropeq.core.exactness import check_exactness, reproducible, same_bits_side_by_side
from napari_cropeq.core.geometry import AXIS_NAMES, Acquisition, Box, IntTriple
from napari_cropeq.core.host import freed_memory_kept, give_freed_memory_back, is_untouched
from napari_cropeq.core.network import Network, use_channels_last, work
from napari_cropeq.core.network_grid import WHOLE_PLANES, CallSize, NetworkGrid
from napari_cropeq.core.normalisation import Normalisation, check_finite
from napari_cropeq.core.out_of_memory import is_out_of_memory
from napari_cropeq.core.spline import ArrayLike, interpolate, read_mirrored
from napari_cropeq.errors import StoppedError

__all__ = ["Predictor", "choose_device", "convert", "plane_axes"]

SIDE_BY_SIDE = 2


def never() -> bool:
    """Return False: nothing asks to stop."""
    return False


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        If the device is unknown or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f"Got device {name!r}, expected auto, cpu or cuda: choose one of these.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("Got device cuda, but torch finds no CUDA GPU here: choose cpu or auto.")
    return torch.device(name)


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
    ValueError
        If ``planes`` names no lateral axis.
    """
    lateral = tuple(a for a in range(3) if a != axial)
    if planes is None:
        return lateral[-1:]
    if planes == "both":
        return lateral
    names = [AXIS_NAMES[a] for a in lateral]
    if planes not in names:
        raise ValueError(
            f"Got planes {planes!r}, expected {names[0]}, {names[1]} or both for an axial axis "
            f"{AXIS_NAMES[axial]}: choose one of these."
        )
    return (AXIS_NAMES.index(planes),)


class _Calls:
    """The size of calls that threads and siblings of a predictor share; less once memory has run out."""

    def __init__(self, size: CallSize) -> None:
        self.size, self._lock = size, threading.Lock()

    def halve(self, tried: CallSize) -> bool:
        """Make calls smaller than ``tried``, if no other thread has; return whether they are."""
        with self._lock:
            smaller = tried.halved()
            if smaller is not None and self.size.elements >= tried.elements:
                self.size = smaller
        return smaller is not None


class Predictor:
    """Computes any box of the SR grid of one source.

    Parameters
    ----------
    network : Network
        Trained weights; copied to the device.
    acquisition : Acquisition
        Grid of the source.
    source : array-like (z, y, x)
        Read only where a box needs it.
    normalisation : Normalisation
        Intensity scale of the source.
    planes : str, optional
        See :func:`plane_axes`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    dtype : torch.dtype
        Precision of interpolation and network; float64 serves tests.
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
    ) -> None:
        self.device = choose_device(device)
        self.acquisition, self.source, self.normalisation = acquisition, source, normalisation
        self.planes = plane_axes(planes, acquisition.axial)
        self.network = _twin(network, self.device, dtype)
        self._grid = NetworkGrid.of(network, acquisition, self.planes)
        self.dtype = np.dtype(np.float64 if dtype is torch.float64 else np.float32)
        self.sr_shape = acquisition.sr_shape(source.shape)
        self.exactness = check_exactness(self.network, self.device)
        self._calls = _Calls(CallSize())
        self._at_once = False

    @property
    def side_by_side(self) -> int:
        """How many boxes are best computed at the same time: two halves of a CPU's cores, if that changes no bits."""
        if is_untouched():  # torch's threads cannot be shared out then
            return 1
        if self.device.type != "cpu" or not self.exactness.bit_exact or torch.get_num_threads() < SIDE_BY_SIDE:
            return 1
        return SIDE_BY_SIDE if same_bits_side_by_side(self.network, self.device, SIDE_BY_SIDE) else 1

    @property
    def canonical_tile(self) -> IntTriple:
        """SR voxels along the axial axis, in the plane and across planes that whole canonical tiles fill."""
        return self._grid.canonical_tile

    def over(self, source: ArrayLike, normalisation: Normalisation) -> Predictor:
        """Return a predictor for another volume of the same grid, sharing the network."""
        sibling = copy.copy(self)
        sibling.source, sibling.normalisation = source, normalisation
        sibling.sr_shape = self.acquisition.sr_shape(source.shape)
        return sibling

    def at_once(self) -> Predictor:
        """Return a predictor that shows the network each plane of a box in one call, however large it is.

        It is what tiles are compared with: slice evaluation (paper, section 3.1), and the only way to a box for a
        network whose tiles are not exact.
        """
        sibling = copy.copy(self)
        sibling._calls, sibling._at_once = _Calls(WHOLE_PLANES), True
        return sibling

    def work(self, box: Box) -> int:
        """Return the multiply-adds of the network for the SR voxels of ``box``, halos included."""
        total, axial = 0, self.acquisition.axial
        for plane, tile in self._tiles(box):
            total += tile.shape[3 - axial - plane] * work(self.network, tile.shape[axial], tile.shape[plane])
        return total

    def __call__(self, box: Box, stop: Callable[[], bool] = never) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) in source intensities, float32.

        The bits do not depend on the box they are computed in: where the device's check found shapes to
        matter, whole tiles of the canonical grid are computed and cropped.

        Raises
        ------
        ValueError
            If the source holds NaN or infinite voxels there.
        StoppedError
            If ``stop``, asked before every call of the network, returned True.
        MemoryError
            If there is too little memory even for small calls of the network.
        """
        while True:
            calls = self._calls.size
            try:
                with freed_memory_kept():
                    return self._compute(box, calls, stop)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # Only where every shape gives the same bits may it be another one.
                if not (self.exactness.bit_exact and self._calls.halve(calls)):
                    raise MemoryError(
                        f"Got too little memory for a box of {' x '.join(map(str, box.shape))} voxels with "
                        f"{self.network.filters} filters: close other programs, or use smaller tiles or fewer filters."
                    ) from error
            give_freed_memory_back()

    def _compute(self, box: Box, calls: CallSize, stop: Callable[[], bool]) -> npt.NDArray[Any]:
        grid = self._grid
        cells = grid.cells(box)
        tiles = grid.tiles(cells, self._shape(calls))
        window = self._read(box, [grid.with_halo(tile, plane) for plane, tile in tiles])
        outputs = {plane: np.empty(grid.outputs(cells).shape, self.dtype) for plane in self.planes}
        for plane, tile in tiles:
            part = tile.intersect(cells)
            if stop():
                raise StoppedError
            if part is not None:
                into, taken = (grid.outputs(part.relative_to(b.start)).slices for b in (cells, tile))
                outputs[plane][into] = self._refine(window, tile, plane)[taken]
        parts = [grid.carry(voxels, cells, box) for voxels in outputs.values()]
        refined = parts[0] if len(parts) == 1 else (parts[0] + parts[1]) * self.dtype.type(0.5)
        if grid.axial_grid.on_source_grid:  # the network gave the residual
            refined = refined + window.interpolated(box)
        return self.normalisation.undo(refined)

    def _shape(self, calls: CallSize) -> CallSize | None:
        """Return how large tiles are; None for canonical ones, where other shapes would give other bits."""
        return calls if self.exactness.bit_exact or self._at_once else None

    def _tiles(self, box: Box) -> list[tuple[int, Box]]:
        return self._grid.tiles(self._grid.cells(box), self._shape(self._calls.size))

    def source_box(self, box: Box) -> Box:
        """Return the source voxels, beyond the border too, that the SR voxels of ``box``, and of its parts, need."""
        return self._grid.source_box(box, [self._grid.with_halo(tile, plane) for plane, tile in self._tiles(box)])

    def interpolated(self, box: Box) -> npt.NDArray[Any]:
        """Return the quintic interpolation of ``box``, which the network refines, in source intensities."""
        return self.normalisation.undo(self._read(box, []).interpolated(box))

    def _read(self, box: Box, inputs: list[Box]) -> Window:
        """Read, once, the normalised source samples for the SR voxels of ``box`` and boxes of input samples."""
        read = self._grid.source_box(box, inputs)
        raw = read_mirrored(self.source, read)
        check_finite(raw, "the volume", tuple(max(s, 0) for s in read.start))
        samples = np.moveaxis(self.normalisation.apply(raw, self.dtype), self.acquisition.axial, 0)
        return Window(np.ascontiguousarray(samples), read, self.acquisition)

    def _refine(self, window: Window, cells: Box, plane: int) -> npt.NDArray[Any]:
        """Return what the network gives for ``cells`` from their planes (axial, ``plane``), (z, y, x)."""
        box = self._grid.with_halo(cells, plane)
        image = window.samples_of(box) if self._grid.axial_grid.on_source_grid else window.interpolated(box)
        order = (3 - self.acquisition.axial - plane, self.acquisition.axial, plane)
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(order))[:, None])  # (rows, 1, axial, plane)
        with reproducible(self.device):
            refined = self.network.predict(batch.to(self.device)).cpu().numpy()[:, 0]
        return refined.transpose(np.argsort(order))


@dataclass(frozen=True, slots=True)
class Window:
    """Normalised source samples held in memory, from which tiles are interpolated."""

    samples: npt.NDArray[Any]  # axial axis first
    box: Box  # where they lie, source voxels (z, y, x), beyond the border too
    acquisition: Acquisition

    def samples_of(self, box: Box) -> npt.NDArray[Any]:
        """Return the normalised samples of a source box (z, y, x) inside the window."""
        inside = box.relative_to(self.box.start).slices
        axial = self.acquisition.axial
        lateral = [inside[a] for a in self.acquisition.lateral]
        return np.moveaxis(self.samples[inside[axial], lateral[0], lateral[1]], 0, axial)

    def interpolated(self, box: Box) -> npt.NDArray[Any]:
        """Return normalised, interpolated voxels of an SR box (z, y, x) inside the window."""
        axial = self.acquisition.axial
        lateral = [box.relative_to(self.box.start).slices[a] for a in self.acquisition.lateral]
        start, stop = box.start[axial], box.stop[axial]
        part = self.samples[:, lateral[0], lateral[1]]
        out = interpolate(part, self.box.start[axial], start, stop, self.acquisition.factor)
        return np.moveaxis(out, 0, axial)


def _twin(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    twin = copy.deepcopy(network).to(device=device, dtype=dtype)
    use_channels_last(twin)
    return twin.eval().requires_grad_(False)


def convert(voxels: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return voxels in the export's dtype: integers are rounded and clipped."""
    target = np.dtype(dtype)
    if target.kind == "f":
        return voxels.astype(target)
    limits = np.iinfo(target)
    # float64 holds every 32-bit limit; the largest 64-bit ones are clipped to the float below them.
    high = np.nextafter(float(limits.max), 0.0) if target.itemsize == 8 else float(limits.max)
    return np.clip(np.rint(voxels.astype(np.float64)), float(limits.min), high).astype(target)
