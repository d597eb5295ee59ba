"""Damaged model files and checkpoints: refused, unless everything that decides a result is as it was."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from hypothesis import strategies as st

from fuzz.edits import TEXT, Edit, read_json
from fuzz.oracle import REFUSED, RIGHT, TOLD, Kind, WrongError, unless_refused
from fuzz.strategies import byte_edits, json_edits
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import STATE_GROUPS, Model, State, provenance
from napari_cropeq.core.network import build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig

SOURCE = {"name": "stack", "shape": [4, 5, 6], "dtype": "uint16", "voxel_size": [2.5, 1.0, 1.0], "unit": "micrometer"}


def a_model(state: bool) -> Model:
    """Return a small model, with the state of its training."""
    torch.manual_seed(0)
    network = build_network("valid", 2, 2, 3, subpositions_for("valid", 2.5))
    tensors = {
        f"{group}/{name}": torch.full_like(value, number)
        for number, group in enumerate(STATE_GROUPS)
        for name, value in network.state_dict().items()
    }
    training = {"recipe": asdict(TrainingConfig()), "losses": [[8, 1.0, 0.5, 0.25]], "patches": 8, "seconds": 2.5}
    scales = [Normalisation(100.25, 4000.5), Normalisation(0.0, 2.0)]
    kept = State(tensors, 12, 96, 3.5) if state else None
    return Model(network, Acquisition((2.5, 1.0, 1.0), 0, 2.2), scales, training, provenance(SOURCE), kept)


def content(model: Model) -> tuple[Any, ...]:
    """Return everything that a model file stores, apart from its weights."""
    state = model.state
    kept = state and (
        state.steps,
        state.patches,
        state.seconds,
        {name: value.tolist() for name, value in state.tensors.items()},
    )
    return model.acquisition, list(model.normalisations), model.training, model.provenance, kept


class ModelFile(Kind):
    """The header of a model file, and all of its bytes."""

    name, state = "m.safetensors", False

    def make(self) -> None:
        """Write a model."""
        self.path = self.folder / self.name
        a_model(self.state).save(self.path)
        self.right = self.load()
        self.weights = self.right.fingerprint

    def load(self) -> Model:
        """Load the model."""
        return Model.load(self.path)

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of values of the header, and of any byte."""
        anywhere = byte_edits(self.name, range(self.path.stat().st_size))
        start = 8 + int.from_bytes(self.path.read_bytes()[:8], "little")
        in_header = byte_edits(self.name, range(start))
        value = json_edits(self.folder, [self.name])
        return st.integers(0, 9).flatmap(lambda n: value if n < 7 else anywhere if n < 9 else in_header)

    def judge(self, edits: list[Edit]) -> str:
        """Load the model, and compare it."""
        model = unless_refused(self.load)
        if model is None:
            return REFUSED
        str(model), repr(model)
        if model.fingerprint != self.weights:
            raise WrongError("other weights")
        if content(model) == content(self.right):
            return RIGHT
        if "checksum" in read_json(self.path)["__metadata__"][TEXT]:
            raise WrongError("another acquisition, normalisation, training, provenance or state")
        return TOLD  # a file without a checksum is of version 0.1.0


class CheckpointFile(ModelFile):
    """A checkpoint of a training: a model with the state of its training."""

    name, state = "m.checkpoint.safetensors", True

    def load(self) -> Model:
        """Load the checkpoint to resume the training."""
        return Checkpoint(self.path, SOURCE).load(TrainingConfig())
