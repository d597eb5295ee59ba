"""Many images, one after another: what is wrong with one is told of it, and the rest goes on."""

from __future__ import annotations

import errno
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from napari_cropeq.compute.super_resolution import DTYPES, SuperResolution
from napari_cropeq.core.geometry import Acquisition, check_shape
from napari_cropeq.core.host import give_freed_memory_back
from napari_cropeq.core.model import SUFFIX, Model
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.formats.image import Source, acquisition_of, open_source
from napari_cropeq.formats.paths import EXISTING, check_output
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.export import export
from napari_cropeq.run.naming import Naming, check_different
from napari_cropeq.run.partition import Partition
from napari_cropeq.run.train_to_file import OwnTraining, check_model_free, is_training_unfinished, train_to_file
from napari_cropeq.store.folder import unfinished

__all__ = ["STATUSES", "Batch", "BatchProgress", "BatchSettings", "Item", "summary"]

STATUSES = ("waiting", "training", "computing", "saving", "done", "shared", "skipped", "failed", "stopped")
ENDED = ("done", "shared", "skipped", "failed")


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch, and where it stands."""

    input: str  # path of the file, or name of the layer
    name: str  # of the file or the layer
    output: Path | None = None  # None where it cannot be named
    status: str = "waiting"
    fraction: float = 0.0  # of the status, 0 to 1
    detail: str = ""  # tiles, patches
    error: Exception | None = None  # what is wrong, a sentence
    seconds: float = 0.0
    shape: tuple[int, ...] = ()  # of the result: (t, c) z, y, x
    # voxel_size (z, y, x), unit, dtype, exactness; damaged: shards of an earlier run that had to be made anew
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Where a batch stands."""

    items: tuple[Item, ...]
    current: int  # index of the one that something has happened to

    @property
    def item(self) -> Item:
        """The one that something has happened to."""
        return self.items[self.current]

    @property
    def fraction(self) -> float:
        """Share of the batch that is done, each image counted alike."""
        item = self.item
        part = 0.0 if item.ended or item.status == "training" else item.fraction
        return (sum(item.ended for item in self.items) + part) / len(self.items)


