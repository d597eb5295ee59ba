"""Volumes that are evaluated together: read beforehand, each counted once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from napari_cropeq.evidence.evaluate.truth import Truth
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import open_source

__all__ = ["TestSet", "joined"]


class TestSet:
    """The truths that a command names; all of them are held in memory.

    Parameters
    ----------
    words : iterable of str or path
        As of a batch, see :func:`napari_cropeq.formats.find.find_images`.
    channel, time : int
        Which one of each, from 0.

    Raises
    ------
    FileNotFoundError, ValueError
        If a word stands for no image.
    """

    def __init__(self, words: Iterable[str | Path], channel: int = 0, time: int = 0) -> None:
        self._where = channel, time
        self.truths: list[Truth] = []
        """What is read so far, in the order of the words."""
        self.notes: list[str] = []
        """What was named more than once, in sentences."""
        self.paths: list[Path] = []
        found: dict[Path, Path] = {}
        for path in (path for word in words for path in find_images([word])):
            if found.setdefault(path.resolve(), path) is path:
                self.paths.append(path)
            else:
                self._note(f"Got {path} more than once: it is counted once.")

    def read(self) -> Iterator[tuple[str, float]]:
        """Read all volumes, yielding the name of the next one and the share that is done.

        Raises
        ------
        ValueError, OSError, ImportError
            If a volume cannot be used. Where there are several, one sentence names each that cannot.
        """
        refused: dict[str, Exception] = {}
        by_voxels: dict[str, Path] = {}
        for number, path in enumerate(self.paths):
            yield path.name, number / len(self.paths)
            try:
                truth = Truth.of(open_source(path), *self._where)
            except (OSError, ValueError, ImportError) as error:
                if len(self.paths) == 1:
                    raise
                refused[str(path)] = error
                continue
            first = by_voxels.setdefault(truth.checksum, path)
            if first is path:
                self.truths.append(truth)
            else:
                self._note(f"Got {first} and {path}, which hold the same voxels: they are counted once, as {first}.")
        if refused:
            raise ValueError(joined({name: str(error) for name, error in refused.items()}, len(self.paths)))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def joined(refusals: Mapping[str, str], total: int) -> str:
    """Return one text for the volumes that cannot be used, of ``total``: who gets which sentence."""
    if total == 1:
        return next(iter(refusals.values()))
    who: dict[str, list[str]] = {}
    for name, sentence in refusals.items():
        who.setdefault(sentence, []).append(name)
    return " ".join(f"{_listed(names, total)}: {sentence}" for sentence, names in who.items())


def _listed(names: Sequence[str], total: int) -> str:
    return f"All {total} volumes" if len(names) == total else ", ".join(names)
