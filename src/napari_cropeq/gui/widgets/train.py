"""The Train dock widget: a model from the loaded layer itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox, Container, FileEdit
from napari.layers import Image, Layer
from napari.utils.theme import get_theme

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import choose_device
from napari_cropeq.core.slice_profile import Suggestion, suggest_fwhm
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import Recipe
from napari_cropeq.core.training.training import Training
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.source import check_layer
from napari_cropeq.gui.parts.curves import Curves
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.gui.parts.profile_section import ProfileSection
from napari_cropeq.gui.parts.recipe_form import RecipeForm
from napari_cropeq.gui.parts.source_form import SourceForm
from napari_cropeq.gui.parts.thumbnails import Thumbnails
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.training_data import TrainingData, source_checksum
from napari_cropeq.gui.training_run import Report, TrainingRun
from napari_cropeq.gui.widgets.panel import Panel

__all__ = ["TrainWidget"]


class TrainWidget(Panel):
    """Trains on the chosen layer and hands the model to the other widgets.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self._job: Job | None = None
        self._run: TrainingRun | None = None
        self._trained: Layer | None = None  # what the last training was started on
        self._glimpse: Model | None = None  # its weights that were shown last
        self._own: set[Path] = set()  # files that this widget wrote and may write again
        self._add_fields()
        self._add_views()
        self.layer.changed.connect(self._show_layer)
        self.viewer.layers.events.inserted.connect(self._on_siblings)
        self.viewer.layers.events.removed.connect(self._on_siblings)
        self.profile.asked.connect(lambda: self.pressed(self.suggest))
        self.profile.applied.connect(self._on_applied)
        for box in (*self.source.voxel_size, self.source.axial, self.source.lateral_fwhm):
            box.changed.connect(lambda: self.profile.clear())  # what was suggested is of another acquisition
        self.session.model_changed.connect(self._enable)
        self._show_layer()

    def _add_fields(self) -> None:
        foreground = get_theme(self.viewer.theme).text.as_hex()
        self.source = SourceForm(self._layers, self.attempt)
        self.device = ComboBox(label="Device", choices=_devices(), tooltip="Where to compute; auto: the GPU if any")
        if Preferences.read().device in self.device.choices:
            self.device.value = Preferences.read().device
        self.recipe = RecipeForm()
        self.profile = ProfileSection(self.source.lateral_fwhm, foreground)
        self.curves = Curves(foreground)
        self.form.extend([*self.source.widgets, self.recipe.preset, self.recipe.spending, self.device])

    def _add_views(self) -> None:
        self.thumbnails = Thumbnails()
        for section in (self.profile, self.recipe):
            self._layout.addWidget(section)
        actions = {"start": self.start, "continue": self.go_on, "resume": self.resume, "stop": self.stop}
        self.buttons = self.add_buttons(**actions)
        self.buttons["start"].tooltip = "Train a new model"
        self.buttons["continue"].tooltip = "Train the model in use further, with the budget above"
        self.buttons["resume"].tooltip = "Complete the training of this layer that was interrupted"
        self.buttons["stop"].tooltip = "End the training and keep the best weights so far"
        self._layout.addWidget(self.curves)
        self._layout.addWidget(self.thumbnails)
        self.file = FileEdit(label="Model file", mode="w", filter="*.safetensors", value="model.safetensors")
        self.file_form = Container(widgets=[self.file])
        self.add_status()
        self._layout.addWidget(self.file_form.native)
        self.buttons |= self.add_buttons(save_model=self.save_model, load_model=self.load_model)

    def start(self) -> None:
        """Check everything, then train a new model in the background."""
        self._train(self.source.acquisition(), self.source.data(self.viewer.dims.point), self.recipe.recipe())

    def go_on(self) -> None:
        """Train the model in use further, with its optimiser's state and the budget in the form."""
        model = self.session.model
        if model is None:
            raise ValueError("Got no model to go on from, expected one: train or load one first.")
        model.check_fits(self.source.acquisition())
        self._train(self.source.acquisition(), self.source.data(self.viewer.dims.point), self.recipe.recipe(), model)

    def resume(self) -> None:
        """Complete the training of the layer that was interrupted, with the settings it had."""
        layer = check_layer(self.layer.value)
        path = checkpoint_path(layer)

        def steps() -> Iterator[Model]:
            yield Model.load(path)

        self.say("Reading what was interrupted.")
        self.run(steps, lambda model: self._resume(layer, model), self._enable)

    def stop(self) -> None:
        """Stop training; the best weights so far become the model."""
        if self._job is not None and self._run is not None:
            self._run.ended_by_user = True
            self._job.stop()

    def suggest(self) -> None:
        """Have the image suggest the FWHM; nothing is changed by it."""
        layer, acquisition = self.layer.value, self.source.acquisition()
        [[volume]] = self.source.data(self.viewer.dims.point, every=False).channels

        def steps() -> Iterator[Suggestion]:
            yield suggest_fwhm(volume, acquisition, acquisition.lateral_fwhm)

        def show(suggestion: Suggestion) -> None:
            if self.layer.value is layer and self.source.acquisition() == acquisition:
                self.profile.show_suggestion(suggestion, f"{layer.units[-1]:~P}")

        self.profile.wait()
        self.run(steps, show, self.profile.done)

    def save_model(self) -> None:
        """Write the model in use to the file named."""
        model = self.session.model
        if model is None:
            raise ValueError("Got no model to save, expected one: train or load one first.")
        path = Path(self.file.value)
        if path.exists() and path not in self._own:
            raise ValueError(f"Got {path}, which exists already: choose another name.")

        def steps() -> Iterator[Path]:
            model.save(path)
            yield path

        def tell(path: Path) -> None:
            self._own.add(path)
            self.say(f"Saved {path}.")

        self.run(steps, tell, self._enable)

    def load_model(self) -> None:
        """Use the model of the file named; the form shows how it was trained."""
        path = Path(self.file.value)

        def steps() -> Iterator[Model]:
            yield Model.load(path)

        def use(model: Model) -> None:
            self.session.use_model(model, path.name)
            if model.training:
                self.recipe.show_recipe(_recipe_of(model), budget=False)
            self.say(f"Using {path.name}, trained for factor {model.acquisition.factor:.4g}.")

        self.run(steps, use, self._enable)

    def _train(
        self,
        acquisition: Acquisition,
        data: TrainingData,
        recipe: Recipe,
        model: Model | None = None,
        whole: bool = False,
    ) -> None:
        """Train in the background, from the start or from a model; ``whole``: completing what was interrupted."""
        if self._job is not None:
            return
        device = self.device.value
        path = checkpoint_path(self.layer.value)
        Preferences.read().make_cache_folder()

        def make() -> Training:
            training = Training(data.channels, acquisition, recipe, device, start=model, resume=whole)
            if whole and model is not None and training.normalisations != list(model.normalisations):
                raise ValueError(
                    "Got an interrupted training of a volume with other voxels, expected one of this layer: start anew."
                )
            return training

        self._trained, self._glimpse = self.layer.value, None
        self._run = TrainingRun(make, data.description, Checkpoint(path, data.description), self._is_watched)
        self.curves.clear()
        self.thumbnails.clear()
        self.say("Reading the volume.")
        self._job = self.run(self._run.steps, self._on_report, self._on_ended)
        self._enable()

    def _resume(self, layer: Image, model: Model) -> None:
        """Show the settings that an interrupted training had, and complete it."""
        if self.layer.value is not layer:
            return
        told, acquisition = dict(model.provenance.get("source", {})), model.acquisition
        names = [name for name in told.get("layers", []) if name != layer.name]
        others = [la for la in self._layers() if la.name in names]
        if len(others) < len(names):
            raise ValueError(f"Got a training of {', '.join(names)} as well, expected these layers: open them.")
        recipe = _recipe_of(model)
        self.source.show_acquisition(layer, acquisition)
        self.recipe.show_recipe(recipe)
        data = TrainingData.of([layer, *others], told.get("channels", [0]), told.get("times", [0]))
        self._train(acquisition, data, recipe, model, whole=True)

    def _show_layer(self, _: Any = None) -> None:
        """Fill the fields from the layer, and tell if a training of it was interrupted."""
        self.source.follow(self.layer.value)
        self.profile.clear()
        if self._job is None:
            found = self._interrupted()
            self.say("A training of this layer was interrupted: Resume completes it." if found else "")
        self._enable()

    def _on_siblings(self, _: Any = None) -> None:
        self.source.offer()

    def _on_applied(self, fwhm: float) -> None:
        self.source.fwhm.value = fwhm

    def _on_report(self, report: Report) -> None:
        progress = report.progress
        self.bar.setValue(int(1000 * progress.fraction))
        self.bar.setFormat(f"%p %, {duration(progress.seconds_left)} left, {progress.rate:.0f} patches/s")
        self.curves.add(progress.patches, progress.loss, report.validations)
        if report.thumbnail is not None:
            self.thumbnails.show_patch(report.thumbnail)
        if report.glimpse is not None and report.glimpse is not self._glimpse:
            self._glimpse = report.glimpse
            self.session.live_model.emit(self._trained, report.glimpse)
        best = min((loss for _, loss in report.validations), default=math.nan)
        told = f"{progress.patches:,} patches, loss {progress.loss:.4f}, best validation {best:.4f}."
        self.say(f"{told} {report.note}")

    def _on_ended(self) -> None:
        run, self._job = self._run, None
        self.curves.draw()
        self.bar.setFormat("%p %")
        if run is not None and run.model is not None and run.last is not None:
            self.session.use_model(run.model, "the model just trained")
            if not self.complaining:
                told = (
                    f"Trained on {run.last.patches:,} patches in {duration(run.last.seconds)}: preview it, or save it."
                )
                self.say(f"{told} {run.last.note}")
        self._enable()

    def _is_watched(self) -> bool:
        return self.session.live_wanted > 0

    def _interrupted(self) -> bool:
        """Return whether a training of the layer was interrupted and is not the one under way."""
        try:
            return self._job is None and checkpoint_path(self.layer.value).is_file()
        except ValueError:
            return False

    def _enable(self) -> None:
        idle = self._job is None
        self.buttons["start"].enabled = idle
        self.buttons["continue"].enabled = idle and self.session.model is not None
        self.buttons["resume"].native.setVisible(self._interrupted())
        self.buttons["stop"].enabled = not idle


def checkpoint_path(layer: Any) -> Path:
    """Return where a training of ``layer`` is kept while it runs."""
    return Preferences.read().cache_folder / f"{source_checksum(layer)}.safetensors"


def _recipe_of(model: Model) -> Recipe:
    return Recipe.read(model.training.get("recipe"))


def _devices() -> list[str]:
    """Return the names of the devices there are."""
    found = []
    for name in ("auto", "cpu", "cuda"):
        try:
            choose_device(name)
        except ValueError:
            continue
        found.append(name)
    return found
