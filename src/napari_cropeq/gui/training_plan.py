"""What one press of Start, Continue or Resume trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.layers import Image

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.training_data import TrainingData, source_checksum

__all__ = ["TrainingPlan", "checkpoint_path", "config_of", "interrupted_layers", "is_interrupted"]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Volumes, settings, and the model to go on from, if any."""

    data: TrainingData
    acquisition: Acquisition
    config: TrainingConfig
    device: str
    model: Model | None = None
    interrupted: bool = False  # whether the model is the checkpoint of a training that this one completes

    @classmethod
    def completing(cls, model: Model, layers: Sequence[Image], device: str) -> TrainingPlan:
        """Return what completes an interrupted training, whose checkpoint is a model, on the layers it was on."""
        told = model.provenance.get("source", {})
        data = TrainingData.of(layers, told.get("channels", [0]), told.get("times", [0]))
        return cls(data, model.acquisition, config_of(model), device, model, interrupted=True)

    def training(self) -> Training:
        """Return the training; slow, since it reads the volumes.

        Raises
        ------
        ValueError
            If the volumes are not those of the training that was interrupted.
        """
        training = Training(
            self.data.channels,
            self.acquisition,
            self.config,
            self.device,
            start=self.model,
            resume=self.interrupted,
        )
        if self.interrupted and self.model is not None:
            if training.normalisations != list(self.model.normalisations):
                raise ValueError(
                    "Got an interrupted training of a volume with other voxels, expected one of this layer: start anew."
                )
        return training


def checkpoint_path(layer: Any) -> Path:
    """Return where a training of ``layer`` is kept while it runs."""
    return Preferences.read().cache_folder / f"{source_checksum(layer)}.safetensors"


def is_interrupted(layer: Any) -> bool:
    """Return whether a training of ``layer`` is kept; False for what is no volume."""
    try:
        return checkpoint_path(layer).is_file()
    except ValueError:
        return False


def interrupted_layers(model: Model, layer: Image, layers: Sequence[Any]) -> list[Image]:
    """Return the layers that an interrupted training was on.

    Parameters
    ----------
    model : Model
        Its checkpoint.
    layer : Image
        The one that was chosen.
    layers : sequence of layers
        Where those that held its other channels are found.

    Raises
    ------
    ValueError
        If one of them is not there.
    """
    names = [name for name in model.provenance.get("source", {}).get("layers", []) if name != layer.name]
    others = [la for la in layers if la.name in names]
    if len(others) < len(names):
        raise ValueError(f"Got a training of {', '.join(names)} as well, expected these layers: open them.")
    return [layer, *others]


def config_of(model: Model) -> TrainingConfig:
    """Return how a model was trained."""
    return TrainingConfig.read(model.training.get("recipe"))
