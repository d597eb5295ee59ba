"""The consistency of a result with its source, in units of the noise of the source."""

from __future__ import annotations

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import LeadingIndex, int_triple
from napari_cropeq.core.imaging.consistency import Consistency
from napari_cropeq.core.imaging.forward_model import ForwardModel
from napari_cropeq.core.training.noise import PhotonTransfer, measure_noise, recorded_noise

__all__ = ["consistency_of", "noise_of", "trained_on_it"]


def consistency_of(result: SuperResolution, leading: LeadingIndex, noise: PhotonTransfer | None = None) -> Consistency:
    """Return what compares a result with its source at the given leading indices; ``noise`` if it is known already."""
    volume = result.volume(leading)
    forward = ForwardModel(result.acquisition, int_triple(volume.shape))
    return Consistency(forward, (noise or noise_of(result, leading)).level(volume.dtype))


def noise_of(result: SuperResolution, leading: LeadingIndex) -> PhotonTransfer:
    """Return the noise of the source, in its intensities: as the training measured it, or measured now."""
    scale, model = result.predictor(leading).normalisation, result.model
    if trained_on_it(result):
        recorded = recorded_noise(model.training, model.normalisations)
        for found in recorded:
            if found.scale == scale:
                return found
    return measure_noise(result.volume(leading), result.acquisition)


def trained_on_it(result: SuperResolution) -> bool:
    """Return whether the model was trained on the source of ``result``: its shape, type and intensities are those."""
    known, source = result.model.provenance.get("source", {}), result.source.describe()
    same = all(known.get(key) == source[key] for key in ("shape", "dtype"))
    return same and any(scale in result.model.normalisations for scale in result.normalisations)
