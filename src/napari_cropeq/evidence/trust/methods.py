"""A paragraph for the methods section of a paper: versions, settings and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_cropeq import __version__
from napari_cropeq.compute.consistency import trained_on_it
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.formats.ome_tiff import UNITS

__all__ = ["methods_of"]


def methods_of(computed: SuperResolution, sentences: Mapping[str, str]) -> str:
    """Return a paragraph on how a result was made, and what was found about it."""
    model, acquisition = computed.model, computed.acquisition
    axial, unit = "zyx"[acquisition.axial], UNITS.get(acquisition.unit, acquisition.unit)
    planes = ["".join(sorted((axial, "zyx"[plane]), key="zyx".index)) for plane in computed.planes]
    through = f"the mean of the {' and '.join(planes)} planes" if len(planes) > 1 else f"computed in {planes[0]} planes"
    lateral = f" (lateral FWHM {acquisition.lateral_fwhm:.3g} {unit})" if acquisition.lateral_fwhm else ""
    calibrated = [] if model.error_tail is None else ["expected error"]
    parts = [
        f"The axial step ({acquisition.voxel_size[acquisition.axial]:.4g} {unit} along {axial}) was reduced by a "
        f"factor of {acquisition.factor:.4g} to the lateral step ({acquisition.lateral_step:.4g} {unit}) by "
        f"self-supervised super-resolution with napari-cropeq {__version__} (model {model.fingerprint}).",
        _training(computed),
        f"The slice profile was taken to be Gaussian, with an FWHM of {acquisition.fwhm:.3g} {unit}{lateral}; the "
        f"result is {through}.",
        *(sentences[name] for name in ("consistency", "inferred", *calibrated, "resolution") if name in sentences),
    ]
    return " ".join(part for part in parts if part)


def _training(computed: SuperResolution) -> str:
    model, network = computed.model, computed.model.network
    training: Mapping[str, Any] = model.training
    recipe: Mapping[str, Any] = training.get("recipe") or {}
    source = model.provenance.get("source", {})
    versions = model.provenance.get("versions", {})
    on = "the image itself" if trained_on_it(computed) else f"another image ({source.get('name', 'not recorded')})"
    patches, torch = training.get("patches"), versions.get("torch")
    size = f"{patches:,} patches" if patches is not None else "patches"
    side = f" of {recipe['patch']} px" if "patch" in recipe else ""
    options = [
        f"{name} {recipe[key]}"
        for name, key in (("batches of", "batch"), ("loss", "loss"), ("seed", "seed"))
        if key in recipe
    ]
    return (
        f"A network ({network.kind}, {network.filters} filters, {network.blocks} blocks) was trained on {size}{side} "
        f"from lateral slices of {on}"
        + (f" ({', '.join(options)})" if options else "")
        + (f" with torch {torch}." if torch else ".")
    )
