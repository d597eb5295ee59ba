"""Training to a model file: if it ends early, a checkpoint keeps it, and no other file is left."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from conftest import a_source, textured_volume
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training import checkpoint
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import MismatchError, OutputExistsError
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.run.train_to_file import OwnTraining, is_training_unfinished, train_and_keep, train_to_file

TINY = {"minutes": None, "patches": 32, "filters": 4, "validation": 4, "batch": 8, "blocks": 2}
SOURCE = a_source(textured_volume((12, 70, 72)))
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def steps_of(path: Path, existing: str = "refuse", start: Model | None = None, acquisition=None, **options):
    how = OwnTraining(TrainingConfig(**(TINY | options)))
    return train_to_file(path, SOURCE, acquisition or acquisition_of(SOURCE), how, "cpu", existing, start)


def finished(steps) -> Model:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def stopped(path: Path, number: int = 2) -> None:
    with closing(steps_of(path)) as steps:
        for _ in range(number):
            next(steps)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "m.safetensors"


def test_the_saved_model_is_returned(path):
    model = finished(steps_of(path))
    assert model.fingerprint == Model.load(path).fingerprint and model.training["patches"] == 32
    assert os.listdir(path.parent) == [path.name]


def test_a_stopped_training_is_completed(path):
    stopped(path)
    assert is_training_unfinished(path) and not path.exists()
    model = finished(steps_of(path, "resume"))
    assert [patches for patches, *_ in model.training["losses"]] == [8, 16, 24, 32]
    assert os.listdir(path.parent) == [path.name]
    assert finished(steps_of(path, "resume")).fingerprint == model.fingerprint, "it is not trained again"


@pytest.mark.parametrize(
    "error", [ArithmeticError("diverged"), MemoryError(), KeyboardInterrupt(), OSError("network drive"), KeyError("us")]
)
def test_an_error_keeps_the_training(path, monkeypatch, error):
    step, calls = Training._step, []

    def failing(self, batch):
        calls.append(batch)
        if len(calls) == 3:
            raise error
        return step(self, batch)

    monkeypatch.setattr(Training, "_step", failing)
    with pytest.raises(type(error)):
        finished(steps_of(path))
    assert Model.load(Checkpoint.beside(path, {}).path).state.patches == 16


def test_a_full_disk_does_not_hide_the_first_error(path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "keep", lambda *_, now=False: (_ for _ in ()).throw(FULL) if now else None)
    steps = steps_of(path)
    next(steps)
    with pytest.raises(ZeroDivisionError):
        steps.throw(ZeroDivisionError)
    assert os.listdir(path.parent) == []


def test_a_full_disk_ends_a_training_or_is_reported(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(Model, "save", lambda *_: (_ for _ in ()).throw(FULL))
    with pytest.raises(OSError, match="No space left"):
        finished(steps_of(path))
    errors = []
    training = Training(SOURCE.volume(), acquisition_of(SOURCE), TrainingConfig(**TINY), "cpu")
    steps = list(train_and_keep(training, Checkpoint.beside(path, {}), errors.append))
    assert len(steps) == len(errors) == 4


def test_a_model_that_cannot_be_saved_is_kept_as_a_checkpoint(path, monkeypatch):
    save = Model.save

    def fails(self, to):
        if to == path:
            raise FULL
        save(self, to)

    monkeypatch.setattr(Model, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        finished(steps_of(path))
    assert Model.load(Checkpoint.beside(path, {}).path).state.patches == 32


def test_a_training_without_a_step_leaves_no_file(path, monkeypatch):
    monkeypatch.setattr(Training, "_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finished(steps_of(path))
    assert os.listdir(path.parent) == []


REFUSED = [
    pytest.param("refuse", {}, OutputExistsError, "holds an unfinished training", id="exists"),
    pytest.param("resume", {"rate": 0.1}, MismatchError, r"The settings differ from .* \(rate\)", id="settings"),
    pytest.param(
        "resume", {"acquisition": Acquisition((2.5, 1.0, 1.0), fwhm=4.0)}, MismatchError, "FWHM differs", id="fwhm"
    ),
]


@pytest.mark.parametrize(("existing", "options", "error", "message"), REFUSED)
def test_a_checkpoint_that_does_not_fit_is_kept(path, existing, options, error, message):
    stopped(path)
    before = Checkpoint.beside(path, {}).path.read_bytes()
    with pytest.raises(error, match=message):
        finished(steps_of(path, existing, **options))
    assert Checkpoint.beside(path, {}).path.read_bytes() == before


def test_a_model_is_continued_with_a_new_budget(path, tmp_path):
    one = finished(steps_of(path))
    two = finished(steps_of(tmp_path / "two.safetensors", start=one))
    assert two.training["patches"] == 64
