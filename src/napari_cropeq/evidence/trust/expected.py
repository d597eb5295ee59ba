"""The expected error of a result: from the file beside it, from the model, or the disagreement of the planes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.core.geometry import AXIS_NAMES, Box, LeadingIndex, int_triple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.errors import CropeqError
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.provenance import read_provenance

__all__ = ["ExpectedError", "ExpectedErrors", "spread_boxes"]

COMPUTED, READ = (6, 48), (64, 64)  # number and side of the boxes that are computed, and read from a file

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExpectedError:
    """How large the errors of a result are expected to be, in source intensities.

    Parameters
    ----------
    origin : str
        ``file`` beside the result, ``model``, or ``planes``: the disagreement of the two lateral planes, which is not
        calibrated.
    mean, median : float
        Of the voxels that were looked at.
    share : float
        The mean, as a share of the range of intensities.
    intervals : mapping
        Half-widths of the intervals that hold each share of the errors, in expected errors; empty for ``planes``.
    voxels : int
        How many were looked at.
    """

    origin: str
    mean: float
    median: float
    share: float
    intervals: Mapping[float, float]
    voxels: int

    @property
    def text(self) -> str:
        """The expected error in words."""
        share = f"{100 * self.share:.2g} % of the range of intensities"
        size = f"{self.mean:.3g} on average ({share}), median {self.median:.3g}"
        if self.origin == "planes":
            return (
                "The model has no expected error: it was made by an earlier version, or trained on few patches. The "
                f"results of the two lateral planes differ from their mean by {size}. This is no interval: errors that "
                "both planes share do not show."
            )
        wide = self.intervals.get(0.9)
        within = "" if wide is None else f" On lateral slices, nine of ten errors were within {wide:.2g} times it."
        where = " in a few regions" if self.origin == "model" else ""
        return f"The expected absolute error of a voxel{where} is {size}.{within}"


class ExpectedErrors:
    """The expected errors of a result, box by box.

    Parameters
    ----------
    result : SuperResolution
        What the result is computed by.
    leading : tuple of int
        Channel and time point.
    path : Path, optional
        The file of expected errors beside the result. It is used if it exists and is of the same model.
    """

    def __init__(self, result: SuperResolution, leading: LeadingIndex, path: Path | None) -> None:
        self._result, self._leading = result, leading
        self._dtype = None if result.model.error_tail is None else with_error(result)
        self._file = None if path is None else _errors_of(path, result)
        self.origin = "file" if self._file is not None else "planes" if self._dtype is None else "model"
        self._others: list[SuperResolution] | None = None

    def at(self, box: Box, stop: Callable[[], bool]) -> Values:
        """Return the expected errors of the SR voxels of ``box`` (z, y, x)."""
        if self._file is not None:
            return np.asarray(self._file[(*self._leading, *box.slices)], np.float32)
        if self._dtype is not None:
            found: Values = self._result.compute(self._leading, box, stop, dtype=self._dtype)["error"]
            return found
        one, other = (plane.compute(self._leading, box, stop) for plane in self._planes)
        apart: Values = np.abs(one - other) / np.float32(2)
        return apart

    def boxes(self) -> list[Box]:
        """Return the boxes whose expected errors are representative, few where they are computed."""
        count, side = READ if self.origin == "file" else COMPUTED
        return spread_boxes(self._result.sr_shape, count, side)

    def summary(self, parts: Sequence[Values]) -> ExpectedError:
        """Return the expected error of the voxels of ``parts``."""
        voxels = np.concatenate([part.ravel() for part in parts])
        scale, tail = self._result.predictor(self._leading).normalisation, self._result.model.error_tail
        mean, intervals = float(voxels.mean()), {} if tail is None else dict(tail.intervals)
        share = mean / (scale.high - scale.low)
        return ExpectedError(self.origin, mean, float(np.median(voxels)), share, intervals, len(voxels))

    @property
    def _planes(self) -> list[SuperResolution]:
        """The same result by one of the lateral planes each, in float32."""
        if self._others is None:
            result = self._result
            device = result.predictor(self._leading).device.type
            self._others = [
                SuperResolution(result.source, result.model, result.acquisition, AXIS_NAMES[axis], device, "float32")
                for axis in result.acquisition.lateral
            ]
        return self._others


def spread_boxes(shape: Sequence[int], count: int, side: int) -> list[Box]:
    """Return up to ``count`` boxes of ``side`` voxels that are spread over a volume (z, y, x)."""
    whole = int_triple(shape)
    grid = TileGrid(whole, int_triple([min(side, n) for n in whole]))
    chosen = np.unique(np.linspace(0, grid.count - 1, min(count, grid.count)).round().astype(int))
    return [grid.box(int_triple(np.unravel_index(number, grid.counts))) for number in chosen]


def _errors_of(path: Path, result: SuperResolution) -> Any:
    """Return the expected errors in a file as a lazy array; None if they are not those of ``result``."""
    if not path.exists() or (read_provenance(path) or {}).get("model") != result.model.fingerprint:
        return None
    try:
        image = open_image(path)
    except CropeqError:
        return None
    return image.data if image.data.shape == (*result.leading_shape, *result.sr_shape) else None
