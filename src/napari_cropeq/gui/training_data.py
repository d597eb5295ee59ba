"""The layers, channels and time points that a training uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image

from napari_cropeq.core.model import provenance
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Image as Source
from napari_cropeq.formats.image import training_volumes
from napari_cropeq.gui.layers.source import check_layer, source_of, voxel_size_of

__all__ = ["TrainingData", "channel_layers", "shown_of", "source_checksum"]


@dataclass(frozen=True)
class TrainingData:
    """Volumes to train on, and their description for the model file."""

    source: Source  # of the chosen layer
    channels: list[list[ChunkCache]]  # the time points, (z, y, x) each, of each channel
    description: dict[str, Any]  # JSON values

    @classmethod
    def of(cls, layers: Sequence[Image], channels: Sequence[int], times: Sequence[int]) -> TrainingData:
        """Return some channels and time points of the chosen layer and of layers that are other channels of it.

        Raises
        ------
        ValueError
            If a layer is not a volume.
        """
        sources = [source_of(layer) for layer in layers]
        volumes = [volumes for source in sources for volumes in training_volumes(source, channels, times)]
        chosen = {"layers": [s.name for s in sources], "channels": [*channels], "times": [*times]}
        return cls(sources[0], volumes, sources[0].describe() | chosen)


def source_checksum(layer: Image) -> str:
    """Return a checksum of a source that is the same in every session, also if its voxel size is corrected."""
    described = source_of(layer).describe()
    known = {key: described[key] for key in ("name", "axes", "shape", "dtype", "path")}
    return str(provenance(known)["source_checksum"])


def channel_layers(layer: Image, layers: Sequence[Any]) -> list[Image]:
    """Return ``layer`` and those of ``layers`` that may be other channels of it: same shape and voxel size."""
    size, shape = voxel_size_of(layer), layer.data.shape
    others = [la for la in layers if isinstance(la, Image) and la is not layer and la.data.shape == shape]
    return [layer, *(la for la in others if not la.rgb and np.allclose(voxel_size_of(la), size))]


def shown_of(layer: Image, point: Sequence[float]) -> dict[str, int]:
    """Return the channel ``c`` and the time point ``t`` that a layer shows.

    Parameters
    ----------
    layer : Image
        Returns 0 for an axis that it does not have.
    point : sequence of float
        Positions of the viewer's sliders, in world coordinates; clipped to the layer.
    """
    source = source_of(check_layer(layer))
    at = layer.world_to_data(point[-layer.ndim :])
    ends = zip(source.axes[:-3], at, source.data.shape, strict=False)
    return {"c": 0, "t": 0} | {axis: int(np.clip(round(i), 0, n - 1)) for axis, i, n in ends}
