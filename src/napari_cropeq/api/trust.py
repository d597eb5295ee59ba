"""Report what to trust in a result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from napari_cropeq.api.arguments import check_callback
from napari_cropeq.api.image import image_of
from napari_cropeq.api.progress import Callback, reporting
from napari_cropeq.api.result import result_of
from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError, StoppedError
from napari_cropeq.evidence.mip.inputs import check_grid, open_complete
from napari_cropeq.evidence.trust.report import TrustProgress, TrustReport, measure
from napari_cropeq.formats.provenance import read_provenance
from napari_cropeq.run.error_output import error_of

__all__ = ["TrustReport", "trust"]


def trust(
    result: Any, source: Any, model: Model | str | Path, voxel_size: Sequence[float] | None = None, *,
    channel: int = 0, time: int = 0, device: str = "auto", allow_missing: float | None = None,
    callback: Callback[TrustProgress] | None = None,
) -> TrustReport:  # fmt: skip
    """Report what to trust in a result: its consistency with the source, expected error, axial resolution, warnings.

    Parameters
    ----------
    result : array, Image, xarray.DataArray or path
        The super-resolved volume, with all channels and time points of the source. If it is a path, the expected errors
        that :func:`export` has written beside it are read; otherwise they are computed in a few boxes.
    source, model, voxel_size, device, allow_missing
        As in :func:`~napari_cropeq.api.export.export`: what the result was computed from, and by.
    channel, time : int
        Which channel and time point to look at, from 0.
    callback : callable, optional
        Called with the progress (``what``, ``share``). The work stops if it returns False. By default, terminals and
        notebooks show a progress bar.

    Returns
    -------
    TrustReport
        ``sentences``, ``warnings``, ``methods`` (a paragraph for a methods section), ``figures`` (all of it in JSON
        values) and ``section`` (the maps on one axial plane). ``save(folder)`` writes a page with pictures.

    Raises
    ------
    TypeError, ValueError, OSError
        If an argument is wrong, the result is not one of this source, or data cannot be read.
    StoppedError
        If the callback returned False.
    """
    check_callback(callback)
    path = Path(result).expanduser() if isinstance(result, (str, os.PathLike)) else None
    made = None if path is None else read_provenance(path)
    if made is not None and "quantity" in made:
        raise ArgumentError(
            f"{path} has expected errors, not a result.", "Give the result that it is beside.", setting="result"
        )
    computed = result_of(source, model, voxel_size, _planes(made), "source", device, allow_missing)
    image = image_of(result) if path is None else open_complete(path)
    check_grid(image, computed.source, computed.acquisition)
    leading = computed.source.leading(channel, time)
    steps = measure(image, computed, leading, made, None if path is None else error_of(path))
    with reporting(callback, "measuring") as continues, closing(steps):
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                report: TrustReport = end.value
                return report
            if not continues(progress):
                raise StoppedError(f"The callback stopped the work while {progress.what}.")


def _planes(made: Any) -> str | None:
    """Return the planes that a result says it was computed in; None if it does not say it."""
    planes = None if made is None else made.get("planes")
    if not isinstance(planes, list) or not set(planes) <= set(AXIS_NAMES):
        return None
    return "both" if len(planes) > 1 else planes[0] if planes else None
