"""The model file of an unfinished training, from which it can be resumed."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_cropeq.core.model import SUFFIX, Model, provenance
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.core.whole_file import remove_leftovers
from napari_cropeq.errors import MismatchError, ModelFileError

__all__ = ["Checkpoint"]

logger = logging.getLogger(__name__)

SECONDS = 20.0
"""Shortest time between two saves; a killed training loses at most half a minute."""


class Checkpoint:
    """Saves an unfinished training in a file that is complete at any time.

    Parameters
    ----------
    path : Path
        Name of the file, ending in ``.safetensors``.
    source : mapping
        Description of the source, JSON values: a training on another source is not resumed.
    """

    def __init__(self, path: Path, source: Mapping[str, Any]) -> None:
        self.path, self.source = path, source
        self._last = time.monotonic()

    @classmethod
    def beside(cls, output: Path, source: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint for a model that will be saved as ``output``."""
        return cls(output.with_name(output.name.removesuffix(SUFFIX) + ".checkpoint" + SUFFIX), source)

    @property
    def exists(self) -> bool:
        """Whether there is an unfinished training."""
        return self.path.is_file()

    def keep(self, training: Training, now: bool = False) -> None:
        """Save the training if the last save is long enough ago, or ``now``; call it between two steps."""
        started = time.monotonic()
        if now or started - self._last >= SECONDS:
            training.model(self.source).save(self.path)
            self._last = time.monotonic()
            logger.debug("Saved the unfinished training as %s in %.2f s", self.path, self._last - started)

    def load(self, config: TrainingConfig | None = None) -> Model:
        """Return the saved training, to use as ``start`` of a training with ``resume``.

        Raises
        ------
        ModelFileError
            If it is damaged.
        MismatchError
            If it is of another source or has other settings than ``config``.
        """
        try:
            model = Model.load(self.path)
        except ModelFileError as error:
            raise ModelFileError(error.problem, "Remove it to start again.", setting="restart") from error
        if model.provenance.get("source_checksum") != provenance(self.source)["source_checksum"]:
            name = dict(model.provenance.get("source", {})).get("name", "another volume")
            raise MismatchError(
                f"{self.path.name} is an unfinished training on {name!r}, not on this volume.",
                "Remove it to start again, or choose another name.",
                setting="restart",
            )
        if config is not None:
            recipe = model.training.get("recipe")
            other = TrainingConfig.read(recipe)
            config = config.resuming(recipe or {})
            differing = [name for name in vars(config) if getattr(config, name) != getattr(other, name)]
            if differing:
                raise MismatchError(
                    f"The settings differ from those of the unfinished training in {self.path.name} "
                    f"({', '.join(differing)}).",
                    "Use the same settings, or remove it to start again.",
                    setting="restart",
                )
        logger.info("Loaded the unfinished training %s", self.path)
        return model

    def remove(self) -> None:
        """Remove the file when the training is finished, and incomplete ones that a killed training left behind."""
        self.path.unlink(missing_ok=True)
        remove_leftovers(self.path)
