"""Loss of power: whatever it leaves on the disk, nothing is torn or lost, and the same command ends as if undisturbed.

The operations of a run are recorded in a process of its own; then every state in which a loss of power could leave the
disk (see power_loss) is checked, and the command is run again on some of them, with the marker ``soak`` on all.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from conftest import a_result, a_source, acquired, blobs, textured_volume
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.model import Model
from napari_cropeq.core.training import checkpoint
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.errors import CropeqError, ModelFileError
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.write import write_image
from napari_cropeq.run.export import export
from napari_cropeq.run.train_to_file import OwnTraining, train_to_file
from napari_cropeq.store import folder as store_folder
from napari_cropeq.store.journal import Record, digest_of
from power_loss import State, Trace, record, states, tree_of, write
from processes import Forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of handles are found as Linux has them")
soak = pytest.mark.soak

TILE = 16
SMALLEST = 20  # so that there are two levels
ZARR, TIFF, MODEL, CHECKPOINT = "out.ome.zarr", "out.ome.tif", "m.safetensors", "m.checkpoint.safetensors"
STORE, OLD = "out.partial.ome.zarr", "out.partial.ome.zarr/.cropeq/old"
PRECIOUS = "precious.txt"
Mark = Callable[[Any], None]
Files = dict[str, bytes]


def silent(_: Any) -> None:
    pass


# -- the runs ------------------------------------------------------------------------------------------


@functools.cache
def result(seed: int = 0) -> SuperResolution:
    """Two channels of two tiles, and a coarser level of one."""
    data = np.stack([textured_volume((6, 16, 32), 2 * seed + channel) for channel in range(2)])
    return a_result(data, "czyx")


def exports(
    folder: Path, mark: Mark, name: str = ZARR, existing: str = "resume", parts: int = 1, seed: int = 0
) -> None:
    """Export in one process, or in several parts that take turns."""
    if parts == 1:
        running = [export(result(seed), folder / name, TILE, existing)]
    else:
        running = [export(result(seed), folder / name, TILE, existing, part_of=(n, parts)) for n in range(parts)]
    for _ in itertools.zip_longest(*running):
        pass
    mark("end")


def half_an_export(folder: Path, name: str = ZARR) -> None:
    steps = export(result(), folder / name, TILE)
    next(step for step in steps if step.done >= 2)  # several tiles may be written between two steps
    steps.close()
    (folder / STORE / "zarr.json.0123456789abcdef.partial").touch()  # as if killed before


def half_a_replacement(folder: Path) -> None:
    """Leave an old output where it is for a moment, while the new one gets its name."""
    exports(folder, silent, seed=1)

    def stopped(new: Path, final: Path, old: Path) -> None:
        os.replace(final, old)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store_folder, "replace_folder", stopped)
        exports(folder, silent, existing="overwrite")


def saves(folder: Path, mark: Mark, name: str = ZARR, seed: int = 0) -> None:
    """Save a layer."""
    image = ImageInfo("zyx", (2.5, 1.0, 1.0), "micrometer", name="cells", provenance={"made": "here"})
    write_image(da.from_array(textured_volume((6, 16, 32), seed)), folder / name, image)
    mark("end")


def trains(folder: Path, mark: Mark, existing: str = "resume", seed: int = 0) -> None:
    source = a_source(acquired(blobs((32, 96, 96), seed), 4), voxel_size=(4.0, 1.0, 1.0))
    config = TrainingConfig(minutes=None, patches=32, filters=4, validation=4, batch=8, blocks=1)
    steps = train_to_file(folder / MODEL, source, acquisition_of(source), OwnTraining(config), "cpu", existing)
    for step in steps:
        mark(step.patches)
    mark("end")


def nothing(folder: Path) -> None:
    pass


earlier = partial(exports, mark=silent, seed=1)


@dataclass(frozen=True)
class Kind:
    """A run whose operations are recorded, and what is on the disk before it."""

    run: Callable[[Path, Mark], None]
    output: str = ZARR
    before: Callable[[Path], Any] = nothing
    parts: int = 1
    keeps: bool = True  # what the store on the disk has recorded


EXPORTS = {
    "zarr": Kind(exports),
    "zarr-resumed": Kind(exports, before=half_an_export),
    "zarr-overwritten": Kind(partial(exports, existing="overwrite"), before=earlier),
    "zarr-overwritten-again": Kind(partial(exports, existing="overwrite"), before=half_a_replacement, keeps=False),
    "job-array": Kind(partial(exports, parts=2), parts=2),
    "tiff": Kind(partial(exports, name=TIFF), TIFF),
    "tiff-resumed": Kind(partial(exports, name=TIFF), TIFF, partial(half_an_export, name=TIFF)),
    "tiff-overwritten": Kind(partial(exports, name=TIFF, existing="overwrite"), TIFF, partial(earlier, name=TIFF)),
}
SAVED = {
    "saved-zarr": Kind(saves),
    "saved-zarr-again": Kind(saves, before=partial(saves, mark=silent, seed=1)),
    "saved-tiff-again": Kind(partial(saves, name=TIFF), TIFF, partial(saves, mark=silent, seed=1, name=TIFF)),
}
MODELS = {
    "model": Kind(trains, MODEL),
    "model-overwritten": Kind(partial(trains, existing="overwrite"), MODEL, partial(trains, mark=silent, seed=1)),
}
KINDS = EXPORTS | SAVED | MODELS


# -- what is recorded ----------------------------------------------------------------------------------


def small() -> None:
    """Make levels small, and keep every step of a training."""
    pyramid.SMALLEST, checkpoint.SECONDS = SMALLEST, 0.0


@dataclass(frozen=True)
class Without:
    """Replace a function by one that does nothing."""

    module: str
    name: str

    def __call__(self) -> None:
        nothing = NoSync() if self.name == "os" else lambda *_: None
        setattr(import_module(f"napari_cropeq.{self.module}"), self.name, nothing)


class NoSync:
    """The module os without its fsync."""

    def __getattr__(self, name: str) -> Any:
        return (lambda _: None) if name == "fsync" else getattr(os, name)


class Recorded:
    """The trace of a run, and the outputs before and after it."""

    def __init__(self, kind: Kind, folder: Path, *changes: Callable[[], None]) -> None:
        self.kind, work = kind, folder / "work"
        work.mkdir()
        (work / PRECIOUS).write_text("a user's")
        kind.before(work)
        process = Forked(record, work, folder / "trace", kind.run, (small, *changes))
        _, said = process.communicate(300)
        assert process.returncode == 0, said
        self.trace: Trace = pickle.loads((folder / "trace").read_bytes())
        start, end = self.trace.start.tree(), self.trace.end
        self.old = next((found for place in (kind.output, OLD) if (found := within(start, place)) is not None), None)
        self.new = within(end, kind.output)
        self.shards = list(self._shards())
        every = list(states(self.trace))
        self.problems = sorted({problem for state in every if (problem := self.problem(state))})
        self.states = list({state.key: state for state in every}.values())

    def _shards(self) -> Iterator[int]:
        """Yield how many shards the journals have recorded at most, before each operation and after the last."""
        disk, most = self.trace.start.copy(), 0
        former = set() if self.kind.keeps else set(disk.contents)
        for operation in (*self.trace.operations, None):
            journals = [
                disk.contents[n]
                for (_, name), n in disk.names.items()
                if name.startswith("journal-") and n not in former
            ]
            yield (most := max(most, len({one.shard for journal in journals for one in records(journal)})))
            disk.apply(operation)

    def said(self, state: State) -> list[Any]:
        """Return what the run had said by then."""
        return [what for number, what in self.trace.marks if number <= state.after]

    def problem(self, state: State) -> str:
        """Return what is wrong with a state."""
        problem = output_problem(self, state)
        if not problem and within(state.tree, self.kind.output) != self.new:
            problem = (model_problem if self.kind.output == MODEL else store_problem)(self, state)
        return problem


def within(tree: dict[str, bytes | None], path: str) -> Files | None:
    """Return the files of an output by their names, without those of its journal; None if there is none."""
    if path not in tree:
        return None
    files = {name[len(path) :]: content for name, content in tree.items() if f"{name}/".startswith(f"{path}/")}
    return {n: c for n, c in files.items() if c is not None and not n.startswith("/.cropeq")}


def records(journal: bytes | None) -> list[Record]:
    found = (Record.of_line(line) for line in (journal or b"").decode(errors="replace").splitlines())
    return [one for one in found if one is not None]


# -- what holds in every state -------------------------------------------------------------------------


def output_problem(recorded: Recorded, state: State) -> str:
    """What has the name of the output is whole; once a run has ended, it is the new one; an old one is never lost."""
    output, tree = recorded.kind.output, state.tree
    found = within(tree, output)
    if tree.get(PRECIOUS) != b"a user's":
        return "a file of the user's is lost"
    if found not in (None, recorded.old, recorded.new):
        return "what has the name of the output is neither the old one nor the new one"
    if found != recorded.new and "end" in recorded.said(state):
        return "the run has ended, but the new output is lost"
    for folder in (STORE, f"{output}.partial"):
        if f"{folder}/.cropeq" not in tree and any(path.startswith(f"{folder}/") for path in tree):
            return "a folder of this package has lost its mark, and cannot be removed"
    held = [found, within(tree, OLD), within(tree, f"{output}.partial/.cropeq/old")]
    if recorded.old is not None and recorded.old not in held and recorded.new not in held:
        return "the old output is lost"
    return ""


def store_problem(recorded: Recorded, state: State) -> str:
    """What is recorded is on the disk, with at most one shard lost of each process."""
    journals = [content for path, content in state.tree.items() if path.startswith(f"{STORE}/.cropeq/journal-")]
    found = [one for journal in journals for one in records(journal)]
    wanted = recorded.shards[state.after] - recorded.kind.parts
    if not state.tree.get(f"{STORE}/.cropeq/header.json"):
        return f"{wanted} shards were recorded, but the header is lost" if wanted > 0 else ""
    for one in found:
        level, leading, index = one.shard
        content = state.tree.get("/".join((STORE, str(level), "c", *map(str, (*leading, *index)))))
        if one != Record(one.shard, content and len(content), "" if content is None else digest_of(content)):
            return f"shard {one.shard} is recorded, but not on the disk"
    if len({one.shard for one in found}) < wanted:
        return f"{wanted} shards were recorded, of which {len(found)} are left"
    return ""


def model_problem(recorded: Recorded, state: State) -> str:
    """A checkpoint is whole, and at least as new as the last one that was saved."""
    kept, said = state.tree.get(CHECKPOINT), recorded.said(state)
    if kept is not None and not patches(kept):
        return "the checkpoint is torn"
    if patches(kept) < max(said, default=0):
        return f"the checkpoint had {max(said)} patches, and has {patches(kept)}"
    return ""


@functools.lru_cache
def patches(content: bytes | None) -> int:
    """Return how many patches a model was trained on; 0 if it is no whole file."""
    if content is None:
        return 0
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(content)
        try:
            state = Model.load(file.name).state
        except ModelFileError:
            return 0
    assert state is not None
    return state.patches


@pytest.fixture(autouse=True)
def small_levels(monkeypatch) -> None:
    monkeypatch.setattr(pyramid, "SMALLEST", SMALLEST)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, if the system has such a place: thousands of small folders are made and removed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def fast(monkeypatch) -> None:
    """Compute each box once, and sync nothing."""
    compute, known = SuperResolution.compute, {}

    def remembered(self, leading, box, *rest):
        key = id(self), leading, box
        if key not in known:
            known[key] = compute(self, leading, box, *rest)
        return known[key]

    monkeypatch.setattr(SuperResolution, "compute", remembered)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def failed_runs(recorded: Recorded, chosen: list[State], folder: Path) -> Iterator[str]:
    """Run the same command on some states, and yield those after which it does not end as if undisturbed."""
    for number, state in enumerate(chosen):
        place = folder / str(number)
        place.mkdir()
        write(state, recorded.trace, place)
        try:
            recorded.kind.run(place, silent)
            tree = tree_of(place)
            output = recorded.kind.output
            equal = within(tree, output) == recorded.new
            if output == MODEL:  # it stores how many seconds it took
                equal = patches(tree[MODEL]) >= patches(recorded.new[""])
            left = sorted({path.partition("/")[0] for path in tree})
            if not equal or left != sorted([PRECIOUS, output]):
                yield f"{state.what} after {state.after}: equal {equal}, {left}"
        except CropeqError as error:
            yield f"{state.what} after {state.after}: {error}"
        shutil.rmtree(place)


@pytest.mark.parametrize("count", [pytest.param(8, id="some"), pytest.param(None, id="all", marks=soak)])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("fast")
def test_nothing_is_torn_or_lost_and_the_same_command_completes_it(name, count, folder, record_property):
    recorded = Recorded(KINDS[name], folder)
    assert recorded.trace.missed == []
    assert recorded.trace.whole().tree() == recorded.trace.end, "what was recorded is all that was done"
    assert recorded.new is not None and recorded.new != recorded.old
    chosen = recorded.states if count is None else random.Random(name).sample(recorded.states, count)
    failed = list(failed_runs(recorded, chosen, folder))
    figures = {"operations": len(recorded.trace.operations), "states": len(recorded.states)}
    record_property("replay", {"name": name} | figures | {"run again": len(chosen), "equal": len(chosen) - len(failed)})
    assert (recorded.problems, failed) == ([], [])


# A sync that is left out, and what is said of the states that it can leave then.
MISSING = [
    ("zarr", Without("store.shards", "sync_file"), "is recorded, but not on the disk"),
    ("zarr", Without("store.shards", "sync_folder"), "is recorded, but not on the disk"),
    ("zarr", Without("store.journal", "os"), "shards were recorded, of which"),
    ("zarr", Without("store.journal", "sync_file"), "but the header is lost"),
    ("zarr", Without("store.journal", "sync_folder"), "but the header is lost"),
    ("zarr", Without("store.metadata", "sync_folder"), "is recorded, but not on the disk"),
    ("zarr", Without("core.whole_file", "os"), "neither the old one nor the new one"),
    ("zarr", Without("formats.paths", "sync_folder"), "but the new output is lost"),
    ("zarr-overwritten", Without("formats.paths", "sync_folder"), "the old output is lost"),
    ("zarr-resumed", Without("store.folder", "sync_folders"), "neither the old one nor the new one"),
    ("tiff", Without("formats.ome_tiff", "sync_file"), "neither the old one nor the new one"),
    ("tiff", Without("formats.paths", "sync_folder"), "but the header is lost"),
    ("saved-zarr", Without("formats.write", "_sync"), "neither the old one nor the new one"),
    ("saved-zarr", Without("formats.paths", "sync_folder"), "has lost its mark"),
    ("saved-zarr-again", Without("formats.paths", "sync_folder"), "the old output is lost"),
    ("saved-tiff-again", Without("formats.ome_tiff", "sync_file"), "neither the old one nor the new one"),
    ("model", Without("core.whole_file", "os"), "the checkpoint is torn"),
    ("model", Without("core.whole_file", "sync_folder"), "the checkpoint had"),
]
QUICK = (0, 4, 8, 10, 12, 16)


@pytest.mark.parametrize(
    ("name", "without", "words"),
    [
        pytest.param(*case, id=f"{case[0]}-{case[1].module}-{case[1].name}", marks=() if number in QUICK else soak)
        for number, case in enumerate(MISSING)
    ],
)
def test_a_missing_sync_is_noticed(name, without, words, folder):
    recorded = Recorded(KINDS[name], folder, without)
    assert any(words in problem for problem in recorded.problems), recorded.problems
