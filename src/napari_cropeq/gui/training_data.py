"""Which channels and time points of which layers a training sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image

from napari_cropeq.core.model import provenance
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.image import Source, training_volumes
from napari_cropeq.gui.layers.source import check_layer, source_of, voxel_size_of

__all__ = ["TrainingData", "channel_layers", "shown_of", "source_checksum"]


@dataclass(frozen=True)
class TrainingData:
    """Volumes to train on, and what the model is told of them."""

    source: Source  # of the chosen layer
    channels: list[list[ChunkCache]]  # the time points, (z, y, x) each, of each channel
    description: dict[str, Any]  # JSON values

    @classmethod
    def of(cls, layers: Sequence[Image], channels: Sequence[int], times: Sequence[int]) -> TrainingData:
        """Take some channels and time points of the chosen layer and of others that hold channels of the same volume.

        Raises
        ------
        ValueError
            If a layer is no volume.
        """
        sources = [source_of(layer) for layer in layers]
        volumes = [volumes for source in sources for volumes in training_volumes(source, channels, times)]
        chosen = {"layers": [s.name for s in sources], "channels": [*channels], "times": [*times]}
        return cls(sources[0], volumes, sources[0].describe() | chosen)


def source_checksum(layer: Image) -> str:
    """Return what a source is known by from one session to the next, whatever voxel size it is given in between."""
    described = source_of(layer).describe()
    known = {key: described[key] for key in ("name", "axes", "shape", "dtype", "path")}
    return str(provenance(known)["source_checksum"])


def channel_layers(layer: Image, layers: Sequence[Any]) -> list[Image]:
    """Return ``layer`` and those of ``layers`` that may hold other channels of it: of the same shape and voxels."""
    size, shape = voxel_size_of(layer), layer.data.shape
    others = [la for la in layers if isinstance(la, Image) and la is not layer and la.data.shape == shape]
    return [layer, *(la for la in others if not la.rgb and np.allclose(voxel_size_of(la), size))]


def shown_of(layer: Image, point: Sequence[float]) -> dict[str, int]:
    """Return the channel ``c`` and the time point ``t`` of a layer that is shown.

    Parameters
    ----------
    layer : Image
        Axes that it does not have are at 0.
    point : sequence of float
        Where the viewer's sliders stand, in world coordinates; outside of the layer its nearest end counts.
    """
    source = source_of(check_layer(layer))
    at = layer.world_to_data(point[-layer.ndim :])
    ends = zip(source.axes[:-3], at, source.data.shape, strict=False)
    return {"c": 0, "t": 0} | {axis: int(np.clip(round(i), 0, n - 1)) for axis, i, n in ends}
