"""The model file of a training that has not ended, from which it can be completed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_cropeq.core.model import SUFFIX, Model, provenance
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.core.whole_file import partial_of

__all__ = ["Checkpoint"]

SECONDS = 20.0
"""Least time between two savings; half a minute is what a killed training may lose."""


class Checkpoint:
    """Keeps what a training has learnt in a file that is whole at every moment.

    Parameters
    ----------
    path : Path
        Name of the file, ending in ``.safetensors``.
    source : mapping
        What describes the source, JSON values: a training of another one is not completed.
    """

    def __init__(self, path: Path, source: Mapping[str, Any]) -> None:
        self.path, self.source = path, source
        self._last = time.monotonic()

    @classmethod
    def beside(cls, output: Path, source: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint of a model that will be saved as ``output``."""
        return cls(output.with_name(output.name.removesuffix(SUFFIX) + ".checkpoint" + SUFFIX), source)

    @property
    def exists(self) -> bool:
        """Whether a training was not ended."""
        return self.path.is_file()

    def keep(self, training: Training, now: bool = False) -> None:
        """Save the training if the last time is long enough ago, or ``now``; call it between two steps."""
        if now or time.monotonic() - self._last >= SECONDS:
            training.model(self.source).save(self.path)
            self._last = time.monotonic()

    def load(self, config: TrainingConfig | None = None) -> Model:
        """Return what was kept, to be given to a training as ``start`` with ``resume``.

        Raises
        ------
        ValueError
            If it is damaged, or of another source or ``recipe``.
        """
        model = Model.load(self.path)
        if model.provenance.get("source_checksum") != provenance(self.source)["source_checksum"]:
            name = dict(model.provenance.get("source", {})).get("name", "another volume")
            raise ValueError(
                f"Got an unfinished training of {name!r} in {self.path.name}, expected one of this volume: "
                "start anew, or choose another name."
            )
        if config is not None:
            other = TrainingConfig.read(model.training.get("recipe"))
            differing = [name for name in vars(config) if getattr(config, name) != getattr(other, name)]
            if differing:
                raise ValueError(
                    f"Got other settings ({', '.join(differing)}) than the training in {self.path.name} had, "
                    "expected the same: give the same, or start anew."
                )
        return model

    def remove(self) -> None:
        """Remove the file of a training that has ended, and what a killed one has written of the next."""
        for path in (self.path, partial_of(self.path)):
            path.unlink(missing_ok=True)
