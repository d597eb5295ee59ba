"""The zero-padded baseline: trained on the same volume for a given budget, and saved."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from napari_cropeq.core.model import Model, provenance
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.errors import MismatchError
from napari_cropeq.formats.image import Image, acquisition_of
from napari_cropeq.run.train_to_file import OwnTraining, is_training_unfinished, train_to_file

__all__ = ["Baseline", "load_baseline"]

logger = logging.getLogger(__name__)

MINUTES = 2.0


class Baseline:
    """Trains a zero-padded network with the settings of a model, on the volume of the comparison.

    Parameters
    ----------
    model : Model
        Gives filters, slice profile and the other training settings.
    source : Image
        The volume.
    channel, time : int
        Channel and time point of the volume.
    minutes, patches : float, int, optional
        Budget; 2 minutes by default.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``.

    Attributes
    ----------
    model : Model or None
        The zero-padded network, after :meth:`run`.
    """

    def __init__(
        self,
        model: Model,
        source: Image,
        channel: int = 0,
        time: int = 0,
        minutes: float | None = None,
        patches: int | None = None,
        device: str = "auto",
    ) -> None:
        settings = model.training.get("recipe")
        config = TrainingConfig.preset("fast") if settings is None else TrainingConfig.read(settings)
        budget = MINUTES if minutes is None and patches is None else minutes
        self.config = replace(
            config, network="padded", filters=model.network.filters, minutes=budget, patches=patches, blocks=None
        )
        self._source, self._where, self._device = source, (channel, time), device
        self._profile = model.acquisition
        self.model: Model | None = None

    @property
    def digest(self) -> str:
        """Identifies volume, settings and budget: a saved baseline is reused if all of them are equal."""
        channel, time = self._where
        key = [provenance(self._source.describe())["source_checksum"], channel, time, asdict(self.config)]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, path: Path) -> Iterator[Progress]:
        """Train, or resume an interrupted training, and save :attr:`model` at ``path``.

        A saved baseline with the same settings and volume is not trained again.
        """
        channel, time = self._where
        described = self._source.describe() | {"channels": [channel], "times": [time]}
        self.model = self._kept(path, described)
        if self.model is not None:
            logger.info("The zero-padded network in %s is used", path)
            return
        profile = self._profile
        acquisition = acquisition_of(self._source, None, profile.axial, profile.fwhm, profile.lateral_fwhm)
        how = OwnTraining(self.config, profile.fwhm, profile.lateral_fwhm, [channel], [time])
        existing = "resume" if is_training_unfinished(path) else "overwrite"
        logger.info("%s a zero-padded network", "Resuming the training of" if existing == "resume" else "Training")
        self.model = yield from train_to_file(path, self._source, acquisition, how, self._device, existing)

    def _kept(self, path: Path, described: dict[str, Any]) -> Model | None:
        """Return the saved baseline if it has the same settings and volume, else None."""
        if not path.is_file():
            return None
        model = Model.load(path)
        same = model.provenance.get("source_checksum") == provenance(described)["source_checksum"]
        return model if same and model.training.get("recipe") == asdict(self.config) else None


def load_baseline(path: Path) -> Model:
    """Return the zero-padded network in a model file.

    Raises
    ------
    MismatchError
        If the network is not zero-padded.
    ModelFileError
        If the file cannot be read as a model.
    """
    model = Model.load(path)
    if model.network.shrink:
        raise MismatchError(
            f"The network in {path.name} is of kind {model.network.kind!r}, not zero-padded.",
            "Choose the model file of a zero-padded network, or train one on this volume.",
            setting="baseline",
        )
    return model
