"""The file that a model is saved to and loaded from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError, OutputExistsError
from napari_cropeq.gui.files.field import FileField
from napari_cropeq.gui.last_used import last_folder
from napari_cropeq.gui.parts.config_form import TrainingConfigForm
from napari_cropeq.run.train_to_file import config_of

__all__ = ["ModelFile"]


class ModelFile(FileField):
    """Field for the name of a model file. An existing file is replaced only if it was saved from here.

    Parameters
    ----------
    panel : Panel
        Saves and loads in the background, and shows messages.
    config : TrainingConfigForm
        Shows the training settings of a loaded model.
    """

    def __init__(self, panel: Any, config: TrainingConfigForm) -> None:
        folder, name = last_folder("models"), "model.safetensors"
        super().__init__(
            "models",
            "w",
            label="Model file",
            filter="*.safetensors",
            value=name if folder is None else folder / name,
            tooltip="The file that Save model writes and Load model reads",
        )
        self._panel, self._config = panel, config
        self._own: set[Path] = set()

    def save(self) -> None:
        """Write the model in use to the file."""
        model, path = self._panel.session.model, self._chosen()
        if model is None:
            raise ArgumentError("There is no model to save yet.", "Train or load one first.")
        if path.exists() and path not in self._own:
            raise OutputExistsError(f"{path} exists already.", "Choose another name.")

        def steps() -> Iterator[Path]:
            model.save(path)
            yield path

        def show_saved(path: Path) -> None:
            self._own.add(path)
            self.remember_folder()
            self._panel.say(f"Saved {path.absolute()}.")

        self._panel.say(f"Saving {path.name}.")
        self._panel.run(steps, show_saved, lambda: None)

    def load(self) -> None:
        """Use the model of the file."""
        path, session = self._chosen(), self._panel.session

        def steps() -> Iterator[Model]:
            yield Model.load(path)

        def use(model: Model) -> None:
            session.use_model(model, path.name)
            self.remember_folder()
            if model.training:
                self._config.show_config(config_of({}, start=model), budget=False)
            self._panel.say(f"Using {path.name}, which was trained for factor {model.acquisition.factor:.4g}.")

        kept = f" Until then, {session.model_name} is used." if session.model is not None else ""
        self._panel.say(f"Loading {path.name} …{kept}")
        session.load(path.name)
        self._panel.run(steps, use, lambda: session.load(""))

    def _chosen(self) -> Path:
        """Return the file."""
        if self.path is None:
            raise ArgumentError("There is no model file.", "Choose a Model file.")
        return self.path
