"""What to trust in a view, in words."""

from __future__ import annotations

import math

import numpy as np

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.evidence.trust.doubts import doubts_of_model, inferred
from napari_cropeq.view.maps import CONSISTENCY, ERROR, Maps
from napari_cropeq.view.view import View

__all__ = ["what_to_trust", "with_error_text"]

NO_ERROR = (
    "The model has no expected error, because it was made by an earlier version or trained on few patches: train it "
    "again, on more patches."
)


def what_to_trust(result: SuperResolution, maps: Maps, view: View) -> list[str]:
    """Return sentences about the maps of a view that are wanted, the factor, and what speaks against the model."""
    said = []
    if ERROR in maps.wanted:
        said.append(NO_ERROR if result.model.error_tail is None else _expected(result, maps, view))
    if CONSISTENCY in maps.wanted and (agreement := maps.agreement(view)) is not None:
        said.append(agreement.text)
    said += [*inferred(result.acquisition.factor).values(), *doubts_of_model(result)]
    return [sentence for sentence in said if sentence]


def _expected(result: SuperResolution, maps: Maps, view: View) -> str:
    """Return how large the expected errors of a view are; empty if they are not computed."""
    values, tail = maps.values(ERROR, view), result.model.error_tail
    if values is None or tail is None:
        return ""
    mean, scale = float(values.mean()), result.predictor(view.leading).normalisation
    share = 100 * mean / (scale.high - scale.low)
    within = ""
    if 0.8 in tail.intervals:
        within = f" On lateral slices, 80 % of errors were within {tail.intervals[0.8]:.2g} × that of their voxel."
    return f"The expected error in view is {_number(mean)} on average, {share:.2g} % of the range.{within}"


def with_error_text(value: float, error: float) -> str:
    """Return a voxel with its expected error, such as ``712 ± 41``: the error has two digits."""
    digits = 1 - math.floor(math.log10(error)) if error > 0 and math.isfinite(error) else 0
    digits = int(np.clip(digits, 0, 6))
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def _number(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
