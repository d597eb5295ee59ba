"""The file that a model is saved to and loaded from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magicgui.widgets import FileEdit

from napari_cropeq.core.model import Model
from napari_cropeq.gui.parts.config_form import TrainingConfigForm
from napari_cropeq.gui.training_plan import config_of

__all__ = ["ModelFile"]


class ModelFile(FileEdit):
    """Names a file. A file is replaced only if it was saved from here.

    Parameters
    ----------
    panel : Panel
        Works in the background, and shows what has become of it.
    config : TrainingConfigForm
        Shows how a model that is loaded was trained.
    """

    def __init__(self, panel: Any, config: TrainingConfigForm) -> None:
        super().__init__(label="Model file", mode="w", filter="*.safetensors", value="model.safetensors")
        self._panel, self._config = panel, config
        self._own: set[Path] = set()

    def save(self) -> None:
        """Write the model in use to the file."""
        model, path = self._panel.session.model, Path(self.value)
        if model is None:
            raise ValueError("Got no model to save, expected one: train or load one first.")
        if path.exists() and path not in self._own:
            raise ValueError(f"Got {path}, which exists already: choose another name.")

        def steps() -> Iterator[Path]:
            model.save(path)
            yield path

        def tell(path: Path) -> None:
            self._own.add(path)
            self._panel.say(f"Saved {path}.")

        self._panel.run(steps, tell, lambda: None)

    def load(self) -> None:
        """Use the model of the file."""
        path = Path(self.value)

        def steps() -> Iterator[Model]:
            yield Model.load(path)

        def use(model: Model) -> None:
            self._panel.session.use_model(model, path.name)
            if model.training:
                self._config.show_config(config_of(model), budget=False)
            self._panel.say(f"Using {path.name}, trained for factor {model.acquisition.factor:.4g}.")

        self._panel.run(steps, use, lambda: None)
