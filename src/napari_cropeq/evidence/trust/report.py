"""The report on a result: consistency, expected error, resolution, warnings, and a paragraph for a methods section."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq import __version__
from napari_cropeq.compute.consistency import consistency_of, noise_of
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import AXIS_NAMES, Box, LeadingIndex, int_triple
from napari_cropeq.core.imaging.consistency import Consistency
from napari_cropeq.core.predict import never
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.training.noise import PhotonTransfer
from napari_cropeq.errors import MissingPackageError
from napari_cropeq.evidence.trust.comparison import Comparison, compare
from napari_cropeq.evidence.trust.doubts import doubts_of, inferred, made_otherwise
from napari_cropeq.evidence.trust.expected import ExpectedError, ExpectedErrors
from napari_cropeq.evidence.trust.methods import methods_of
from napari_cropeq.evidence.trust.resolution import AxialResolution, measure_resolution
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Image
from napari_cropeq.short_repr import ShortRepr

__all__ = ["Section", "TrustProgress", "TrustReport", "measure"]

NO_METHODS = (
    "There is no paragraph, because the result was made from another image, or by another model, than is given."
)
SIDE = 320  # of the section that is drawn, SR voxels

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TrustProgress:
    """State of a report."""

    what: str  # is being measured
    share: float  # done, of everything


@dataclass(frozen=True)
class Section:
    """One axial plane through the middle, each image (axial, lateral).

    Parameters
    ----------
    box : Box
        Its SR voxels (z, y, x), one voxel thick.
    axes : str
        Names of the two axes, the axial one first.
    acquired, result, error, consistency
        On the SR grid; the acquired slices and the consistency are repeated as often as there are SR rows. The
        consistency is NaN at slices that also show what lies beyond the volume.
    """

    box: Box
    axes: str
    acquired: Values
    result: Values
    error: Values
    consistency: Values


@dataclass(frozen=True, repr=False)
class TrustReport(ShortRepr):
    """What to trust in a result."""

    name: str
    """Name of the result."""

    comparison: Comparison
    """The result against the acquired slices."""

    expected: ExpectedError
    """The expected error."""

    resolution: AxialResolution | None
    """The resolution along the axial axis; None if it was not measured."""

    sentences: Mapping[str, str]
    """What was found, in words: consistency, inferred (at large factors), expected error, resolution."""

    warnings: tuple[str, ...]
    """Reasons not to trust the result, or a figure of this report."""

    methods: str
    """A paragraph for a methods section."""

    about: Mapping[str, Any]
    """Source, model, and versions, in JSON values."""

    section: Section
    """The maps on one axial plane."""

    def _title(self) -> str:
        return f"Trust in {self.name!r}"

    def _facts(self) -> dict[str, str]:
        doubts = " ".join(self.warnings) or "none"
        return {**self.sentences, "warnings": doubts, "methods": "methods has a paragraph; save(FOLDER) writes a page"}

    @property
    def figures(self) -> dict[str, Any]:
        """All figures and sentences, in JSON values."""
        comparison, noise = self.comparison, self.comparison.agreement.noise
        intervals = {str(level): width for level, width in self.expected.intervals.items()}
        resolution = None if self.resolution is None else asdict(self.resolution)
        return {
            "result": self.name,
            **self.about,
            "consistency": {
                "rms": _number(comparison.agreement.rms),
                "beyond 3": _number(comparison.agreement.beyond),
                "unit": "noise" if noise.measurable else "floor",
                "noise": asdict(noise),
                "worst": {"rms": _number(comparison.worst), "voxel": list(comparison.place)},
                "compared": _number(comparison.part),
            },
            "saturated": {"share": _number(comparison.saturated), "intensity": comparison.highest},
            "expected error": asdict(self.expected) | {"intervals": intervals},
            "resolution": resolution,
            "sentences": dict(self.sentences),
            "warnings": list(self.warnings),
            "methods": self.methods,
        }

    def save(self, folder: str | Path, command: str = "") -> list[Path]:
        """Write ``trust.json``, ``trust.html`` and two pictures into a folder, and return their paths.

        Files of an earlier report are replaced.

        Raises
        ------
        AccessError
            If the folder cannot be written.
        """
        from napari_cropeq.evidence.trust.page import write_report  # loads matplotlib

        return write_report(self, Path(folder), command)


def measure(
    result: Image,
    computed: SuperResolution,
    leading: LeadingIndex,
    made: Mapping[str, Any] | None = None,
    errors: Path | None = None,
    stop: Callable[[], bool] = never,
) -> Generator[TrustProgress, None, TrustReport]:
    """Measure what to trust in a result; return the report.

    Parameters
    ----------
    result : Image
        On the SR grid of the source.
    computed : SuperResolution
        What computes it: the source and the model.
    leading : tuple of int
        Channel and time point.
    made : mapping, optional
        What the file of the result says about how it was made.
    errors : Path, optional
        Where the file of its expected errors is, if there is one.
    stop : callable
        Called before each part of the work.

    Raises
    ------
    StoppedError
        If ``stop`` returned True.
    SourceChangedError
        If a file has changed since it was opened.
    """
    voxels, noise = ChunkCache(result.data[leading]), noise_of(computed, leading)
    consistency = consistency_of(computed, leading, noise)
    steps = compare(consistency, voxels, computed.volume(leading), stop)
    comparison = yield from _shared(steps, "imaging the result again", 0.0, 0.3)
    box, expected = _middle(computed), ExpectedErrors(computed, leading, errors)
    parts = [expected.at(box, stop)]
    boxes = expected.boxes()
    for number, part in enumerate(boxes):
        yield TrustProgress("computing expected errors", 0.3 + 0.3 * (number + 1) / (len(boxes) + 1))
        parts.append(expected.at(part, stop))
    error = expected.summary(parts[1:])
    yield TrustProgress("measuring the resolution", 0.6)
    resolution, missing = _resolution(computed, leading, voxels, stop)
    yield TrustProgress("looking for reasons not to trust it", 0.95)
    section = _section(computed, leading, consistency, voxels, box, parts[0])
    sentences = {"consistency": comparison.agreement.text}
    sentences |= inferred(computed.acquisition.factor)
    sentences |= {"expected error": error.text}
    figures = {} if resolution is None else {"resolution": resolution.text}
    methods = NO_METHODS if made_otherwise(computed, made) else methods_of(computed, sentences | figures)
    about = _about(computed, leading, noise)
    sentences["resolution"] = missing if resolution is None else f"{resolution.text} {resolution.warning}".strip()
    doubts = doubts_of(computed, leading, noise, comparison, made)
    computed.source.check_unchanged()
    result.check_unchanged()
    return TrustReport(result.name, comparison, error, resolution, sentences, tuple(doubts), methods, about, section)


def _resolution(
    computed: SuperResolution, leading: LeadingIndex, voxels: ArrayLike, stop: Callable[[], bool]
) -> tuple[AxialResolution | None, str]:
    """Return the resolution, or None and how to install what measures it."""
    try:
        return measure_resolution(
            lambda box: computed.interpolated(leading, box), voxels, computed.acquisition, stop
        ), ""
    except MissingPackageError as absent:
        return None, str(absent)


def _shared(
    steps: Generator[float, None, Comparison], what: str, start: float, size: float
) -> Generator[TrustProgress, None, Comparison]:
    while True:
        try:
            share = next(steps)
        except StopIteration as end:
            found: Comparison = end.value
            return found
        yield TrustProgress(what, start + size * share)


def _middle(computed: SuperResolution) -> Box:
    """Return an axial plane through the middle, one SR voxel thick."""
    across = computed.acquisition.lateral[0]
    sides = [1 if axis == across else min(SIDE, n) for axis, n in enumerate(computed.sr_shape)]
    start = int_triple([(n - side) // 2 for n, side in zip(computed.sr_shape, sides, strict=True)])
    return Box(start, int_triple([a + side for a, side in zip(start, sides, strict=True)]))


def _section(
    computed: SuperResolution,
    leading: LeadingIndex,
    consistency: Consistency,
    voxels: ArrayLike,
    box: Box,
    error: Values,
) -> Section:
    acquisition = computed.acquisition
    axial, (across, along) = acquisition.axial, acquisition.lateral
    needed, samples = consistency.sr_box(box), consistency.samples(box)
    result, acquired = np.asarray(voxels[needed.slices]), np.asarray(computed.volume(leading)[samples.slices])
    inside = box.relative_to(needed.start).slices
    rows = consistency.nearest(box) - samples.start[axial]
    images = (
        np.take(acquired, rows, axis=axial),
        result[inside],
        error,
        consistency.map(result, needed, acquired, box),
    )
    first, last = consistency.forward.covered
    beyond = (rows + samples.start[axial] < first) | (rows + samples.start[axial] >= last)
    np.moveaxis(images[3], axial, 0)[beyond] = np.nan
    planes = [image.transpose(axial, along, across)[..., 0] for image in images]
    return Section(box, AXIS_NAMES[axial] + AXIS_NAMES[along], *planes)


def _about(computed: SuperResolution, leading: LeadingIndex, noise: PhotonTransfer) -> dict[str, Any]:
    return {
        "source": json.loads(json.dumps(computed.source.describe(), default=str)),
        "model": computed.model.fingerprint,
        "factor": computed.acquisition.factor,
        "axial": AXIS_NAMES[computed.acquisition.axial],
        "fwhm": computed.acquisition.fwhm,
        "unit": computed.acquisition.unit,
        "step": computed.acquisition.lateral_step,
        "place": dict(zip(computed.source.axes[:-3], leading, strict=True)),
        "noise": {"text": noise.text, "doubt": noise.doubt},
        "napari-cropeq": __version__,
    }


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
