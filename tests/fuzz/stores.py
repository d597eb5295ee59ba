"""Damaged unfinished results: resumed to the same bytes, or refused with every finished tile and other file kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import zarr
from hypothesis import strategies as st

import faults
from faults import Job, KillAt, contents, done, result_of, write_source
from fuzz.edits import Edit, apply
from fuzz.oracle import REFUSED, RIGHT, Kind, WrongError, unless_refused
from fuzz.strategies import byte_edits, json_edits
from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.formats import pyramid
from napari_cropeq.run.export import export
from napari_cropeq.store.unfinished import Unfinished

OUTPUT = "out.ome.zarr"
PARTIAL = "out.partial.ome.zarr"
CLAIMS = faults.SHARDS // 2  # after which the process is killed
JSON = [
    f"{PARTIAL}/{name}" for name in (".cropeq/header.json", "zarr.json", "0/zarr.json", "1/zarr.json", "2/zarr.json")
]
JOURNAL = f"{PARTIAL}/.cropeq/journal-0-of-1.jsonl"
MODEL = f"{PARTIAL}/.cropeq/model.safetensors"


class UnfinishedStore(Kind):
    """What an export that was killed has left."""

    def make(self) -> None:
        """Make an output, and one whose process was killed."""
        pyramid.SMALLEST, TileShapes.bulk = faults.SMALLEST, property(lambda _: faults.PART)
        inputs, whole, killed = (self.folder / name for name in ("inputs", "whole", "killed"))
        for folder in (inputs, whole, killed):
            folder.mkdir()
        network = build_network("valid", 4, 2, 3, subpositions_for("valid", 2.5))
        Model(network, Acquisition((2.5, 1, 1)), [Normalisation(0.0, 4000.0)]).save(inputs / "m.safetensors")
        job = Job(whole / OUTPUT, write_source(inputs / "a.ome.zarr"), inputs / "m.safetensors")
        source = zarr.open_array(job.source / "0", mode="r+")
        source[0, :, 12:] = 0  # tiles of fill value have no file: only the journal says that they are finished
        assert done(job).code == 0
        kill = (KillAt("claim", "after", CLAIMS),)
        assert done(replace(job, output=killed / OUTPUT, faults=kill)).killed
        (killed / "notes.txt").write_text("Another file of the user.")
        self.right, self.result = contents(whole / OUTPUT), result_of(job)
        self.folder, self._killed = self.folder / "case", killed
        self._restore()

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of metadata, header, journal, model and shards."""
        size = (self.folder / JOURNAL).stat().st_size
        journal = byte_edits(JOURNAL, range(size))
        lines = st.sampled_from(range(len((self.folder / JOURNAL).read_bytes().splitlines())))
        journal |= st.tuples(st.just(JOURNAL), st.just("line"), lines, st.sampled_from([0, 2]))
        value = st.sampled_from([[0], [1, 0], [2, 0], [2, 1], [3]])
        changed = st.tuples(st.just(JOURNAL), st.just("record"), lines, value, st.sampled_from([0, 1, 2, None]))
        files = [path for path in (self.folder / PARTIAL).rglob("*") if path.is_file()]
        every = [(str(path.relative_to(self.folder)), path.stat().st_size) for path in sorted(files)]
        anywhere = st.one_of([byte_edits(name, range(max(1, size))) for name, size in every])
        gone = st.sampled_from([name for name, _ in every]).map(lambda name: (name, "delete"))
        values = json_edits(self.folder, JSON) | json_edits(self.folder, [MODEL])
        kinds = [values, journal, changed, anywhere, gone]
        return st.integers(0, 9).flatmap(lambda n: kinds[(0, 0, 0, 0, 1, 2, 2, 3, 3, 4)[n]])

    def run(self, edits: list[Edit]) -> str:
        """Damage, resume, and restore everything."""
        try:
            apply(self.folder, edits)
            return self.judge(edits)
        finally:
            self._restore()

    def judge(self, edits: list[Edit]) -> str:
        """Resume the output."""
        before = dict(self._kept())
        unless_refused(lambda: Unfinished.open(self.folder / PARTIAL))
        # Without its header it does not count as started, and its tile size is not known.
        tile = None if (self.folder / JSON[0]).exists() else faults.TILE
        steps = unless_refused(lambda: list(export(self.result, self.folder / OUTPUT, tile, "resume")))
        after = dict(self._kept())
        if after["notes.txt"] != before["notes.txt"]:
            raise WrongError("another file was changed")
        if steps is None:
            lost = [name for name, content in before.items() if after.get(name) != content]
            if lost or (self.folder / OUTPUT).exists():
                raise WrongError(f"refused, but {lost[:3]} changed or were removed")
            return REFUSED
        found = contents(self.folder / OUTPUT)
        different = [name for name in {**found, **self.right} if found.get(name) != self.right.get(name)]
        if different:
            raise WrongError(f"resumed, but {sorted(different)[:3]} differ")
        return RIGHT

    def _kept(self) -> Iterator[tuple[str, bytes]]:
        """Yield the files that must be kept: shards, and what does not belong to the store."""
        for name, content in contents(self.folder).items():
            if name == "notes.txt" or ("/c/" in name and not name.endswith(".partial")):
                yield name, content

    def _restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._killed, self.folder)
