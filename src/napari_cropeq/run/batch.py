"""Process images in sequence; a failure is recorded and the batch continues."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from napari_cropeq.compute.super_resolution import SuperResolution, check_dtype, check_has_error
from napari_cropeq.core.geometry import Acquisition, check_shape, check_voxel_size
from napari_cropeq.core.host import give_freed_memory_back
from napari_cropeq.core.model import SUFFIX, Model
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.errors import ArgumentError, OutputExistsError
from napari_cropeq.formats.image import Image, acquisition_of
from napari_cropeq.formats.open import label_of, open_image
from napari_cropeq.formats.paths import check_output, is_url
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.error_output import error_of
from napari_cropeq.run.export import check_options, export, is_complete, settings_of
from napari_cropeq.run.naming import Naming, check_different
from napari_cropeq.run.partition import Partition
from napari_cropeq.run.train_to_file import OwnTraining, check_model_free, is_training_unfinished, train_to_file
from napari_cropeq.short_repr import quality_of
from napari_cropeq.store.disk_errors import disk_errors
from napari_cropeq.store.folder import sweep

__all__ = ["STATUSES", "Batch", "BatchProgress", "BatchSettings", "Item", "open_input", "summary"]

logger = logging.getLogger(__name__)

STATUSES = ("waiting", "training", "computing", "saving", "done", "shared", "skipped", "failed", "stopped")
ENDED = ("done", "shared", "skipped", "failed")


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch, and its status."""

    input: str  # path of the file, or name of the layer
    name: str  # of the file or the layer
    output: Path | None = None  # None if no name could be made for it
    status: str = "waiting"
    fraction: float = 0.0  # of the current status, 0 to 1
    detail: str = ""  # tiles, patches
    error: Exception | None = None  # why it failed
    seconds: float = 0.0
    shape: tuple[int, ...] = ()  # of the result: (t, c) z, y, x
    # voxel_size (z, y, x), unit, dtype, exactness; gain: of a network trained on the image over interpolation, dB;
    # damaged: shards of an earlier run that are computed again
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether work on it is over."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """State of a batch."""

    items: tuple[Item, ...]
    current: int  # index of the image that has changed

    @property
    def item(self) -> Item:
        """The image that has changed."""
        return self.items[self.current]

    @property
    def fraction(self) -> float:
        """Share of the batch that is done; every image has the same weight."""
        item = self.item
        part = 0.0 if item.ended or item.status == "training" else item.fraction
        return (sum(item.ended for item in self.items) + part) / len(self.items)


@dataclass(frozen=True)
class BatchSettings:
    """Settings shared by all images of a batch.

    Parameters
    ----------
    model : Model or OwnTraining
        One model for all, or how to train one on each image; that model is saved beside the output, under the
        output's name.
    existing : str
        ``refuse``: raise an error before any work if an output exists; ``resume``: skip complete outputs and resume
        unfinished ones; ``overwrite``.
    planes, device, dtype : str, optional
        See :class:`napari_cropeq.compute.super_resolution.SuperResolution`. Those that are not given are those of the
        unfinished output that is resumed.
    tile : int, optional
        Side of a tile in SR voxels.
    voxel_size : (z, y, x), optional
        Replaces the images' own, in their unit.
    assumed : ((z, y, x), str), optional
        Voxel size and unit, such as ``micrometer``, of files that store none.
    part_of : (int, int)
        Number of this process, from 0, and how many processes share the work on each image.
    cluster : Cluster, optional
        Its workers compute the tiles.
    parallel : bool
        See :class:`napari_cropeq.compute.super_resolution.SuperResolution`.
    allow_missing, scene : optional
        See :func:`napari_cropeq.formats.open.open_image`.
    error : bool
        Whether to write the expected errors beside each result as well.

    Raises
    ------
    ArgumentError
        If a setting has a value that cannot be used.
    """

    model: Model | OwnTraining
    existing: str = "refuse"
    planes: str | None = None
    dtype: str | None = None
    tile: int | None = None
    voxel_size: tuple[float, float, float] | None = None
    device: str = "auto"
    part_of: tuple[int, int] = (0, 1)
    cluster: Cluster | None = None
    parallel: bool = True
    allow_missing: float | None = None
    assumed: tuple[tuple[float, float, float], str] | None = None
    error: bool = False
    scene: str | None = None

    def __post_init__(self) -> None:
        # Checked now, not when the first tile is computed: a training may take minutes before that.
        partition = Partition(*self.part_of)
        check_options(self.tile, self.existing, partition, self.cluster, self.error)
        object.__setattr__(self, "existing", partition.existing(self.existing))
        check_dtype("source" if self.dtype is None else self.dtype)
        if self.assumed is not None:
            check_voxel_size(self.assumed[0])
        if self.error and isinstance(self.model, Model):
            check_has_error(self.model)
        if self.part_of[1] > 1 and isinstance(self.model, OwnTraining):
            raise ArgumentError(
                f"{self.part_of[1]} processes that share the work need the same model, but each would train its own.",
                "Train a model first, and give it to all of them.",
                setting="model",
            )

    def acquisition(self, source: Image) -> Acquisition:
        """Return the acquisition of a source.

        Raises
        ------
        ValueError
            If the source cannot be super-resolved with these settings.
        """
        own = self.model if isinstance(self.model, OwnTraining) else None
        fwhm, lateral = (None, 0.0) if own is None else (own.fwhm, own.lateral_fwhm)
        acquisition = acquisition_of(source, self.voxel_size, None, fwhm, lateral)
        if isinstance(self.model, Model):
            self.model.check_fits(acquisition)
        check_shape(source.data.shape[-3:], acquisition, 1)
        plane_axes(self.planes, acquisition.axial)
        return acquisition


class Batch:
    """Super-resolves images one after another; iterate :meth:`run`.

    Parameters
    ----------
    inputs : sequence of path or Image
        Images to process: files, or sources that are open already.
    naming : Naming
        Names the results; each needs its own name.
    settings : BatchSettings
        Settings for all images.

    Attributes
    ----------
    items : list of Item
        State of each input, in the order of ``inputs``.
    """

    def __init__(self, inputs: Sequence[Path | str | Image], naming: Naming, settings: BatchSettings) -> None:
        self._inputs, self._naming, self._settings = list(inputs), naming, settings
        self.items = [Item(i.name, i.name) if isinstance(i, Image) else Item(str(i), label_of(i)) for i in inputs]

    def run(self) -> Generator[BatchProgress, None, None]:
        """Plan, then work, yielding whenever the state of an image changes.

        If the generator is closed early, or interrupted, unfinished work is kept, and a run with ``resume`` continues.

        Raises
        ------
        ArgumentError
            Before any work, if two images have the same output, or an output is an input.
        OutputExistsError
            Before any work, if outputs exist and ``existing`` is "refuse".
        OSError
            Before any work, if the folder is not writable.
        """
        for number, given in enumerate(self._inputs):
            self.items[number] = self._plan(number, given)
            yield self._progress(number)
        self._check_outputs()
        for number, given in enumerate(self._inputs):
            item = self.items[number]
            if item.status == "skipped" and item.output is not None:
                with suppress(OSError):  # a complete output may lie where nobody can write
                    sweep(item.output)
            if not item.ended:
                yield from self._run(number, given)

    def _plan(self, number: int, given: Path | str | Image) -> Item:
        """Open an image, name its output, and find every problem that shows without reading voxels."""
        item, settings = self.items[number], self._settings
        try:
            source = open_input(given, settings.assumed, settings.allow_missing, settings.scene)
            acquisition = settings.acquisition(source)
            dtype = str(source.data.dtype) if settings.dtype in (None, "source") else settings.dtype
            output = self._naming.output(number + 1, source, acquisition, dtype)
            shape = (*source.data.shape[:-3], *acquisition.sr_shape(source.data.shape[-3:]))
            item = replace(item, output=output, shape=tuple(map(int, shape)))
            if settings.existing == "resume" and self._is_done(output):
                return replace(item, status="skipped", fraction=1.0)
        except Exception as error:  # noqa: BLE001 (whatever it is, the batch continues)
            return _failed(item, error)
        return item

    def _is_done(self, output: Path) -> bool:
        """Return whether an output is complete, and no run has started to replace it."""
        is_training = is_training_unfinished(self._model_path(output))
        return all(map(is_complete, self._files(output))) and not is_training

    def _files(self, output: Path) -> list[Path]:
        """Return all that is written for an output."""
        return [output, error_of(output)] if self._settings.error else [output]

    def _model_path(self, output: Path) -> Path:
        return output.with_name(self._naming.stem(output) + SUFFIX)

    def _check_outputs(self) -> None:
        """Check all outputs before any work."""
        named = [(item.input, item.output) for item in self.items if item.output is not None]
        files = (given.files if isinstance(given, Image) else (given,) for given in self._inputs)
        paths = [Path(file) for several in files for file in several if not is_url(file)]
        written = [(given, file) for given, output in named for file in self._files(output)]
        check_different(written, paths)
        existing: dict[Path, FileExistsError] = {}
        for _, output in named:
            try:
                for file in self._files(output):
                    check_output(file, self._settings.existing)
                if isinstance(self._settings.model, OwnTraining):
                    check_model_free(self._model_path(output), self._settings.existing)
            except FileExistsError as error:
                existing[output] = error
        if len(existing) > 1:
            raise OutputExistsError(
                f"{len(existing)} outputs exist already, such as {next(iter(existing))}.",
                'Skip complete ones with existing="resume", or replace them with existing="overwrite".',
                setting="outputs",
            )
        if existing:
            raise next(iter(existing.values()))

    def _run(self, number: int, given: Path | str | Image) -> Iterator[BatchProgress]:
        """Work on one image; an error is recorded in its item."""
        started = time.monotonic()
        planned = self.items[number]
        logger.info("%s: starting, image %d of %d", planned.name, number + 1, len(self.items))

        def changed(**changes: Any) -> BatchProgress:
            self.items[number] = replace(self.items[number], seconds=time.monotonic() - started, **changes)
            return self._progress(number)

        try:
            with disk_errors(planned.name), closing(self._work(given, planned)) as steps:
                for changes in steps:
                    yield changed(**changes)
            status = "shared" if self.items[number].status == "shared" else "done"
            yield changed(status=status, fraction=1.0, detail="")
        except Exception as error:  # noqa: BLE001 (whatever it is, the batch continues)
            failed = _failed(planned, error)
            yield changed(status=failed.status, detail="", error=failed.error)
        finally:
            if not self.items[number].ended:
                changed(status="stopped")
            item = self.items[number]
            logger.info("%s: %s after %.1f s", item.name, item.status, item.seconds)
            give_freed_memory_back()

    def _work(self, given: Path | str | Image, item: Item) -> Generator[dict[str, Any], None, None]:
        """Train if requested, then compute, yielding the fields of the item that change."""
        assert item.output is not None
        settings, model = self._settings, self._settings.model
        source = open_input(given, settings.assumed, settings.allow_missing, settings.scene)
        acquisition = settings.acquisition(source)
        if isinstance(model, OwnTraining):
            yield {"status": "training", "fraction": 0.0}
            path = self._model_path(item.output)
            model = yield from _train(path, source, acquisition, model, settings)
        chosen = settings_of(item.output, settings.existing, settings.planes, settings.device, settings.dtype)
        result = SuperResolution(source, model, acquisition, *chosen, settings.parallel)
        facts = _facts(result)
        if isinstance(settings.model, OwnTraining) and "gain" in model.training:
            facts["gain"] = model.training["gain"]
        yield {"status": "computing", "fraction": 0.0, "detail": "", "facts": facts}
        existing, part, cluster, error = settings.existing, settings.part_of, settings.cluster, settings.error
        tiles = export(result, item.output, settings.tile, existing, (), part, cluster, error)
        with closing(tiles):  # type: ignore[type-var]
            for progress in tiles:
                if progress.damaged:
                    facts = facts | {"damaged": progress.damaged}
                yield {
                    "status": {"tiles": "computing"}.get(progress.stage, progress.stage),
                    "fraction": progress.done / max(progress.total, 1),
                    "detail": f"{progress.done} of {progress.total} tiles",
                    "facts": facts,
                }

    def _progress(self, number: int) -> BatchProgress:
        return BatchProgress(tuple(self.items), number)


def summary(items: Sequence[Item]) -> str:
    """Return how many images have each status, such as ``2 done, 1 failed``."""
    counts = Counter(item.status for item in items)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def open_input(
    given: Path | str | Image,
    assumed: tuple[tuple[float, float, float], str] | None = None,
    allow_missing: float | None = None,
    scene: str | None = None,
) -> Image:
    """Return the source of an input of a batch; the other arguments are those of the settings.

    Raises
    ------
    ValueError, OSError
        See :func:`napari_cropeq.formats.open.open_image`.
    """
    source = given if isinstance(given, Image) else open_image(given, allow_missing, scene)
    if source.voxel_size is not None or assumed is None:
        return source
    voxel_size, unit = assumed
    return replace(source, voxel_size=voxel_size, unit=unit)


def _train(
    path: Path, source: Image, acquisition: Acquisition, how: OwnTraining, settings: BatchSettings
) -> Generator[dict[str, Any], None, Model]:
    """Train on an image, yielding the fields of its item that change, and return the model."""
    with closing(train_to_file(path, source, acquisition, how, settings.device, settings.existing)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return cast(Model, end.value)
            quality = quality_of({"gain": step.gain})["quality"]
            yield {"fraction": step.fraction, "detail": f"{step.patches:,} patches, {quality}"}


def _facts(result: SuperResolution) -> dict[str, Any]:
    """Return what is reported about a result, as JSON values."""
    return {
        "voxel_size": list(result.acquisition.sr_voxel_size),
        "unit": result.acquisition.unit,
        "dtype": str(result.dtype),
        "exactness": str(result.exactness),
    }


def _failed(item: Item, error: Exception) -> Item:
    """Return an item that has failed, with an error whose traceback keeps no image in memory."""
    logger.warning("%s: failed: %s", item.name, error)
    part: BaseException | None = error
    seen: set[int] = set()
    while part is not None and id(part) not in seen:  # an error may be among its own causes
        seen.add(id(part))
        traceback.clear_frames(part.__traceback__)
        part = part.__cause__ or part.__context__
    return replace(item, status="failed", error=error)