@dataclass(frozen=True)
class BatchSettings:
    """What holds for all images of a batch.

    Parameters
    ----------
    model : Model or OwnTraining
        One model for all, or how each is trained on: its model is then kept beside its output, under the
        output's name.
    existing : str
        ``refuse`` outputs that are there, before any work; ``resume``: skip what is done and go on with what is not;
        ``overwrite``.
    planes, device, dtype : str
        See :class:`napari_cropeq.compute.super_resolution.SuperResolution`.
    tile : int, optional
        Side of a tile in SR voxels.
    voxel_size : (z, y, x), optional
        Instead of the images' own, in their unit.
    part_of : (int, int)
        Which of how many processes that share the work on each image this one is, from 0.
    cluster : Cluster, optional
        Whose workers compute.
    parallel : bool
        See :class:`napari_cropeq.compute.super_resolution.SuperResolution`.

    Raises
    ------
    ValueError
        If one of them cannot be.
    """

    model: Model | OwnTraining
    existing: str = "refuse"
    planes: str | None = None
    dtype: str = "source"
    tile: int | None = None
    voxel_size: tuple[float, float, float] | None = None
    device: str = "auto"
    part_of: tuple[int, int] = (0, 1)
    cluster: Cluster | None = None
    parallel: bool = True

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 8:  # before minutes are spent on a training
            raise ValueError(f"Got tiles of {self.tile} voxels, expected at least 8: choose larger ones.")
        for name, value, known in (("existing", self.existing, EXISTING), ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise ValueError(f"Got {name} {value!r}, expected one of {', '.join(known)}: choose one of these.")
        if Partition(*self.part_of).count > 1 and isinstance(self.model, OwnTraining):
            raise ValueError(
                "Got --train for work that is shared, expected one model for all processes: train first (cropeq "
                "train), and give the model (-m)."
            )

    def acquisition(self, source: Source) -> Acquisition:
        """Return how a source was sampled.

        Raises
        ------
        ValueError
            If it is no volume that can be worked on with these settings.
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
    inputs : sequence of path or Source
        What to work on: files, or sources that are open already.
    naming : Naming
        What results are called; it must give each its own name.
    settings : BatchSettings
        What holds for all.

    Attributes
    ----------
    items : list of Item
        Where each input stands, in the order of ``inputs``.
    """

    def __init__(self, inputs: Sequence[Path | Source], naming: Naming, settings: BatchSettings) -> None:
        self._inputs, self._naming, self._settings = list(inputs), naming, settings
        self.items = [Item(str(i) if isinstance(i, Path) else i.name, i.name) for i in inputs]

    def run(self) -> Generator[BatchProgress, None, None]:
        """Plan, then work, yielding whenever something has happened to an image.

        Closed before its end, or interrupted, what is unfinished is kept: a run with ``resume`` goes on.

        Raises
        ------
        ValueError
            Before any work, if two images would have one output, or an output is an input.
        FileExistsError
            Before any work, if outputs are there and ``existing`` is "refuse".
        OSError
            Before any work, if the folder cannot be written.
        """
        for number, given in enumerate(self._inputs):
            self.items[number] = self._plan(number, given)
            yield self._progress(number)
        self._check_outputs()
        for number, given in enumerate(self._inputs):
            if not self.items[number].ended:
                yield from self._run(number, given)

    def _plan(self, number: int, given: Path | Source) -> Item:
        """Open an image, name its output, and find what is wrong with it as far as no voxel tells."""
        item, settings = self.items[number], self._settings
        try:
            source = _opened(given)
            acquisition = settings.acquisition(source)
            dtype = str(source.data.dtype) if settings.dtype == "source" else settings.dtype
            output = self._naming.output(number + 1, source, acquisition, dtype)
            shape = (*source.data.shape[:-3], *acquisition.sr_shape(source.data.shape[-3:]))
            item = replace(item, output=output, shape=tuple(map(int, shape)))
            if settings.existing == "resume" and self._is_done(output):
                return replace(item, status="skipped", fraction=1.0)
        except Exception as error:  # noqa: BLE001 (whatever it is, the rest goes on)
            return replace(item, status="failed", error=_told(error, item))
        return item

    def _is_done(self, output: Path) -> bool:
        """Return whether an output is complete, and no run has begun to replace it."""
        started = unfinished(output) is not None or is_training_unfinished(self._model_path(output))
        return output.exists() and not started

    def _model_path(self, output: Path) -> Path:
        return output.with_name(self._naming.stem(output) + SUFFIX)

    def _check_outputs(self) -> None:
        """Refuse outputs that cannot be, before any work."""
        named = [(item.input, item.output) for item in self.items if item.output is not None]
        paths = [given if isinstance(given, Path) else given.path for given in self._inputs]
        check_different(named, [Path(path) for path in paths if path is not None])
        there: dict[Path, FileExistsError] = {}
        for _, output in named:
            try:
                check_output(output, self._settings.existing)
                if isinstance(self._settings.model, OwnTraining):
                    check_model_free(self._model_path(output), self._settings.existing)
            except FileExistsError as error:
                there[output] = error
        if len(there) > 1:
            raise FileExistsError(
                f"Got {len(there)} outputs that exist already, such as {next(iter(there))}, expected none: skip what "
                "is done and go on with the rest (--resume), or replace them (--overwrite)."
            )
        if there:
            raise next(iter(there.values()))

    def _run(self, number: int, given: Path | Source) -> Iterator[BatchProgress]:
        """Work on one image; whatever is wrong is told of it."""
        started = time.monotonic()
        planned = self.items[number]

        def is_now(**changes: Any) -> BatchProgress:
            self.items[number] = replace(self.items[number], seconds=time.monotonic() - started, **changes)
            return BatchProgress(tuple(self.items), number)

        try:
            with closing(self._work(given, planned)) as steps:
                for changes in steps:
                    yield is_now(**changes)
            status = "shared" if self.items[number].status == "shared" else "done"
            yield is_now(status=status, fraction=1.0, detail="")
        except Exception as error:  # noqa: BLE001 (whatever it is, the rest goes on)
            yield is_now(status="failed", detail="", error=_told(error, planned))
        finally:
            if not self.items[number].ended:
                is_now(status="stopped")
            give_freed_memory_back()

    def _work(self, given: Path | Source, item: Item) -> Generator[dict[str, Any], None, None]:
        """Train where wanted, then compute, yielding what changes of the item."""
        assert item.output is not None
        settings, model = self._settings, self._settings.model
        source = _opened(given)
        acquisition = settings.acquisition(source)
        if isinstance(model, OwnTraining):
            yield {"status": "training", "fraction": 0.0}
            path = self._model_path(item.output)
            model = yield from _train(path, source, acquisition, model, settings)
        result = SuperResolution(
            source, model, acquisition, settings.planes, settings.device, settings.dtype, settings.parallel
        )
        facts = _facts(result)
        yield {"status": "computing", "fraction": 0.0, "detail": "", "facts": facts}
        part, cluster = settings.part_of, settings.cluster
        tiles = export(result, item.output, settings.tile, settings.existing, part_of=part, cluster=cluster)
        with closing(tiles):  # type: ignore[type-var]
            for at in tiles:
                if at.damaged:
                    facts = facts | {"damaged": at.damaged}
                yield {
                    "status": {"tiles": "computing"}.get(at.stage, at.stage),
                    "fraction": at.done / max(at.total, 1),
                    "detail": f"{at.done} of {at.total} tiles",
                    "facts": facts,
                }

    def _progress(self, number: int) -> BatchProgress:
        return BatchProgress(tuple(self.items), number)


def summary(items: Sequence[Item]) -> str:
    """Return how many images ended how, in a few words."""
    counts = Counter(item.status for item in items)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def _opened(given: Path | Source) -> Source:
    return open_source(given) if isinstance(given, Path) else given


def _train(
    path: Path, source: Source, acquisition: Acquisition, how: OwnTraining, settings: BatchSettings
) -> Generator[dict[str, Any], None, Model]:
    """Train on an image, yielding what changes of its item, and return the model."""
    with closing(train_to_file(path, source, acquisition, how, settings.device, settings.existing)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return cast(Model, end.value)
            yield {"fraction": step.fraction, "detail": f"{step.patches:,} patches, loss {step.loss:.4f}"}


def _facts(result: SuperResolution) -> dict[str, Any]:
    """Return what is told of a result, as JSON values."""
    return {
        "voxel_size": list(result.acquisition.sr_voxel_size),
        "unit": result.acquisition.unit,
        "dtype": str(result.dtype),
        "exactness": str(result.exactness),
    }


def _told(error: Exception, item: Item) -> Exception:
    """Return the error as it is told, without the images that it holds on to."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        full = OSError(f"Got a full disk while writing {item.name}, expected more room: make space and resume.")
        full.__cause__ = error
        error = full
    part: BaseException | None = error
    while part is not None:
        traceback.clear_frames(part.__traceback__)
        part = part.__cause__ or part.__context__
    return error
