"""Test set: the volumes of an evaluation, read before it starts; each counts once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from napari_cropeq.errors import CropeqError, ImageError
from napari_cropeq.evidence.evaluate.truth import Truth
from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.open import open_image

__all__ = ["TestSet", "joined"]


class TestSet:
    """The truths of an evaluation; all of them are held in memory.

    Parameters
    ----------
    words : iterable of str or path
        Files, folders or patterns, see :func:`napari_cropeq.formats.find.find_images`.
    channel, time : int
        Channel and time point of each, from 0.

    Raises
    ------
    FileNotFoundError, ValueError
        If a word matches no image.
    """

    def __init__(self, words: Iterable[str | Path], channel: int = 0, time: int = 0) -> None:
        self._where = channel, time
        self.truths: list[Truth] = []
        """Truths read so far, in the order of the words."""
        self.notes: list[str] = []
        """Notices about volumes that were given more than once."""
        self.paths: list[Path | str] = []
        found: dict[Path | str, Path | str] = {}
        for path in (path for word in words for path in find_images([word])):
            if found.setdefault(path if isinstance(path, str) else path.resolve(), path) is path:
                self.paths.append(path)
            else:
                self._note(f"{path} is given more than once. It counts once.")

    def read(self) -> Iterator[tuple[str, float]]:
        """Read all volumes, yielding the name of the next one and the share that is done.

        Raises
        ------
        ValueError, OSError, ImportError
            If volumes cannot be used; the message names all of them.
        """
        errors: dict[str, Exception] = {}
        by_voxels: dict[str, Path | str] = {}
        for number, path in enumerate(self.paths):
            yield Path(path).name, number / len(self.paths)
            try:
                truth = Truth.of(open_image(path), *self._where)
            except (OSError, ValueError, ImportError) as error:
                errors[str(path)] = error
                continue
            first = by_voxels.setdefault(truth.checksum, path)
            if first is path:
                self.truths.append(truth)
            else:
                self._note(f"{first} and {path} have the same voxels. They count once, as {first}.")
        if errors:
            raise joined(errors, len(self.paths))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def joined(errors: Mapping[str, Exception], total: int) -> Exception:
    """Return one error for the unusable ones of ``total`` volumes; volumes with the same problem are listed together.

    Parameters
    ----------
    errors : mapping
        The error of each unusable volume, by its name.
    total : int
        Number of volumes; the error of a single volume is returned as it is.
    """
    first = next(iter(errors.values()))
    if total == 1:
        return first
    names: dict[str, list[str]] = {}
    for name, error in errors.items():
        names.setdefault(str(error), []).append(name)
    if len(names) == 1 and isinstance(first, CropeqError):
        problem = f"{_listed(list(errors), total)}: {first.problem}"
        return type(first)(problem, first.remedy, setting=first.setting)
    return ImageError(" ".join(f"{_listed(which, total)}: {text}" for text, which in names.items()))


def _listed(names: Sequence[str], total: int) -> str:
    return f"All {total} volumes" if len(names) == total else ", ".join(names)
