"""Self-supervised axial super-resolution for napari. Preview and export have the same bits.

The public functions are imported when they are first used: napari reads the manifest of every installed plugin at
start-up, and must not wait for torch or Qt. Messages go to the logger ``napari_cropeq``, which is quiet by default.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_cropeq.errors import CropeqError, StoppedError

if TYPE_CHECKING:
    from napari_cropeq.api.export import export
    from napari_cropeq.api.fwhm import FwhmEstimate, estimate_fwhm
    from napari_cropeq.api.publish import publish
    from napari_cropeq.api.train import train
    from napari_cropeq.api.trust import TrustReport, trust
    from napari_cropeq.api.voxels import super_resolve, super_resolve_lazy
    from napari_cropeq.core.model import Model
    from napari_cropeq.formats.image import Image
    from napari_cropeq.formats.open import open_image

__all__ = [
    "CropeqError",
    "FwhmEstimate",
    "Image",
    "Model",
    "StoppedError",
    "TrustReport",
    "estimate_fwhm",
    "export",
    "open_image",
    "publish",
    "super_resolve",
    "super_resolve_lazy",
    "train",
    "trust",
]

__version__ = "0.2.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "FwhmEstimate": ("api.fwhm", "FwhmEstimate"),
    "Image": ("formats.image", "Image"),
    "Model": ("core.model", "Model"),
    "TrustReport": ("api.trust", "TrustReport"),
    "estimate_fwhm": ("api.fwhm", "estimate_fwhm"),
    "export": ("api.export", "export"),
    "open_image": ("formats.open", "open_image"),
    "publish": ("api.publish", "publish"),
    "super_resolve": ("api.voxels", "super_resolve"),
    "super_resolve_lazy": ("api.voxels", "super_resolve_lazy"),
    "train": ("api.train", "train"),
    "trust": ("api.trust", "trust"),
}
"""Where each public name is defined."""


if not TYPE_CHECKING:  # so that a type checker finds a wrong name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, original = _HOMES[name]
        if not module.startswith("formats."):
            from napari_cropeq.torch_check import check_torch

            check_torch()
        value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), original)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
