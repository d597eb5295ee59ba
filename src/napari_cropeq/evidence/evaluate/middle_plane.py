"""The middle plane of one evaluated volume: truth, degraded, and restored by each method (computed again)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.evidence.evaluate.evaluation import Evaluation
from napari_cropeq.evidence.evaluate.experiment import Experiment
from napari_cropeq.evidence.evaluate.truth import Truth
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS, Refinement
from napari_cropeq.evidence.verify.slices import middle

__all__ = ["SIDE", "MiddlePlane", "Restored", "middle_planes"]

SIDE = 256
"""Largest side of a shown plane, voxels; of a larger plane, the middle is shown."""

Plane = npt.NDArray[Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """The plane as restored by one method.

    Parameters
    ----------
    name : str
        Method and budget.
    psnr : float, optional
        Of the whole volume, dB; None if infinite.
    image : (axial, lateral), optional
        In the truth's intensities; None if the model file of the experiment is missing or unreadable.
    """

    name: str
    psnr: float | None
    image: Plane | None


@dataclass(frozen=True)
class MiddlePlane:
    """One plane of one volume at one factor.

    Parameters
    ----------
    factor : float
        Step between slices, voxels.
    axes : str
        Names of the axial and the lateral axis.
    box : Box
        Its position in the truth; one voxel thick.
    whole : (z, y, x)
        Number of voxels of the compared part of the truth, border included.
    truth : (axial, lateral)
        Voxels of the truth.
    degraded : (slices, lateral)
        The slices that overlap ``box``.
    first : float
        Start of the first slice in rows of ``truth``, at most 0.
    restored : list
        One for each finished experiment.
    """

    factor: float
    axes: str
    box: Box
    whole: IntTriple
    truth: Plane
    degraded: Plane
    first: float
    restored: list[Restored]


def middle_planes(evaluation: Evaluation, truth: Truth) -> Iterator[MiddlePlane]:
    """Yield the middle plane of ``truth`` at each factor with a finished experiment."""
    experiments = [c for c in evaluation.experiments if c.truth is truth and evaluation.record(c) is not None]
    for factor in dict.fromkeys(experiment.factor for experiment in experiments):
        yield _plane(evaluation, [experiment for experiment in experiments if experiment.factor == factor])


def _plane(evaluation: Evaluation, experiments: Sequence[Experiment]) -> MiddlePlane:
    first = experiments[0]
    degraded = evaluation.degrade(first)
    axial, lateral = first.axis, plane_axes(first.planes, first.axis)[-1]
    box = middle(degraded.sr_shape, (axial, lateral), 1, SIDE)
    start, stop = box.start[axial] / first.factor, box.stop[axial] / first.factor
    slices = slice(math.floor(start + 1e-6), math.ceil(stop - 1e-6))
    seen = tuple(slices if a == axial else s for a, s in enumerate(box.slices))
    return MiddlePlane(
        first.factor,
        "zyx"[axial] + "zyx"[lateral],
        box,
        degraded.sr_shape,
        _flat(first.truth.voxels[box.slices], axial, lateral),
        _flat(degraded.source[seen], axial, lateral),
        slices.start * first.factor - box.start[axial],
        [_restored(evaluation, experiment, box, (axial, lateral)) for experiment in experiments],
    )


def _restored(evaluation: Evaluation, experiment: Experiment, box: Box, axes: tuple[int, int]) -> Restored:
    record, degraded = evaluation.record(experiment), evaluation.degrade(experiment)
    name = ", ".join(filter(None, (experiment.method, experiment.budget)))
    psnr = record["scores"]["psnr"] if record else None
    if record is None or not experiment.trained:
        along = tuple(s if a == experiment.axis else slice(None) for a, s in enumerate(box.slices))
        return Restored(name, psnr, _flat(INTERPOLATIONS[experiment.method](degraded.beside(box))[along], *axes))
    try:
        model = Model.load(evaluation.folder / record["model"])
    except (OSError, ValueError) as error:  # records may be copied without their models
        logger.info("%s: no plane is drawn: %s", experiment.name, error)
        return Restored(name, psnr, None)
    refinement = Refinement(model, degraded, experiment.planes, experiment.device)
    return Restored(name, psnr, _flat(refinement.region(box), *axes))


def _flat(voxels: npt.NDArray[Any], axial: int, lateral: int) -> Plane:
    """Return (axial, lateral) of a box (z, y, x) that is one voxel thick."""
    plane: Plane = np.take(voxels, 0, 3 - axial - lateral)
    return plane if axial < lateral else plane.T
