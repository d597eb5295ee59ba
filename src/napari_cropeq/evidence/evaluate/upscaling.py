"""Restoring a degraded volume on its SR grid, by spline interpolation or by a network."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from napari_cropeq.core.devices.device import choose_device
from napari_cropeq.core.geometry import Acquisition, Box, int_triple, source_positions
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import PaddedNetwork
from napari_cropeq.core.normalisation import Normalisation, check_finite
from napari_cropeq.core.predict import Predictor, plane_axes
from napari_cropeq.core.spline import ArrayLike, interpolate, read_mirrored
from napari_cropeq.core.tiles import divide, pick, read_box
from napari_cropeq.evidence.evaluate.truth import Degraded, along

__all__ = ["INTERPOLATIONS", "Refinement", "cubic", "cubic_box", "quintic"]

CUBIC_TAPS = 20
"""Samples used on either side of a position: the cardinal cubic spline decays as 0.268**|n|, to 4e-12 there."""

ROWS = 16
"""Number of planes between two progress reports."""

MAX_ELEMENTS = 2**22
"""Most feature-map elements in one call of a network on whole planes, unless a single plane has more."""


def cubic(degraded: Degraded) -> npt.NDArray[np.float32]:
    """Return scipy's cubic B-spline interpolation (z, y, x) on the SR grid, mirrored beyond the edges."""
    return cubic_box(degraded.source, degraded.acquisition, Box.whole(degraded.sr_shape))


def cubic_box(source: ArrayLike, acquisition: Acquisition, box: Box) -> npt.NDArray[np.float32]:
    """Return one box of the cubic B-spline interpolation of a source, reading only the slices it needs.

    Parameters
    ----------
    source : (z, y, x)
        Intensities on the grid of ``acquisition``.
    acquisition : Acquisition
        Grid of the source and of the SR voxels.
    box : Box
        SR voxels (z, y, x).
    """
    axial = acquisition.axial
    first, matrix = cubic_weights(source.shape[axial], box.start[axial], box.stop[axial], acquisition.factor)
    start, stop = list(box.start), list(box.stop)
    start[axial], stop[axial] = first, first + matrix.shape[1]
    samples = np.asarray(source[Box(int_triple(start), int_triple(stop)).slices])
    check_finite(samples, "the source")  # one NaN would spread along its whole line
    return along(matrix, samples, axial)


@functools.lru_cache(maxsize=8)  # lateral neighbours have the same weights
def cubic_weights(samples: int, start: int, stop: int, factor: float) -> tuple[int, npt.NDArray[np.float64]]:
    """Return the weights of a line of ``samples`` samples for the SR samples ``start`` to ``stop`` of its cubic spline.

    Returns
    -------
    first : int
        Sample of the first column.
    weights : (stop - start, n) float64
        A row for each SR sample, a column for each sample used.
    """
    positions = source_positions(start, stop, factor)
    first = max(0, math.floor(positions[0]) - CUBIC_TAPS + 1)
    last = min(samples, math.floor(positions[-1]) + CUBIC_TAPS + 1)
    # The response to an impulse at each sample: interpolation is linear, and the same for every line.
    impulses = ndimage.spline_filter1d(np.eye(last - first, samples, first), order=3, axis=1, mode="mirror")
    answers = [ndimage.map_coordinates(line, [positions], order=3, mode="mirror", prefilter=False) for line in impulses]
    return first, np.stack(answers, axis=1)


def quintic(degraded: Degraded) -> npt.NDArray[np.float32]:
    """Return the quintic B-spline interpolation (z, y, x) from which the networks start."""
    acquisition = degraded.acquisition
    axial, length = acquisition.axial, degraded.sr_shape[acquisition.axial]
    box = read_box(Box.whole(degraded.sr_shape), acquisition)
    samples = np.moveaxis(read_mirrored(degraded.source, box), axial, 0)
    voxels = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    image = interpolate(voxels, box.start[axial], 0, length, acquisition.factor)
    return np.ascontiguousarray(np.moveaxis(image.numpy(), 0, axial))


INTERPOLATIONS = {"cubic": cubic, "quintic": quintic}


