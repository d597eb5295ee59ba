"""Data and settings of the training that Start, Continue or Resume starts."""

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
from napari_cropeq.errors import MismatchError
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.training_data import TrainingData, source_checksum
from napari_cropeq.run.train_to_file import config_of

__all__ = ["TrainingPlan", "checkpoint_path", "interrupted_layers", "is_interrupted"]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Volumes, settings, and the model to continue from, if any."""

    data: TrainingData
    acquisition: Acquisition
    config: TrainingConfig
    device: str
    model: Model | None = None
    interrupted: bool = False  # whether the model is the checkpoint of an interrupted training to complete

    @classmethod
    def completing(cls, model: Model, layers: Sequence[Image], device: str) -> TrainingPlan:
        """Return the plan that completes an interrupted training, from its checkpoint, on the same layers."""
        described = model.provenance.get("source", {})
        data = TrainingData.of(layers, described.get("channels", [0]), described.get("times", [0]))
        return cls(data, model.acquisition, config_of({}, start=model), device, model, interrupted=True)

    def training(self) -> Training:
        """Return the training; slow, since it reads the volumes.

        Raises
        ------
        MismatchError
            If the volumes are not those of the interrupted training.
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
                raise MismatchError(
                    "The interrupted training was on other voxels than this layer has now.",
                    "Press Start to train from the beginning.",
                )
        return training


def checkpoint_path(layer: Any) -> Path:
    """Return the path of the checkpoint of a training of ``layer``."""
    return Preferences.read().cache_folder / f"{source_checksum(layer)}.safetensors"


def is_interrupted(layer: Any) -> bool:
    """Return whether a training of ``layer`` has a checkpoint; False if it is not a volume."""
    try:
        return checkpoint_path(layer).is_file()
    except ValueError:
        return False


def interrupted_layers(model: Model, layer: Image, layers: Sequence[Any]) -> list[Image]:
    """Return the layers that an interrupted training used.

    Parameters
    ----------
    model : Model
        Its checkpoint.
    layer : Image
        The chosen layer.
    layers : sequence of layers
        Layers among which its other channels are looked up.

    Raises
    ------
    MismatchError
        If one of them is not open.
    """
    names = [name for name in model.provenance.get("source", {}).get("layers", []) if name != layer.name]
    others = [la for la in layers if la.name in names]
    if len(others) < len(names):
        raise MismatchError(
            f"The interrupted training also used {', '.join(names)}, and not all of these layers are open.",
            "Open them, then press Resume again.",
        )
    return [layer, *others]
