"""The step Train: train a model on a layer itself."""

from __future__ import annotations

from collections.abc import Iterator

from magicgui.widgets import ComboBox
from napari.layers import Layer

from napari_cropeq.core.devices.device import DEVICES, choose_device
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.noise import recorded_noise
from napari_cropeq.core.training.training import LEAST_GAIN
from napari_cropeq.errors import ArgumentError
from napari_cropeq.gui.files.model_file import ModelFile
from napari_cropeq.gui.hints import TRAIN_HINTS
from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.layers.source import check_layer
from napari_cropeq.gui.parts.config_form import TrainingConfigForm
from napari_cropeq.gui.parts.curves import Curves
from napari_cropeq.gui.parts.duration import duration
from napari_cropeq.gui.parts.form import Form
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.parts.source_form import SourceForm
from napari_cropeq.gui.parts.thumbnails import Thumbnails
from napari_cropeq.gui.preferences import Preferences
from napari_cropeq.gui.sections.noise import NoiseSection
from napari_cropeq.gui.session import Session
from napari_cropeq.gui.training_plan import (
    TrainingPlan,
    checkpoint_path,
    interrupted_layers,
    is_interrupted,
)
from napari_cropeq.gui.training_run import Report, TrainingRun, losses_of
from napari_cropeq.gui.widgets.panel import Panel
from napari_cropeq.run.train_to_file import config_of
from napari_cropeq.short_repr import quality_of

__all__ = ["TrainWidget"]

NOTICE = "Go to Data first"  # how a message begins that names what has to be confirmed
TOOLTIPS = {
    "start": "Train a new model on this layer",
    "continue": "Train the model in use further, with the budget above",
    "resume": "Complete the interrupted training of this layer",
    "stop": "Stop the training and keep the best model so far",
    "save_model": "Save the model in use to Model file",
    "load_model": "Use the model in Model file",
}


