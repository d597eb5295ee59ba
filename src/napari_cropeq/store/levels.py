"""All levels of a store on disk: finished shards are recorded, and coarser ones are computed from them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
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
from napari_cropeq.store.verified import Verified

__all__ = ["DECODED", "Levels"]

logger = logging.getLogger(__name__)

DECODED = 2**28  # bytes of decoded chunks


class Levels:
    """The levels of a pyramid, the finest first; finished shards are recorded in a journal.

    Parameters
    ----------
    folder : path
        The OME-Zarr image, with all its arrays.
    count : int
        Number of levels.
    journal : Journal
        Records the finished shards.

    Attributes
    ----------
    verified : Verified
        Shards whose bytes were compared with their records.
    """

    def __init__(self, folder: Path, count: int, journal: Journal) -> None:
        decoded = TileCache(DECODED)
        self._levels = [Shards(folder, number, decoded) for number in range(count)]
        self._journal = journal
        self.verified = Verified(journal.folder, journal.part)
        self._unverified: dict[Shard, list[Record]] = {}  # shards that are only known to have the right sizes

    def __getitem__(self, number: int) -> Shards:
        return self._levels[number]

    def __len__(self) -> int:
        return len(self._levels)

    def __iter__(self) -> Iterator[Shards]:
        return iter(self._levels)

    def write(self, number: int, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Write and record a shard, and compute the coarser shards for which it was the last missing part.

        Raises
        ------
        OSError
            If something cannot be written.
        """
        self.record(self[number].write(tile, voxels))

    def record(self, record: Record) -> None:
        """Record a shard that is synced to disk, and compute coarser shards as in :meth:`write`."""
        level, leading, index = record.shard
        self._journal.add(record)
        self.verified.add(record, self[level].state((leading, index))[1])
        self._unverified.pop(record.shard, None)
        self[level].done.add((leading, index))
        self._build_above(level, (leading, index))

    def complete(self, leading_indices: Iterable[LeadingIndex]) -> None:
        """Compute the missing coarser shards; those of the finest level must all be finished.

        Raises
        ------
        OSError
            If one cannot be written.
        """
        # In a separate thread, so that Ctrl-C waits for the current shard and does not interrupt zarr.
        start = time.monotonic()
        with ThreadPoolExecutor(1, "cropeq levels") as builder:
            for number, level in enumerate(self._levels[1:], 1):
                for leading in leading_indices:
                    for index in level.grid.indices(Box.whole(self._shape(number))):
                        if (leading, index) not in level:
                            builder.submit(self._build, number, (leading, index)).result()
        logger.info("Completed the coarser levels in %.1f s", time.monotonic() - start)

    @property
    def recorded(self) -> bool:
        """Whether all shards of the finest level are recorded, by any process."""
        finest = {record.shard[1:] for record in self._journal.records() if record.shard[0] == 0}
        return sum(tile in self[0].numbering for tile in finest) == len(self[0].numbering)

    def read_journal(self) -> None:
        """Mark the recorded shards as finished whose files have the right sizes; :meth:`verify` reads them."""
        records: dict[Shard, dict[Record, None]] = {}  # a shard that was damaged was written twice
        for record in self._journal.records():
            level, leading, index = record.shard
            if level < len(self) and (leading, index) in self[level].numbering:
                records.setdefault(record.shard, {})[record] = None
        self._unverified = {}
        for shard, given in records.items():
            size, _ = self[shard[0]].state(shard[1:])
            self._unverified[shard] = [record for record in given if record.size == size]
        for number, shards in enumerate(self):
            shards.done = {shard[1:] for shard, fitting in self._unverified.items() if shard[0] == number and fitting}

    def verify(self, part: tuple[int, int]) -> list[Shard]:
        """Read the shards of a part that were not verified before, and return those that are missing or damaged.

        Shards that another process of this run has verified or written are not read again, unless their files have
        changed since.

        Parameters
        ----------
        part : (int, int)
            Number of the part, and how many there are.
        """
        times, damaged = self.verified.times(), []
        number, count = part
        for shard, fitting in list(self._unverified.items()):
            level, tile = self[shard[0]], shard[1:]
            if level.numbering.owner(tile, count) == number:
                if not any(self._is_whole(record, times) for record in fitting):
                    level.done.discard(tile)
                    damaged.append(shard)
                del self._unverified[shard]
        return damaged

    def _is_whole(self, record: Record, times: Mapping[Record, int]) -> bool:
        level = self[record.shard[0]]
        _, time = level.state(record.shard[1:])  # before reading: a change meanwhile is found
        if times.get(record) == time:
            return True
        if not level.holds(record):
            return False
        self.verified.add(record, time)
        return True

    @contextmanager
    def moved(self, folder: Path) -> Iterator[None]:
        """Make readers wait while the store is renamed to ``folder``, and read from there afterwards."""
        with ExitStack() as stack:
            for level in self:
                stack.enter_context(level.moved(folder))
            yield

    def _build_above(self, number: int, tile: Tile) -> None:
        """Compute the coarser shards for which this one was the last missing part."""
        if number + 1 == len(self):
            return
        leading, index = tile
        fine, coarse = self[number], self[number + 1]
        for above in coarse.grid.indices(parents(fine.grid.box(index), self._shape(number + 1))):
            box = support(coarse.grid.box(above), self._shape(number))
            below = [(leading, i) for i in fine.grid.indices(box)]
            known = all(tile in fine and (number, *tile) not in self._unverified for tile in below)
            if known and (leading, above) not in coarse:
                self._build(number + 1, (leading, above))

    def _build(self, number: int, tile: Tile) -> None:
        """Compute a coarser shard, without the cache for views."""
        leading, index = tile
        self.write(number, tile, coarser(self[number - 1].whole, leading, self[number].grid.box(index)))

    def _shape(self, number: int) -> IntTriple:
        return int_triple(self[number].array.shape[-3:])
