"""The Train dock widget: a model from the loaded layer itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, FileEdit, FloatSpinBox
from napari.layers import Image
from napari.utils.theme import get_theme
from platformdirs import user_cache_path
from qtpy.QtWidgets import QAbstractSpinBox

from napari_cropeq.core.checkpoint import Checkpoint
from napari_cropeq.core.geometry import AXIS_NAMES, Acquisition, guess_axial
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import choose_device
from napari_cropeq.core.recipe import Recipe
from napari_cropeq.core.slice_profile import Suggestion, suggest_fwhm
from napari_cropeq.core.training import Training
from napari_cropeq.gui.curves import Curves
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers import check_layer, set_voxel_size, source_of, voxel_size_of
from napari_cropeq.gui.panel import Panel
from napari_cropeq.gui.profile_section import ProfileSection
from napari_cropeq.gui.recipe_form import RecipeForm
from napari_cropeq.gui.thumbnails import Thumbnails
from napari_cropeq.gui.training_data import TrainingData, channel_layers, shown_of, source_checksum
from napari_cropeq.gui.training_run import Report, TrainingRun
from napari_cropeq.volume.superres import acquisition_of

__all__ = ["TrainWidget"]

SHOWN, ALL = "shown", "all"


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
        self._own: set[Path] = set()  # files that this widget wrote and may write again
        self._showing = False
        self._shown: Any = None  # the layer whose scale the fields follow
        self._followed: float | None = None  # the step that the FWHM follows until it is set to something else
        self._add_fields()
        self._add_views()
        self.layer.changed.connect(self._show_layer)
        self.viewer.layers.events.inserted.connect(self._show_choices)
        self.viewer.layers.events.removed.connect(self._show_choices)
        for axis, box in enumerate(self.voxel_size):
            box.changed.connect(lambda _=None, axis=axis: self.attempt(lambda: self._correct_layer(axis)))
        self.profile.asked.connect(lambda: self.attempt(self.suggest))
        self.profile.applied.connect(self._apply_fwhm)
        self.session.model_changed.connect(self._enable)
        self._show_layer()

    def _add_fields(self) -> None:
        foreground = get_theme(self.viewer.theme).text.as_hex()
        one = [("the one shown", SHOWN)]
        self.channels = ComboBox(label="Channels", choices=one, tooltip="Each channel has a normalisation of its own")
        self.times = ComboBox(label="Time points", choices=one, tooltip="All share the normalisation of the first")
        self.axial = ComboBox(label="Axial axis", choices=list(AXIS_NAMES), tooltip="The axis of low resolution")
        self.voxel_size = [_length(name, f"Distance between voxel centres along {name}") for name in AXIS_NAMES]
        self.sizes = Container(widgets=self.voxel_size, layout="horizontal", labels=False, label="Voxel z, y, x")
        self.sizes.margins = (0, 0, 0, 0)
        self.fwhm = _length("FWHM", "Width of the slice profile along the axial axis; the step by default")
        told = "Width of the blur that lateral slices have already: only the difference is then added. 0: not known"
        self.lateral_fwhm = _length("Lateral FWHM", told, 0.0)
        self.device = ComboBox(label="Device", choices=_devices(), tooltip="Where to compute; auto: the GPU if any")
        self.recipe = RecipeForm()
        self.profile = ProfileSection(self.lateral_fwhm, foreground)
        self.curves = Curves(foreground)
        self.form.extend([self.channels, self.times, self.axial, self.sizes, self.fwhm])
        self.form.extend([self.recipe.preset, self.recipe.spending, self.device])

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
        self._layout.insertWidget(self._layout.count() - 1, self.file_form.native)
        self.buttons |= self.add_buttons(save_model=self.save_model, load_model=self.load_model)

    def start(self) -> None:
        """Check everything, then train a new model in the background."""
        self._train(self._acquisition(), self._data(), self.recipe.recipe())

    def go_on(self) -> None:
        """Train the model in use further, with its optimiser's state and the budget in the form."""
        model = self.session.model
        if model is None:
            raise ValueError("Got no model to go on from, expected one: train or load one first.")
        model.check_fits(self._acquisition())
        self._train(self._acquisition(), self._data(), self.recipe.recipe(), model)

    def resume(self) -> None:
        """Complete the training of this layer that was interrupted, with the settings it had."""
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
        layer, acquisition = self.layer.value, self._acquisition()
        volume, lateral = self._data(every=False).channels[0][0], self.lateral_fwhm.value

        def steps() -> Iterator[Suggestion]:
            yield suggest_fwhm(volume, acquisition, lateral)

        def show(suggestion: Suggestion) -> None:
            if self.layer.value is layer:
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
        path.parent.mkdir(parents=True, exist_ok=True)

        def make() -> Training:
            training = Training(data.channels, acquisition, recipe, device, start=model, resume=whole)
            if whole and model is not None and training.normalisations != list(model.normalisations):
                raise ValueError(
                    "Got an interrupted training of a volume with other voxels, expected one of this layer: start anew."
                )
            return training

        self._run = TrainingRun(make, data.description, Checkpoint(path, data.description))
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
        set_voxel_size(layer, acquisition.voxel_size)
        self.axial.value = AXIS_NAMES[acquisition.axial]
        self.fwhm.value, self.lateral_fwhm.value = acquisition.fwhm, acquisition.lateral_fwhm
        self.recipe.show_recipe(recipe)
        data = TrainingData.of([layer, *others], told.get("channels", [0]), told.get("times", [0]))
        self._train(acquisition, data, recipe, model, whole=True)

    def _acquisition(self) -> Acquisition:
        source = source_of(self.layer.value)
        return acquisition_of(
            source,
            axial=AXIS_NAMES.index(self.axial.value),
            fwhm=self.fwhm.value,
            lateral_fwhm=self.lateral_fwhm.value,
        )

    def _data(self, every: bool = True) -> TrainingData:
        """Return what the form chooses to train on; the one shown unless ``every``."""
        layer = check_layer(self.layer.value)
        source = source_of(layer)
        shown = shown_of(layer, self.viewer.dims.point)
        all_channels, all_times = (every and box.value == ALL for box in (self.channels, self.times))
        layers = channel_layers(layer, self._layers()) if all_channels and source.n_channels == 1 else [layer]
        channels = range(source.n_channels) if all_channels else [shown["c"]]
        return TrainingData.of(layers, channels, range(source.n_times) if all_times else [shown["t"]])

    def _apply_fwhm(self, fwhm: float) -> None:
        self.fwhm.value = fwhm

    def _show_layer(self, _: Any = None) -> None:
        """Fill the fields from the layer, now and whenever its scale changes."""
        layer = self.layer.value
        is_new = layer is not self._shown
        if is_new:
            for old, connect in ((self._shown, False), (layer, True)):
                if old is not None:
                    for event in (old.events.scale, old.events.affine, old.events.units):
                        (event.connect if connect else event.disconnect)(self._show_layer)
            self._shown = layer
            self.profile.clear()
        self._show_choices()
        self._enable()
        if layer is None or layer.ndim < 3:
            return
        if is_new and self._job is None and self._interrupted():
            self.say("A training of this layer was interrupted: Resume completes it.")
        size = voxel_size_of(layer)
        # Four significant digits of the smallest step, whatever the unit.
        decimals = int(np.clip(4 - math.floor(math.log10(min(size))), 2, 15)) if min(size) > 0 else 5
        follows = self._followed is not None and math.isclose(self.fwhm.value, self._followed, rel_tol=1e-3)
        self._showing = True
        try:
            lengths = (*self.voxel_size, self.fwhm, self.lateral_fwhm)
            for box, value in zip(lengths, (*size, self.fwhm.value, self.lateral_fwhm.value), strict=True):
                box.native.setDecimals(decimals)
                box.value = value
            axial = guess_axial(size)
            self.axial.value = AXIS_NAMES[axial]
            if is_new:
                self.fwhm.value, self.lateral_fwhm.value = layer.metadata.get("fwhm", size[axial]), 0.0
            elif follows:
                self.fwhm.value = size[axial]
            self._followed = size[axial]
            self.fwhm.label = f"FWHM ({layer.units[-1]:~P})"
        finally:
            self._showing = False

    def _show_choices(self, _: Any = None) -> None:
        """Offer all channels and all time points where there are several."""
        channels = times = 1
        names: list[str] = []
        try:
            source = source_of(self.layer.value)
            names = [la.name for la in channel_layers(self.layer.value, self._layers())]
            channels, times = source.n_channels, source.n_times
        except ValueError:
            pass  # what is no volume offers nothing; pressing Start says why
        layers = channels == 1 and len(names) > 1
        every = f"this and {len(names) - 1} more of its shape" if layers else f"all {channels}"
        for box, what, offered in (
            (self.channels, every, layers or channels > 1),
            (self.times, f"all {times}", times > 1),
        ):
            before = box.value
            shown = "this layer" if box is self.channels and layers else "the one shown"
            box.choices = [(shown, SHOWN), (what, ALL)] if offered else [(shown, SHOWN)]
            box.value = before if offered else SHOWN
            box.visible = offered
        told = f": {', '.join(names)}" if layers else ""
        self.channels.tooltip = f"Channels to train on, each with a normalisation of its own{told}"

    def _correct_layer(self, axis: int) -> None:
        """Set the source layer's scale along one axis from its field."""
        layer = self.layer.value
        if self._showing or layer is None:
            return
        size = list(voxel_size_of(layer))
        size[axis] = float(self.voxel_size[axis].value)
        set_voxel_size(layer, (size[0], size[1], size[2]))

    def _on_report(self, report: Report) -> None:
        progress = report.progress
        self.bar.setValue(int(1000 * progress.fraction))
        self.bar.setFormat(f"%p %, {_duration(report.seconds_left)} left, {progress.rate:.0f} patches/s")
        self.curves.add(progress.patches, progress.loss, report.validations)
        if report.thumbnail is not None:
            self.thumbnails.show_patch(report.thumbnail)
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
                    f"Trained on {run.last.patches:,} patches in {_duration(run.last.seconds)}: preview it, or save it."
                )
                self.say(f"{told} {run.last.note}")
        self._enable()

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
    return user_cache_path("napari-cropeq") / f"{source_checksum(layer)}.safetensors"


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


def _duration(seconds: float) -> str:
    """Return hours, minutes and seconds, as few of them as are needed."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def _length(label: str, tooltip: str, value: float = 1.0) -> FloatSpinBox:
    """Return a narrow field for a length; what it cannot be is told when it is used."""
    box = FloatSpinBox(label=label, value=value, min=-1e6, max=1e6, step=0.01, tooltip=tooltip)
    box.native.setDecimals(5)
    box.native.setStyleSheet("min-width: 56px")  # the style of the window has its own
    box.native.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    return box
