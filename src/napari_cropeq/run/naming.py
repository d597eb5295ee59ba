"""Names for the results of a batch: a folder, a pattern and a suffix."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import SUFFIXES
from napari_cropeq.formats.paths import check_not_input, key_of, partial_of

__all__ = ["FIELDS", "PATTERN", "Naming", "check_different", "stem_of"]

PATTERN = "{name}_SR"

FIELDS = {
    "name": "name of the file without its image suffix, or of the layer",
    "factor": "axial step / lateral step, four digits",
    "number": "place in the batch, from 1",
    "folder": "name of the folder that contains the file",
    "dtype": "voxel type of the result",
}
"""Fields of a pattern, in braces, each with an optional Python format such as ``{number:03}``."""

LONGEST = 242
"""Bytes of the name of an unfinished result: file systems allow 255, and its lock needs 13 more."""

OUTPUTS = (".ome.zarr", ".ome.tiff", ".ome.tif", ".zarr")
EXAMPLE: dict[str, Any] = {"name": "stack", "factor": 2.5, "number": 1, "folder": "data", "dtype": "uint16"}


class _Formatter(string.Formatter):
    def format_field(self, value: Any, spec: str) -> str:
        if re.search(r"\d{4}", spec):  # a name of gigabytes
            raise ValueError(f"{spec} is too wide for a file name")
        text = str(format(value, ".4g" if isinstance(value, float) and not spec else spec))
        # The name of a layer may contain characters that a file name cannot.
        return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", text)


def _fields(pattern: str) -> Iterator[str]:
    """Yield the fields of a pattern, and those inside the formats of its fields."""
    for _, field, spec, _ in string.Formatter().parse(pattern):
        if field is not None:
            yield field
            yield from _fields(spec or "")


@dataclass(frozen=True)
class Naming:
    """Names the result of each image of a batch.

    Parameters
    ----------
    folder : Path
        Folder of the results.
    pattern : str
        Name without suffix; see :data:`FIELDS`.
    suffix : str
        ``.ome.zarr`` or ``.ome.tif``.

    Raises
    ------
    ArgumentError
        If the pattern has an unknown field, or does not give a file name.
    """

    folder: Path
    pattern: str = PATTERN
    suffix: str = ".ome.zarr"

    def __post_init__(self) -> None:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        try:
            fields = list(_fields(self.pattern))
        except ValueError as error:
            raise self._error(f"has unbalanced braces ({error})", f"Write, for instance, {PATTERN}.") from error
        unknown = [field for field in fields if field not in FIELDS]
        if unknown:
            raise self._error(f"has the unknown field {{{unknown[0]}}}", f"The fields are {known}.")
        name = self.example()
        if not name.strip(" .") or re.search(r"[/\\\x00-\x1f]", self.pattern) or name.lower().endswith(OUTPUTS):
            raise self._error("is not a file name without folder and suffix", f"Write, for instance, {PATTERN}.")

    @classmethod
    def single(cls, path: Path) -> Naming:
        """Return a naming that gives the result the name ``path``, whatever the image."""
        suffix = next((s for s in OUTPUTS if path.name.lower().endswith(s)), "")
        stem = path.name[: len(path.name) - len(suffix)]
        return cls(path.parent, stem.replace("{", "{{").replace("}", "}}"), path.name[len(stem) :])

    def output(self, number: int, source: Image, acquisition: Acquisition, dtype: str) -> Path:
        """Return the path of the result of a source."""
        folder = Path(source.path).parent.name if source.path else ""
        values = {"name": source.name, "factor": acquisition.factor, "number": number}
        return self.folder / (self._fill(values | {"folder": folder, "dtype": dtype}) + self.suffix)

    def example(self, **known: Any) -> str:
        """Return an example name: values that are not ``known`` are invented."""
        return self._fill(EXAMPLE | known)

    def stem(self, output: Path) -> str:
        """Return the name of an output without its suffix."""
        return output.name.removesuffix(self.suffix)

    def _fill(self, values: dict[str, Any]) -> str:
        try:
            name = _Formatter().vformat(self.pattern, (), values)
        except (ValueError, TypeError) as error:
            raise self._error(
                f"has a format that does not fit its field ({error})", "Write, for instance, {number:03}."
            ) from error
        if len(os.fsencode(partial_of(Path(name + self.suffix)).name)) > LONGEST:
            raise self._error(f"gives a name that is too long ({name[:40]!r} …)", "Choose a shorter one.")
        return name

    def _error(self, what: str, remedy: str) -> ArgumentError:
        shown = self.pattern if len(self.pattern) <= 100 else f"{self.pattern[:100]} …"
        return ArgumentError(f"The naming pattern {shown!r} {what}.", remedy, setting="pattern")


def stem_of(name: str) -> str:
    """Return the name of an image without its suffix."""
    suffixes = [suffix for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - max(map(len, suffixes), default=0)]


def check_different(outputs: Sequence[tuple[str, Path]], inputs: Sequence[Path]) -> None:
    """Raise ArgumentError if two inputs have the same output, or an output would replace or remove an input.

    The folder that holds an output until it is complete counts as well.

    Parameters
    ----------
    outputs : sequence of (str, path)
        Name and output of each input.
    inputs : sequence of path
        The files that are read.
    """
    seen: dict[str, str] = {}
    for name, path in outputs:
        check_not_input(path, inputs, name, "Choose another output, naming pattern or folder.")
        for place in (path, partial_of(path)):
            key = key_of(place)
            if key in seen:
                raise ArgumentError(
                    f"{seen[key]} and {name} would both be written to {place}.",
                    "Add {number} or {folder} to the naming pattern, or export them to different folders.",
                    setting="names",
                )
            seen[key] = name
