"""Specification of a store on disk, which depends neither on the method nor on the source."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_cropeq.core.geometry import IntTriple, LeadingIndex, int_triple
from napari_cropeq.formats.metadata import ImageInfo

__all__ = ["StoreSpec"]


@dataclass(frozen=True)
class StoreSpec:
    """The image to store, and everything that decides its bits."""

    shape: tuple[int, ...]  # leading axes, then z, y, x
    dtype: np.dtype[Any]
    image: ImageInfo  # axes, position, channels
    description: Mapping[str, Any]  # how it is computed, in JSON values; written to the header
    fingerprint: Mapping[str, Any]  # what decides the bits, in JSON values; the tile grid is added
    model: bytes  # content of the model file in an unfinished store
    inputs: tuple[str, ...] = ()  # paths of the input files, which the store must not touch

    @property
    def leading_shape(self) -> LeadingIndex:
        """Lengths of the leading axes."""
        return self.shape[:-3]

    @property
    def volume_shape(self) -> IntTriple:
        """The shape (z, y, x) of one volume."""
        return int_triple(self.shape[-3:])

    @property
    def leading_indices(self) -> list[LeadingIndex]:
        """All indices along the leading axes."""
        return list(itertools.product(*(range(n) for n in self.leading_shape)))