class TrainWidget(Panel):
    """Trains a model on the chosen layer, for use in the other steps.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    source : SourceForm
        Says how the layer was acquired, and which of its volumes to train on.
    noise : NoiseSection
        Shows the noise that a training has measured.
    """

    hints = TRAIN_HINTS

    def __init__(self, session: Session, layer: LayerChoice, source: SourceForm, noise: NoiseSection) -> None:
        super().__init__(session, layer)
        self.source, self.noise = source, noise
        self._job: Job | None = None
        self._run: TrainingRun | None = None
        self._trained: Layer | None = None  # the layer of the last training
        self._snapshot: Model | None = None  # the last one that was shown
        self._add_fields()
        self._add_views()
        self.layer.changed.connect(self._show_layer)
        self.source.followed.connect(self._show_notice)
        self.session.model_changed.connect(self._enable)
        self.session.loading_changed.connect(self._enable)
        self._show_layer()

    def _add_fields(self) -> None:
        self.device = ComboBox(
            label="Device",
            choices=_devices(),
            tooltip="Where to compute. auto: the GPU if there is one, else the CPU (processor)",
        )
        if Preferences.read().device in self.device.choices:
            self.device.value = Preferences.read().device
        self.config = TrainingConfigForm(self.colours)
        self.config.recall()
        self.curves = Curves(self.colours)
        self.coloured += [self.config, self.curves]
        self.form.extend([self.config.preset, self.config.spending, self.device])

    def _add_views(self) -> None:
        self.thumbnails = Thumbnails()
        actions = {"start": self.start, "continue": self.continue_training, "resume": self.resume, "stop": self.stop}
        self.buttons = self.add_buttons(TOOLTIPS, **actions)
        for view in (self.curves, self.thumbnails, self.config):
            self.below.rows.addWidget(view)
        self.file = ModelFile(self, self.config)
        self.add_status()
        self.fixed.addWidget(Form([self.file]))
        self.buttons |= self.add_buttons(TOOLTIPS, save_model=self.file.save, load_model=self.file.load)

    def start(self) -> None:
        """Check the settings, then train a new model in the background."""
        self._train(self._plan())
        self.config.remember()

    def continue_training(self) -> None:
        """Train the model in use further, with its optimiser's state and the budget in the form."""
        model = self.session.model
        if model is None:
            raise ArgumentError("There is no model to continue from.", "Train or load one first.")
        model.check_fits(self.source.acquisition())
        self._train(self._plan(model))
        self.config.remember()

    def resume(self) -> None:
        """Complete the interrupted training of the layer, with its own settings."""
        layer = check_layer(self.layer.value)
        path = checkpoint_path(layer)

        def steps() -> Iterator[Model]:
            yield Model.load(path)

        def complete(model: Model) -> None:
            if self.layer.value is not layer:
                return
            layers = interrupted_layers(model, layer, self.layer.sources())
            self.source.show_acquisition(layer, model.acquisition)
            self.config.show_config(config_of({}, start=model))
            self._train(TrainingPlan.completing(model, layers, self.device.value))

        self.say("Reading the interrupted training.")
        self.run(steps, complete, self._enable)

    def stop(self) -> None:
        """Stop training; the best weights so far become the model."""
        if self._job is not None and self._run is not None:
            self._run.ended_by_user = True
            self._job.stop()

    def _plan(self, model: Model | None = None) -> TrainingPlan:
        """Return the plan that the form describes, for a training from scratch or from a model."""
        data = self.source.data(self.viewer.dims.point)
        return TrainingPlan(data, self.source.acquisition(), self.config.config(), self.device.value, model)

    def _train(self, plan: TrainingPlan) -> None:
        """Train in the background."""
        if self._job is not None:
            return
        checkpoint = Checkpoint(checkpoint_path(self.layer.value), plan.data.description)
        Preferences.read().make_cache_folder()
        self._trained, self._snapshot = self.layer.value, None
        self._run = TrainingRun(plan.training, plan.data.description, checkpoint, lambda: self.session.live_wanted > 0)
        self.curves.clear()
        self.thumbnails.clear()
        self.say("Reading the volume.")
        self._job = self.run(self._run.steps, self._on_report, self._on_ended)
        self._enable()

    def _show_layer(self) -> None:
        """Forget the training of another layer, and show whether one of this layer was interrupted."""
        if self._job is None:
            if self.layer.value is not self._trained:
                self.curves.clear()
                self.thumbnails.clear()
                self.bar.reset()
            found = is_interrupted(self.layer.value)
            notice = f"{NOTICE}. {self.source.notice}" if self.source.notice else ""
            self.say("A training of this layer was interrupted. Press Resume to complete it." if found else notice)
        self._enable()

    def _show_notice(self) -> None:
        """Remove an error about data that have changed, and the notice once they are confirmed."""
        self._forget_complaint()
        if self._job is None and self.message.text().startswith(NOTICE) and not self.source.notice:
            self.say("")

    def _on_report(self, report: Report) -> None:
        progress = report.progress
        self.bar.setValue(int(1000 * progress.fraction))
        rate = f"{progress.rate:.0f}" if progress.rate >= 10 else f"{progress.rate:.1f}"
        self.bar.setFormat(f"%p %, {duration(progress.seconds_left)} left, {rate} patches/s")
        loss = progress.loss if progress.settled else None  # the first batches may all be dark
        self.curves.add(progress.patches, loss, report.validations, report.interpolation)
        if report.thumbnail is not None:
            self.thumbnails.show_patch(report.thumbnail)
        if report.snapshot is not None and report.snapshot is not self._snapshot:
            self._snapshot = report.snapshot
            self.session.live_model.emit(self._trained, report.snapshot)
        text = f"{progress.patches:,} patches, {quality_of({'gain': progress.gain})['quality']}."
        self.say(f"{text} {report.note}".strip(), losses_of(report))

    def _on_ended(self) -> None:
        run, self._job = self._run, None
        self.curves.draw()
        self.bar.setFormat("%p %")
        if run is not None and run.model is not None and run.last is not None:
            label = label_of(run.model)
            self.session.use_model(run.model, f"just trained ({label})", label)
            self._show_noise(run.model)
            if not self.complaining:
                spent = f"Trained on {run.last.patches:,} patches in {duration(run.last.seconds)}"
                advice = run.last.note or "Look at the result in Preview, or press Save model."
                learnt = run.model.training.get("gain", LEAST_GAIN) >= LEAST_GAIN  # else the advice says how little
                quality = f", {quality_of(run.model.training)['quality']}" if learnt else ""
                self.say(f"{spent}{quality}. {advice}")
        self._enable()

    def _show_noise(self, model: Model) -> None:
        """Show the noise that was measured for the training of one channel of this layer."""
        found = recorded_noise(model.training, model.normalisations)
        if len(found) == 1 and self.layer.value is self._trained:
            self.noise.show_result(found[0], "")

    def _enable(self) -> None:
        idle = self._job is None
        self.buttons["start"].enabled = idle
        self.buttons["continue"].enabled = idle and self.session.model is not None
        self.buttons["resume"].native.setVisible(idle and is_interrupted(self.layer.value))
        self.buttons["stop"].enabled = not idle
        self.buttons["load_model"].enabled = not self.session.loading


def label_of(model: Model) -> str:
    """Return how long a model was trained with which preset, to tell it apart from others."""
    return f"{config_of({}, start=model).preset_name}, {duration(model.training['seconds'])}"


def _devices() -> list[str]:
    """Return the names of the available devices."""
    found = []
    for name in DEVICES:
        try:
            choose_device(name)
        except ValueError:
            continue
        found.append(name)
    return found
