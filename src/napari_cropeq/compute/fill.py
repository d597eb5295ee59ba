"""Fill a store: compute every missing tile of a volume, in storage order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Set
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex, int_triple
from napari_cropeq.core.host import give_freed_memory_back
from napari_cropeq.core.predict import never
from napari_cropeq.core.thread_map import ThreadMap
from napari_cropeq.core.tiles import TileGrid, divide
from napari_cropeq.errors import SourceChangedError, StoppedError
from napari_cropeq.store.protocol import TileStore

__all__ = [
    "Done",
    "Event",
    "Failed",
    "Failures",
    "Filled",
    "Group",
    "Stepped",
    "TileFiller",
    "groups",
    "retried",
]

logger = logging.getLogger(__name__)

Ask = Callable[[], bool]

ASK_SECONDS = 0.02
RETRIES = (0.2, 1.0)  # pauses in seconds before a source that could not be read is tried again
GIVE_UP = 16  # failures in a row after which a run ends, because the source is not available any more

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Done:
    """A box that has just been computed."""

    store: TileStore
    leading: LeadingIndex
    box: Box
    tiles: int  # number of tiles of the store that this box completes; 0 for a part of a larger tile
    generation: int  # of the last request for visible tiles when the box was started


@dataclass(frozen=True, slots=True)
class Failed:
    """A box that could not be computed; the others continue."""

    error: Exception
    bulk: bool  # whether it ended the run over the volume
    leading: LeadingIndex = ()
    box: Box | None = None  # for the run over the volume; None for others


@dataclass(frozen=True, slots=True)
class Filled:
    """The run over the volume has ended."""

    store: TileStore
    failures: tuple[Failed, ...]  # groups that could not be computed


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step in the background."""


Event = Done | Failed | Filled | Stepped


