"""What counts as right: an error of this package in a sentence, or the voxels that the file stores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from fuzz.edits import Edit, apply
from napari_cropeq.errors import CropeqError

T = TypeVar("T")

LARGE = 2**24  # voxels: of a larger array only a corner is read
CORNER = 20
RIGHT, TOLD, REFUSED = "right", "as the file says", "refused"


class WrongError(Exception):
    """A case that ended in another way than it may."""


class Kind:
    """A kind of file: how it is made and damaged, and how a case is judged.

    Parameters
    ----------
    folder : path
        An empty folder for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make()
        self.files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def make(self) -> None:
        """Write the undamaged files, and keep what they contain."""
        raise NotImplementedError

    def edits(self) -> st.SearchStrategy[Edit]:
        """Return the strategy that draws one edit."""
        raise NotImplementedError

    def judge(self, edits: list[Edit]) -> str:
        """Return how a case ends with files that were damaged; raise WrongError if it may not end so."""
        raise NotImplementedError

    def run(self, edits: list[Edit]) -> str:
        """Damage the files, judge the case, and restore the files."""
        try:
            apply(self.folder, edits)
            return self.judge(edits)
        finally:
            self.restore(edits)

    def restore(self, edits: list[Edit]) -> None:
        """Write the files again that edits have changed."""
        for name, operation, *rest in edits:
            path = self.folder / name
            other = Path(os.path.normpath(path.parent / rest[0])) if operation == "exchange" else path
            for changed in (path, other):
                if changed in self.files:
                    changed.parent.mkdir(parents=True, exist_ok=True)
                    changed.write_bytes(self.files[changed])


def unless_refused(function: Callable[[], T]) -> T | None:
    """Return what a function returns; None if it raises an error of this package, which must be a sentence."""
    try:
        return function()
    except CropeqError as error:
        for text in (error.problem, error.remedy, str(error)):
            if not text.strip().endswith((".", "imagecodecs")) or not text.isprintable() or len(text) > 1000:
                raise WrongError(f"{type(error).__name__} is not in a sentence: {text[:300]!r}") from error
        return None


Seen = tuple[tuple[int, ...], Any]
"""Shape of an array, and its voxels, or those of a corner."""


def seen(array: Any) -> Seen:
    """Read an array-like, or a corner of a large one."""
    shape = tuple(int(n) for n in array.shape)
    large = int(np.prod([float(n) for n in shape])) > LARGE
    box = tuple(slice(0, min(n, CORNER) if large else n) for n in shape)
    return shape, np.asarray(array[box])


def same(one: Seen, other: Seen) -> bool:
    """Return whether shape, type and voxels are equal; NaN is equal to itself."""
    (shape, a), (other_shape, b) = one, other
    b = b.astype(b.dtype.newbyteorder("="), copy=False)
    return shape == other_shape and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def in_any(found: Seen, allowed: Iterable[Seen]) -> bool:
    """Return whether voxels are equal to some of those that are allowed."""
    return any(same(found, other) for other in allowed)
