"""Pictures in files of their own."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from napari_cropeq.core.whole_file import whole_file
from napari_cropeq.formats.paths import check_space

__all__ = ["check_picture", "write_picture"]

DPI = 110


def check_picture(path: Path) -> None:
    """Raise if a picture and the JSON beside it cannot be written to ``path``.

    Raises
    ------
    ValueError
        If it is no PNG.
    OSError
        If its folder is not there or not writable, or a folder stands in its place.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"Got output {path.name!r}, expected a name ending in .png: rename it.")
    for file in (path, path.with_suffix(".json")):
        if file.is_dir():
            raise OSError(f"Got {file}, which is a folder, expected the name of a file: choose another.")
    check_space(path.parent, 0)


def write_picture(figure: Figure, path: Path, dpi: float = DPI) -> None:
    """Write a PNG; a file of that name is replaced only once the new one is complete."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
