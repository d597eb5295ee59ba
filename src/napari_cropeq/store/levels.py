"""All levels of a store on disk: what is finished of one is claimed, and makes the next coarser one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex, int_triple
from napari_cropeq.formats.pyramid import coarser, parents, support
from napari_cropeq.store.journal import Journal, Record, Shard
from napari_cropeq.store.memory import TileCache
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.shards import Shards

__all__ = ["DECODED", "Levels"]

DECODED = 2**28  # bytes of decoded chunks


class Levels:
    """The levels of a pyramid, the finest first, whose shards are claimed in a journal once they are safe.

    Parameters
    ----------
    folder : path
        The OME-Zarr image, with all its arrays.
    count : int
        Number of levels.
    journal : Journal
        Says which shards are done.
    """

    def __init__(self, folder: Path, count: int, journal: Journal) -> None:
        decoded = TileCache(DECODED)
        self._levels = [Shards(folder, number, decoded) for number in range(count)]
        self._journal = journal

    def __getitem__(self, number: int) -> Shards:
        return self._levels[number]

    def __len__(self) -> int:
        return len(self._levels)

    def __iter__(self) -> Iterator[Shards]:
        return iter(self._levels)

    def write(self, number: int, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Write a shard, claim it, and make the coarser ones of which it was the last missing part.

        Raises
        ------
        OSError
            If something cannot be written.
        """
        self.claim(self[number].write(tile, voxels))

    def claim(self, record: Record) -> None:
        """Claim a shard that is safe on the disk, and make what it was the last missing part of, as :meth:`write`."""
        level, leading, index = record.shard
        self._journal.add(record)
        self[level].done.add((leading, index))
        self._build_above(level, (leading, index))

    def complete(self, leading_indices: Iterable[LeadingIndex]) -> None:
        """Make the coarser shards that are missing; those of the finest level are all there.

        Raises
        ------
        OSError
            If one cannot be written.
        """
        # In a thread of its own, so that Ctrl-C waits for a shard under way and breaks off nothing inside zarr.
        with ThreadPoolExecutor(1, "cropeq levels") as builder:
            for number, level in enumerate(self._levels[1:], 1):
                for leading in leading_indices:
                    for index in level.grid.indices(Box.whole(self._shape(number))):
                        if (leading, index) not in level:
                            builder.submit(self._build, number, (leading, index)).result()

    def read_journal(self) -> list[Shard]:
        """Take over what the journals claim and the disk holds; return what it does not hold, or holds damaged."""
        damaged: list[Shard] = []
        for record in dict.fromkeys(self._journal.records()):
            level, leading, index = record.shard
            if level >= len(self) or (leading, index) in self[level]:
                continue
            if self[level].holds(record):
                self[level].done.add((leading, index))
            else:
                damaged.append(record.shard)
        # One that was written twice may have been damaged only the first time.
        return [shard for shard in dict.fromkeys(damaged) if shard[1:] not in self[shard[0]]]

    @contextmanager
    def moved(self, folder: Path) -> Iterator[None]:
        """Keep readers out while the store is given another name, and read from there afterwards."""
        with ExitStack() as stack:
            for level in self:
                stack.enter_context(level.moved(folder))
            yield

    def _build_above(self, number: int, tile: Tile) -> None:
        """Make the coarser shards of which this was the last missing part."""
        if number + 1 == len(self):
            return
        leading, index = tile
        fine, coarse = self[number], self[number + 1]
        for above in coarse.grid.indices(parents(fine.grid.box(index), self._shape(number + 1))):
            box = support(coarse.grid.box(above), self._shape(number))
            if (leading, above) not in coarse and all((leading, i) in fine for i in fine.grid.indices(box)):
                self._build(number + 1, (leading, above))

    def _build(self, number: int, tile: Tile) -> None:
        """Make a coarser shard, past the cache of what is looked at."""
        leading, index = tile
        self.write(number, tile, coarser(self[number - 1].array, leading, self[number].grid.box(index)))

    def _shape(self, number: int) -> IntTriple:
        return int_triple(self[number].array.shape[-3:])
