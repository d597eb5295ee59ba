"""A model of an image's own: trained on it, kept beside its result, and used again by a run that goes on."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import Recipe
from napari_cropeq.core.training.progress import Progress
from napari_cropeq.core.training.training import Training
from napari_cropeq.formats.image import Source, training_volumes

__all__ = ["OwnModel", "OwnTraining", "check_own_model", "is_training_unfinished"]


@dataclass(frozen=True)
class OwnTraining:
    """How each image of a batch is trained on.

    Parameters
    ----------
    recipe : Recipe
        Budget and settings.
    fwhm : float, optional
        Width of the slice profile in the image's unit; the step by default.
    lateral_fwhm : float
        Width of the lateral point spread in the image's unit; 0 where it is not known.
    channels, times : sequence of int, optional
        What is trained on; None for all.
    """

    recipe: Recipe
    fwhm: float | None = None
    lateral_fwhm: float = 0.0
    channels: Sequence[int] | None = (0,)
    times: Sequence[int] | None = (0,)


def is_training_unfinished(path: Path) -> bool:
    """Return whether a training of the model ``path`` was interrupted."""
    return Checkpoint.beside(path, {}).exists


def check_own_model(path: Path, existing: str) -> None:
    """Raise FileExistsError if a model or an unfinished training stands at ``path`` and is to be refused."""
    if existing != "refuse":
        return
    for there in (path, Checkpoint.beside(path, {}).path):
        if there.exists():
            raise FileExistsError(
                f"Got {there}, which exists already: choose another name, go on from it (--resume), or allow "
                "overwriting (--overwrite)."
            )


class OwnModel:
    """The model of one image; iterate :meth:`steps`, then take :attr:`model`.

    Parameters
    ----------
    path : Path
        Where it is kept, ending in ``.safetensors``; the checkpoint of a training under way lies beside it.
    source : Source
        The image.
    acquisition : Acquisition
        Its grid and slice profile.
    how : OwnTraining
        What to train on, and how.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, path: Path, source: Source, acquisition: Acquisition, how: OwnTraining, device: str) -> None:
        self.path = path
        self.model: Model | None = None
        self._source, self._acquisition, self._how, self._device = source, acquisition, how, device
        self._described = source.describe() | {
            "channels": None if how.channels is None else list(how.channels),
            "times": None if how.times is None else list(how.times),
        }
        self._checkpoint = Checkpoint.beside(path, self._described)

    def steps(self, existing: str) -> Generator[Progress, None, None]:
        """Train, yielding after every step; with ``existing`` "resume" take or complete what is there.

        Closed before its end, what was learnt is kept as a checkpoint.

        Raises
        ------
        ValueError
            If the image cannot be trained on, or what is there is of another image or other settings.
        OSError
            If the model cannot be written.
        """
        check_own_model(self.path, existing)
        start = None
        if existing == "resume" and self._checkpoint.exists:
            start = self._read(self._checkpoint)
        elif existing == "resume" and self.path.is_file():
            self.model = self._read(Checkpoint(self.path, self._described))
            return
        volumes = training_volumes(self._source, self._how.channels, self._how.times)
        again = start is not None
        training = Training(volumes, self._acquisition, self._how.recipe, self._device, start=start, resume=again)
        yield from self._train(training)
        self.model = training.model(self._described)
        self.model.save(self.path)
        self._checkpoint.remove()

    def _train(self, training: Training) -> Iterator[Progress]:
        steps, whole = training.run(), False
        try:
            for step in steps:
                self._checkpoint.keep(training)
                yield step
            whole = True
        finally:
            steps.close()  # type: ignore[attr-defined]
            if not whole:
                with suppress(OSError):  # a full disk: what ended the training is what is told
                    self._checkpoint.keep(training, now=True)

    def _read(self, kept: Checkpoint) -> Model:
        model = kept.load(self._how.recipe)
        if model.acquisition != self._acquisition:
            raise ValueError(
                f"Got another voxel size or FWHM than the training in {kept.path.name} had, expected the same: give "
                "the same, or start anew."
            )
        return model