@dataclass(frozen=True, slots=True)
class Group:
    """Tiles that are computed together: several small ones, or one large one."""

    leading: LeadingIndex
    box: Box
    missing: tuple[IntTriple, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a group, computed at once."""

    group: Group
    part: Box
    first: bool
    last: bool


def groups(
    store: TileStore,
    leading_indices: Iterable[LeadingIndex],
    part: IntTriple,
    mine: Callable[[LeadingIndex, IntTriple], bool] | None = None,
) -> Iterator[Group]:
    """Yield the groups of missing tiles of a store, in storage order; see :class:`TileFiller`."""
    grid = store.grid
    if grid.shape is None:
        raise ValueError("the store has no shape: give it the shape of the SR grid")
    # Small tiles are grouped, since larger boxes recompute less; large tiles are computed in parts.
    size = int_triple([max(1, p // t) * t for p, t in zip(part, grid.tile, strict=True)])
    for leading in leading_indices:
        for box in TileGrid(grid.shape, size).touching(Box.whole(grid.shape)):
            missing = [index for index in grid.indices(box) if (leading, index) not in store]
            if mine is not None:
                missing = [index for index in missing if mine(leading, index)]
            if missing:
                yield Group(leading, box, tuple(missing))


class Failures:
    """Groups that could not be computed, reported when a run over the volume ends."""

    def __init__(self) -> None:
        self.all: list[Failed] = []
        self._in_a_row = 0

    def note(self, event: Done | Failed) -> None:
        """Record the result of a group.

        Raises
        ------
        Exception
            The error of the last group, if too many failed in a row: the source is not available any more.
        """
        if isinstance(event, Failed):
            self.all.append(event)
            self._in_a_row += 1
            if self._in_a_row == GIVE_UP:
                raise event.error
        elif event.tiles:
            self._in_a_row = 0


class TileFiller:
    """Computes the missing tiles of a store.

    Parameters
    ----------
    store : TileStore
        A store with a shape.
    source : TileSource
        Computes the voxels; it is closed when :meth:`events` ends.
    mine : callable, optional
        Whether to fill the tile with this number (z, y, x) at these leading indices; all by default.
    """

    def __init__(
        self, store: TileStore, source: TileSource, mine: Callable[[LeadingIndex, IntTriple], bool] | None = None
    ) -> None:
        self._store, self._source, self._mine = store, source, mine

    def events(
        self, stop: Ask, generation: Callable[[], int], urgent: Ask = never
    ) -> Generator[Event | None, None, None]:
        """Compute and yield parts, and put the tiles of a group into the store when the group is complete.

        A group whose source cannot be read is tried again, then reported and skipped.

        Parameters
        ----------
        stop : callable
            Called often, in any thread; once it returns True the work ends with StoppedError.
        generation : callable
            Returns the number of the last request for tiles in view.
        urgent : callable
            Called while other threads compute parts: if it returns True, None is yielded, and the caller may do
            something else meanwhile.

        Raises
        ------
        SourceChangedError
            If a file of the source has changed: nothing that was computed from it is stored any more.
        OSError
            If the store cannot be written.
        """
        failures, source = Failures(), self._source
        found = groups(self._store, source.leading_indices, source.part, self._mine)
        with closing(source), closing(self.fill(found, stop, generation, urgent)) as events:
            for event in events:
                if event is not None:
                    failures.note(event)
                yield event
        self._store.flush()
        yield Filled(self._store, tuple(failures.all))

    def fill(
        self, found: Iterable[Group], stop: Ask, generation: Callable[[], int], urgent: Ask = never
    ) -> Generator[Done | Failed | None, None, None]:
        """Compute and yield the parts of groups, and put the tiles of complete groups; as :meth:`events`."""
        threads, failed = ThreadMap(self._source.side_by_side), set[Group]()

        def compute(piece: Piece) -> npt.NDArray[Any]:
            return retried(lambda: self._source(piece.group.leading, piece.part, stopped), stopped)

        def stopped() -> bool:
            return threads.over or stop()

        voxels: npt.NDArray[Any] = np.empty(0)
        try:
            for piece, computed in threads.map(compute, self._pieces(found, failed)):
                group = piece.group
                while not _ready(computed, urgent):
                    yield None
                if group in failed:
                    continue
                try:
                    part = computed.result()
                except (StoppedError, SourceChangedError):
                    raise
                except Exception as error:  # noqa: BLE001 (the other groups continue, and the caller reports the error)
                    box = ", ".join(f"{a} to {b}" for a, b in zip(group.box.start, group.box.stop, strict=True))
                    logger.warning("SR voxels %s (z, y, x) at %s were not computed: %s", box, group.leading, error)
                    failed.add(group)
                    yield Failed(error, False, group.leading, group.box)
                    continue
                if piece.first:
                    voxels = np.empty(group.box.shape, part.dtype)
                voxels[piece.part.relative_to(group.box.start).slices] = part
                if piece.last:
                    self._put(group, voxels)
                    give_freed_memory_back()  # each thread keeps freed blocks of its own: without this, more and more
                yield Done(self._store, group.leading, piece.part, len(group.missing) * piece.last, generation())
        finally:
            threads.dismiss()

    def _pieces(self, found: Iterable[Group], failed: Set[Group]) -> Iterator[Piece]:
        """Yield the parts of groups, group by group; source voxels are prefetched one group ahead."""
        for group, following in _with_next(found):
            for needed in (group, following):
                if needed is not None:
                    self._source.prefetch(needed.leading, needed.box)
            parts = list(divide(group.box, self._source.part))
            for number, part in enumerate(parts, 1):
                if group not in failed:
                    yield Piece(group, part, number == 1, number == len(parts))

    def _put(self, group: Group, voxels: npt.NDArray[Any]) -> None:
        for index in group.missing:
            box = self._store.grid.box(index)
            self._store.put((group.leading, index), voxels[box.relative_to(group.box.start).slices])


def _ready(computed: Future[Any], urgent: Ask) -> bool:
    """Wait until a part is computed or something else is urgent; return whether the part is computed."""
    while not computed.done() and not urgent():
        wait([computed], timeout=ASK_SECONDS)
    return computed.done()


def retried(read: Callable[[], _T], stop: Ask) -> _T:
    """Return ``read()``; after an OSError try again, since network drives often recover after a moment."""
    for pause in RETRIES:
        try:
            return read()
        except SourceChangedError:  # the files that were opened do not come back
            raise
        except OSError as error:
            logger.info("Reading failed, trying again in %.1f s: %s", pause, error)
            _wait(pause, stop)
    return read()


def _wait(seconds: float, stop: Ask) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stop():
            raise StoppedError
        time.sleep(0.02)


def _with_next(items: Iterable[_T]) -> Iterator[tuple[_T, _T | None]]:
    """Yield every item with the next one; the last item with None."""
    iterator = iter(items)
    for item in iterator:
        following = next(iterator, None)
        while following is not None:
            yield item, following
            item, following = following, next(iterator, None)
        yield item, None
