"""Reasons not to trust a result that can be detected, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_cropeq.compute.consistency import trained_on_it
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import AXIS_NAMES, LeadingIndex
from napari_cropeq.core.slice_profile.suggestion import Suggestion, suggest_fwhm
from napari_cropeq.core.training.noise import PhotonTransfer
from napari_cropeq.errors import ImageError
from napari_cropeq.evidence.trust.comparison import Comparison
from napari_cropeq.formats.ome_tiff import UNITS

__all__ = ["doubts_of", "doubts_of_model", "inferred", "made_otherwise"]

LARGE_FACTOR = 4.0  # from here on, most slices of the result are far from an acquired one
SATURATED = 0.001  # share of the voxels
CONTRADICTION = 0.03  # share of the voxels that differ by more than three times the noise
LARGEST_BIAS = 0.02  # difference that is too large for an image without noise, share of the range of intensities
LARGE_SQUARE = 4.0  # times the noise, root mean square of a small square


def inferred(factor: float) -> dict[str, str]:
    """Return a sentence on what is inferred at a large factor; none at a small one."""
    if factor < LARGE_FACTOR:
        return {}
    slices = round(factor)
    return {
        "inferred": f"Of {slices} slices of the result, 1 was acquired and {slices - 1} are inferred from lateral "
        "structure. Most of the axial detail is inferred. In tissue whose truth is known, errors at factor 4 were 1.4 "
        "to 1.9 times as large as expected."
    }


def doubts_of(
    computed: SuperResolution,
    leading: LeadingIndex,
    noise: PhotonTransfer,
    comparison: Comparison,
    made: Mapping[str, Any] | None,
) -> list[str]:
    """Return reasons not to trust a result, or the figures about it.

    Parameters
    ----------
    computed : SuperResolution
        Source and model.
    leading : tuple of int
        Channel and time point.
    noise : PhotonTransfer
        Of the source.
    comparison : Comparison
        The result against the acquired slices.
    made : mapping, optional
        What the file of the result says about how it was made.
    """
    found = [made_otherwise(computed, made), *doubts_of_model(computed), _saturated(comparison)]
    found += [*_contradictions(computed, comparison), noise.doubt]
    found.append(_other_fwhm(computed, leading))
    return [sentence for sentence in found if sentence]


def doubts_of_model(computed: SuperResolution) -> list[str]:
    """Return reasons not to trust any result of this model on this source, which need no voxels."""
    return [sentence for sentence in (_trained_on_another(computed), _few_slices(computed)) if sentence]


def made_otherwise(computed: SuperResolution, made: Mapping[str, Any] | None) -> str:
    """Return that a result was made by another model, or of another image, than is given; empty if not."""
    if made is None:
        return ""
    if made.get("model") not in (None, computed.model.fingerprint):
        return (
            f"The result was made by another model ({made['model']}), so expected errors are not those of this result."
        )
    source, own = made.get("source"), computed.source.describe()
    if not isinstance(source, Mapping) or all(source.get(key, own[key]) == own[key] for key in ("name", "dtype")):
        return ""
    return (
        f"The result was computed from {source.get('name')} ({source.get('dtype')}), not from {own['name']} "
        f"({own['dtype']}), so the figures of this report are of two images."
    )


def _trained_on_another(computed: SuperResolution) -> str:
    if trained_on_it(computed):
        return ""
    source = computed.model.provenance.get("source", {})
    name = f" ({source['name']})" if source.get("name") else ""
    known = f"was trained on another image{name}" if "shape" in source else f"does not say that this is its image{name}"
    return (
        f"The model {known}. Structures, noise or resolution that "
        "it has not seen make larger errors than those that are expected."
    )


def _few_slices(computed: SuperResolution) -> str:
    network, slices = computed.model.network, computed.source.data.shape[-3:][computed.acquisition.axial]
    reach = network.axial_halo if network.on_source_grid else network.axial_halo / computed.acquisition.factor
    if slices > 2 * reach:
        return ""
    return (
        f"The stack has {slices} slices. All of the result lies so close to its first or last slice that it depends on "
        "slices beyond them, which are mirrored."
    )


def _saturated(comparison: Comparison) -> str:
    if comparison.saturated < SATURATED:
        return ""
    return (
        f"{100 * comparison.saturated:.2g} % of the acquired voxels have the highest intensity "
        f"({comparison.highest:g}). If they are saturated, structure there is lost, and neither the expected error nor "
        "the consistency shows it."
    )


def _contradictions(computed: SuperResolution, comparison: Comparison) -> list[str]:
    agreement, noise = comparison.agreement, comparison.agreement.noise
    z, y, x = comparison.place
    where = f"most at z {z}, y {y}, x {x} of the acquired voxels"
    span = noise.high - noise.low
    if noise.measurable:
        too_many = agreement.beyond > CONTRADICTION
        local = comparison.worst > LARGE_SQUARE
        size = f"{comparison.worst:.2g} times the noise"
    else:
        too_many = agreement.rms * noise.floor > LARGEST_BIAS * span
        local = comparison.worst * noise.floor > 5 * LARGEST_BIAS * span
        size = f"{100 * comparison.worst * noise.floor / span:.2g} % of the range of intensities"
    if too_many:
        return [f"The result contradicts the acquired slices in many places, {where} ({size})."]
    return [f"The result contradicts the acquired slices in places, {where} ({size})."] if local else []


def _other_fwhm(computed: SuperResolution, leading: LeadingIndex) -> str:
    acquisition = computed.acquisition
    try:
        found: Suggestion = suggest_fwhm(computed.volume(leading), acquisition, acquisition.lateral_fwhm)
    except ImageError:  # too small to measure
        return ""
    if not found.reliable or found.low <= acquisition.fwhm <= found.high:
        return ""
    unit = UNITS.get(acquisition.unit, acquisition.unit)
    effect = "soft" if found.fwhm > acquisition.fwhm else "sharp"
    return (
        f"The model assumes that the slice profile has an FWHM of {acquisition.fwhm:.3g} {unit}, but the image "
        f"suggests {found.fwhm:.3g} {unit} ({found.low:.3g} to {found.high:.3g}). If so, the result is too {effect} "
        f"along {AXIS_NAMES[acquisition.axial]}."
    )
