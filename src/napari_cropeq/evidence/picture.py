"""Writing figures as PNG files."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.figure import Figure

from napari_cropeq.core.whole_file import whole_file
from napari_cropeq.errors import AccessError, ArgumentError, OutputExistsError
from napari_cropeq.formats.paths import check_space

__all__ = ["check_picture", "write_picture"]

DPI = 110


def check_picture(path: Path, existing: str = "refuse") -> None:
    """Raise if a picture and the JSON beside it cannot be written to ``path``.

    Parameters
    ----------
    path : path
        The picture.
    existing : str
        ``refuse`` or ``overwrite`` an existing picture or JSON.

    Raises
    ------
    OutputExistsError
        If one of them exists, and ``existing`` is ``refuse``.
    ArgumentError
        If the name does not end in ``.png``.
    AccessError
        If the folder does not exist or is not writable, or ``path`` is a folder.
    """
    if path.suffix.lower() != ".png":
        raise ArgumentError(f"The name {path.name!r} does not end in .png.", "Rename the output.", setting="output")
    for file in (path, path.with_suffix(".json")):
        if file.is_dir():
            raise AccessError(f"{file} is a folder.", "Choose another name for the picture.", setting="output")
        if existing == "refuse" and os.path.lexists(file):
            raise OutputExistsError(
                f"{file} exists already.",
                'Choose another name, or replace it with existing="overwrite".',
                setting="existing",
            )
    check_space(path.parent, 0)


def write_picture(figure: Figure, path: Path, dpi: float = DPI) -> None:
    """Write a PNG; an existing file is replaced only once the new one is complete."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
