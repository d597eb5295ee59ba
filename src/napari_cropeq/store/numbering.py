"""Which shards a level has, in storage order, and to which process each belongs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_cropeq.store.protocol import Tile

__all__ = ["Numbering"]


@dataclass(frozen=True, slots=True)
class Numbering:
    """The shards of a level, finished or not."""

    counts: tuple[int, ...]  # along each leading axis, then z, y, x

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __contains__(self, tile: Tile) -> bool:
        numbers = (*tile[0], *tile[1])
        return len(numbers) == len(self.counts) and all(0 <= i < n for i, n in zip(numbers, self.counts, strict=True))

    def owner(self, tile: Tile, count: int) -> int:
        """Return the number of the process, of ``count`` that share the work, to which a shard belongs.

        Each has consecutive shards in storage order, so that most reads are shared.
        """
        number = 0
        for index, length in zip((*tile[0], *tile[1]), self.counts, strict=True):
            number = number * length + index
        return number * count // len(self)