class Refinement:
    """Applies a trained network to a degraded volume, in parts.

    Parameters
    ----------
    model : Model
        Trained on ``degraded``.
    degraded : Degraded
        The volume.
    planes, device : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`.
    """

    def __init__(self, model: Model, degraded: Degraded, planes: str | None = None, device: str = "auto") -> None:
        self.network, self.degraded = model.network, degraded
        self.normalisation = Normalisation.measure(degraded.source)  # measured again, as for an export
        self.planes = plane_axes(planes, degraded.acquisition.axial)
        self.device = choose_device(device)
        self.image = np.empty(degraded.sr_shape, np.float32)
        """The result as far as it is computed (z, y, x), in source intensities."""
        self._predictor = None
        if not isinstance(model.network, PaddedNetwork):
            self._predictor = Predictor(
                model.network,
                degraded.acquisition,
                degraded.source,
                self.normalisation,
                planes,
                device,
                correction=model.correction,
            )

    @property
    def tiling(self) -> str:
        """How the volume is divided for the network, as text."""
        return "whole planes" if self._predictor is None else str(self._predictor.exactness)

    def run(self) -> Iterator[float]:
        """Fill :attr:`image`, yielding the share that is done."""
        steps = self._in_tiles(self._predictor) if self._predictor else self._in_whole_planes()
        for done, total in steps:
            yield done / total

    def _in_tiles(self, predictor: Predictor) -> Iterator[tuple[int, int]]:
        whole = Box.whole(self.degraded.sr_shape)
        # With planes along both lateral axes, thicker parts share more of their halos.
        rows = ROWS if len(self.planes) == 1 else 8 * ROWS
        size = max(whole.shape)
        in_plane = (self.degraded.acquisition.axial, *self.planes[:1])
        done = 0
        for box in divide(whole, pick(in_plane, size, rows)):
            self.image[box.slices] = predictor(box)
            done += box.size
            yield done, whole.size

    def region(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the SR voxels of ``box`` (z, y, x), in source intensities, as :attr:`image` has them after a run.

        A zero-padded network is applied to the whole planes of the box; its voxels agree up to rounding.
        """
        if self._predictor is not None:
            voxels: npt.NDArray[np.float32] = self._predictor(box)
            return voxels
        total = np.zeros(box.shape, np.float32)
        for plane in self.planes:
            across = 3 - self.degraded.acquisition.axial - plane
            start = [box.start[a] if a == across else 0 for a in range(3)]
            stop = [box.stop[a] if a == across else n for a, n in enumerate(self.degraded.sr_shape)]
            rows = Box(int_triple(start), int_triple(stop))
            image = self.normalisation.apply(quintic(self.degraded.beside(rows)))
            whole = np.empty_like(image)
            for part, refined in self._refine_planes(image, plane):
                whole[part.slices] = refined
            total += whole[box.relative_to(rows.start).slices]
        return self._mean(total)

    def _in_whole_planes(self) -> Iterator[tuple[int, int]]:
        """Refine whole planes, as in the paper: tiles of a zero-padded network would show seams."""
        image, total = self.normalisation.apply(quintic(self.degraded)), np.zeros_like(self.image)
        done = 0
        for plane in self.planes:
            for box, refined in self._refine_planes(image, plane):
                total[box.slices] += refined
                done += box.size
                yield done, image.size * len(self.planes)
        self.image[:] = self._mean(total)

    def _refine_planes(
        self, image: npt.NDArray[np.float32], plane: int
    ) -> Iterator[tuple[Box, npt.NDArray[np.float32]]]:
        """Yield boxes of a normalised ``image`` (z, y, x), whole in (axial, ``plane``), and the network's output."""
        network: Any = copy.deepcopy(self.network).to(self.device)
        axial = self.degraded.acquisition.axial
        across = 3 - axial - plane
        area = image.shape[axial] * image.shape[plane]
        rows = max(1, MAX_ELEMENTS // (area * network.filters))
        for box in divide(Box.whole(image.shape), pick((axial, plane), max(image.shape), rows)):
            batch = image[box.slices].transpose(across, axial, plane)[:, None]  # (rows, 1, axial, plane)
            output = network.predict(torch.from_numpy(np.ascontiguousarray(batch)).to(self.device))
            yield box, output.cpu().numpy()[:, 0].transpose(np.argsort((across, axial, plane)))

    def _mean(self, total: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return source intensities from the sum over the plane directions."""
        return self.normalisation.undo(total / np.float32(len(self.planes)))
